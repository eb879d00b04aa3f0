# SPDX-License-Identifier: Apache-2.0
#
# Toolchain of the clang and fuzz presets: whichever clang is installed, 14 (Debian 12) preferred.

find_program(NB_CLANG NAMES clang-14 clang clang-20 clang-19 clang-18 clang-17 clang-16 clang-15)
if(NOT NB_CLANG)
    message(FATAL_ERROR "No clang is installed.\nRun tools/install-deps --dev.")
endif()
set(CMAKE_C_COMPILER ${NB_CLANG})

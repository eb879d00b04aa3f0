# SPDX-License-Identifier: Apache-2.0
#
# nb_dependencies: the libraries of the product, all found by pkg-config. What is missing is named at
# once, together with the script that installs it.

set(nb_required jansson libpcre2-8 libutf8proc libcrypto)

find_program(PKG_CONFIG_EXECUTABLE NAMES pkg-config pkgconf)
if(NOT PKG_CONFIG_EXECUTABLE)
    message(FATAL_ERROR "nibble needs pkg-config, which is not installed.\nRun tools/install-deps.")
endif()
find_package(PkgConfig REQUIRED)

set(nb_missing "")
add_library(nb_dependencies INTERFACE)
foreach(module IN LISTS nb_required)
    pkg_check_modules(${module} QUIET IMPORTED_TARGET ${module})
    if(${module}_FOUND)
        target_link_libraries(nb_dependencies INTERFACE PkgConfig::${module})
    else()
        list(APPEND nb_missing ${module})
    endif()
endforeach()
if(nb_missing)
    list(JOIN nb_missing ", " nb_missing)
    message(FATAL_ERROR "nibble needs libraries that pkg-config does not find: ${nb_missing}.\n"
                        "Run tools/install-deps: it installs them, or prints their names.")
endif()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
target_link_libraries(nb_dependencies INTERFACE Threads::Threads m)
list(JOIN nb_required " " nb_pc_requires)

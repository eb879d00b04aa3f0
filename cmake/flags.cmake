# SPDX-License-Identifier: Apache-2.0
#
# nb_flags: what every C file of ours is compiled with. No contraction of a*b+c, so that builds of one
# instruction-set level agree to the last bit; no path of this machine in the binaries.

set(CMAKE_C_FLAGS_RELEASE "-O3 -DNDEBUG")
set(CMAKE_C_FLAGS_DEBUG "-Og -g3")
if(NB_SANITIZE)
    set(CMAKE_C_FLAGS_DEBUG "-O2 -g")
endif()

if(NOT DEFINED CMAKE_COMPILE_WARNING_AS_ERROR)
    set(CMAKE_COMPILE_WARNING_AS_ERROR ON)
endif()

add_library(nb_flags INTERFACE)
target_compile_definitions(nb_flags INTERFACE _GNU_SOURCE)
target_compile_options(nb_flags INTERFACE
    $<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wshadow;-Wvla;-Wmissing-prototypes;-Wstrict-prototypes>
    $<$<COMPILE_LANGUAGE:C>:-Wwrite-strings;-Wundef;-Wpointer-arith;-Wpedantic>
    # Messages are cut to the size of struct nb_err on purpose; only gcc warns of it.
    $<$<AND:$<COMPILE_LANGUAGE:C>,$<C_COMPILER_ID:GNU>>:-Wno-format-truncation>
    $<$<COMPILE_LANGUAGE:C>:-ffp-contract=off;-fno-math-errno;-fno-trapping-math>
    $<$<COMPILE_LANGUAGE:C>:-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=>)

if(NB_SANITIZE)
    target_compile_options(nb_flags INTERFACE
        -fsanitize=${NB_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(nb_flags INTERFACE -fsanitize=${NB_SANITIZE})
    set(nb_no_undefined "")
elseif(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    set(nb_no_undefined -Wl,--no-undefined)
endif()
if(NB_FUZZ)
    target_compile_options(nb_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# SPDX-License-Identifier: Apache-2.0
#
# Which files make the library and the program, and the flags of the instruction-set folders.
#
# Sets nb_library_sources, nb_cli_sources (src/cli without main.c), nb_cli_main, and nb_isa_definitions:
# NB_HAVE_<ISA> for each folder of src/backend/cpu and src/numeric/cpu that is built, tested only inside
# src/backend and src/numeric/cpu.

# Keeps the files of the folders in NB_FOLDERS, if any are named.
function(nb_keep_folders list_name prefix)
    if(NB_FOLDERS)
        list(JOIN NB_FOLDERS "|" folders)
        list(FILTER ${list_name} INCLUDE REGEX "^${prefix}/(${folders})/")
        set(${list_name} ${${list_name}} PARENT_SCOPE)
    endif()
endfunction()

file(GLOB_RECURSE nb_library_sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR}
    src/*.c)
list(FILTER nb_library_sources EXCLUDE REGEX "_tmpl\\.c$") # included by others, with defines set
nb_keep_folders(nb_library_sources src)

set(nb_cli_sources ${nb_library_sources})
list(FILTER nb_cli_sources INCLUDE REGEX "^src/cli/")
list(FILTER nb_library_sources EXCLUDE REGEX "^src/cli/")
set(nb_cli_main "")
if("src/cli/main.c" IN_LIST nb_cli_sources)
    set(nb_cli_main src/cli/main.c)
    list(REMOVE_ITEM nb_cli_sources src/cli/main.c)
endif()

# --- instruction sets ---------------------------------------------------------------------------

set(nb_isa_known avx2 avx512 avx512vnni avx512bf16 amx neon)
set(nb_isa_avx2_flags -mavx2 -mfma -mf16c)
set(nb_isa_avx512_flags ${nb_isa_avx2_flags} -mavx512f -mavx512bw -mavx512dq -mavx512vl)
set(nb_isa_avx512vnni_flags ${nb_isa_avx512_flags} -mavx512vnni)
set(nb_isa_avx512bf16_flags ${nb_isa_avx512vnni_flags} -mavx512bf16)
set(nb_isa_amx_flags ${nb_isa_avx512bf16_flags} -mamx-tile -mamx-int8 -mamx-bf16)
set(nb_isa_neon_flags "")
# Frames that the address sanitizer checks for use after return are aligned to 32 bytes by gcc, vectors of
# AVX-512 on them want 64: that one check is left out there.
if(NB_SANITIZE MATCHES "address" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
    foreach(isa avx512 avx512vnni avx512bf16 amx)
        list(APPEND nb_isa_${isa}_flags --param=asan-use-after-return=0)
    endforeach()
endif()

set(nb_isa_built "")
if(NOT NB_GENERIC_ONLY)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
        set(nb_isa_built avx2 avx512 avx512vnni avx512bf16 amx)
    elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
        set(nb_isa_built neon)
    endif()
endif()

set(nb_isa_definitions "")
foreach(isa IN LISTS nb_isa_known)
    set(files ${nb_library_sources})
    list(FILTER files INCLUDE REGEX "^src/(backend|numeric)/cpu/${isa}/")
    if(isa IN_LIST nb_isa_built AND files)
        set_source_files_properties(${files} PROPERTIES COMPILE_OPTIONS "${nb_isa_${isa}_flags}")
        string(TOUPPER ${isa} upper)
        list(APPEND nb_isa_definitions NB_HAVE_${upper})
    else()
        list(FILTER nb_library_sources EXCLUDE REGEX "^src/(backend|numeric)/cpu/${isa}/")
    endif()
endforeach()

if(NB_CUDA)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        set(CMAKE_CUDA_ARCHITECTURES 90)
    endif()
    enable_language(CUDA)
    file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR} src/backend/cuda/*.cu)
    list(APPEND nb_library_sources ${cuda_sources})
    list(APPEND nb_isa_definitions NB_HAVE_CUDA)
else()
    list(FILTER nb_library_sources EXCLUDE REGEX "^src/backend/cuda/")
endif()

# SPDX-License-Identifier: Apache-2.0
#
# The texts of data/calibration and data/evaluation become part of the library: tools/embed.c turns
# them into one C file with the table of src/base/embedded.h.

function(nb_embed_texts target)
    add_executable(nb_embed ${CMAKE_SOURCE_DIR}/tools/embed.c)
    target_link_libraries(nb_embed PRIVATE nb_flags)

    file(GLOB texts CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR}/data
        ${CMAKE_SOURCE_DIR}/data/calibration/*.txt ${CMAKE_SOURCE_DIR}/data/evaluation/*.txt)
    list(SORT texts)
    list(TRANSFORM texts PREPEND ${CMAKE_SOURCE_DIR}/data/ OUTPUT_VARIABLE paths)
    set(generated ${CMAKE_BINARY_DIR}/generated/data_embedded.c)
    add_custom_command(OUTPUT ${generated}
        COMMAND nb_embed ${generated} ${CMAKE_SOURCE_DIR}/data ${texts}
        DEPENDS nb_embed ${paths}
        COMMENT "Embedding data/calibration and data/evaluation" VERBATIM)
    target_sources(${target} PRIVATE ${generated})
    set_source_files_properties(${generated} PROPERTIES COMPILE_OPTIONS -Wno-overlength-strings)
endfunction()

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "support/folder.h"

static void test_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum nb_file_kind kind;
    } files[] = {
        {"model.safetensors", NB_FILE_WEIGHTS},
        {"model-00001-of-00002.safetensors", NB_FILE_WEIGHTS},
        {"model.safetensors.index.json", NB_FILE_INDEX},
        {"config.json", NB_FILE_CONFIG},
        {"quantize_config.json", NB_FILE_QUANT_CONFIG},
        {"quant_config.json", NB_FILE_QUANT_CONFIG},
        {"tokenizer.json", NB_FILE_SIDE},
        {"tokenizer.model", NB_FILE_SIDE},
        {"generation_config.json", NB_FILE_SIDE},
        {"chat_template.jinja", NB_FILE_SIDE},
        {"modeling_custom.py", NB_FILE_SIDE},
        {"LICENSE", NB_FILE_SIDE},
        {"README.md", NB_FILE_OTHER},
        {"manifest.json", NB_FILE_OTHER},
        {"report.html", NB_FILE_OTHER},
        {".gitattributes", NB_FILE_OTHER},
        {"pytorch_model.bin", NB_FILE_OTHER},
        {"pytorch_model-00001-of-00002.bin", NB_FILE_OTHER},
        {"pytorch_model.bin.index.json", NB_FILE_OTHER},
        {"consolidated.00.pth", NB_FILE_OTHER},
        {"tf_model.h5", NB_FILE_OTHER},
        {"model.onnx", NB_FILE_OTHER},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        assert_int_equal(nb_model_file_kind(files[i].name), files[i].kind);
    }
}

static void test_list(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_model_file *files;
    size_t n;
    char *dir = folder_make();
    folder_text(dir, "tokenizer.json", "abc");
    folder_text(dir, "config.json", "{}");
    char *sub = nb_path_join(dir, "original");
    assert_int_equal(mkdir(sub, 0755), 0);
    nb_free(sub);
    assert_int_equal(nb_model_files(dir, false, &files, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_string_equal(files[0].name, "config.json");
    assert_int_equal(files[0].kind, NB_FILE_CONFIG);
    assert_int_equal(files[0].bytes, 2);
    assert_string_equal(files[0].sha256, "");
    nb_model_files_free(files, n);
    assert_int_equal(nb_model_files(dir, true, &files, &n, &err), 0);
    assert_string_equal(files[1].name, "tokenizer.json");
    assert_string_equal(files[1].sha256,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    nb_model_files_free(files, n);
    folder_remove(dir);
    assert_int_equal(nb_model_files("no/such/folder", false, &files, &n, &err), NB_E_NOTFOUND);
    assert_null(files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

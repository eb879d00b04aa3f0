/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_config.c - find the quantization config of a folder and tell whose it is.
 *
 * Every ecosystem writes a JSON object, in config.json or in a file beside it, and over the years under
 * several names for the same key. Source: checkpoint formats, sections 2.6, 3.3, 7.5. */
#include "checkpoint/internal.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"

enum { SIDE_MAX_BYTES = 16 << 20 };

static const char what[] = "quantization config";

static const json_t *inside_config(const json_t *config)
{
    const json_t *q = json_object_get(config, "quantization_config");
    if (q && !json_is_null(q)) return q;
    return json_object_get(json_object_get(config, "text_config"), "quantization_config");
}

int nb_quant_config_find(const json_t *config, const char *dir, json_t **out, struct nb_err *err)
{
    static const char *const side[] = {"quantize_config.json", "quant_config.json"};
    *out = NULL;
    const json_t *q = inside_config(config);
    if (q && !json_is_null(q)) {
        if (!json_is_object(q)) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s/config.json: quantization_config is %s, expected an object", dir,
                           nb_json_type_name(q));
        }
        *out = json_incref((json_t *)(uintptr_t)q);
        return 0;
    }
    for (size_t i = 0; i < sizeof side / sizeof *side; i++) {
        char *path = nb_path_join(dir, side[i]);
        int rc = 0;
        if (nb_path_exists(path)) {
            *out = nb_json_load(path, SIDE_MAX_BYTES, err);
            if (!*out) rc = err ? err->status : NB_E_FORMAT;
            else if (!json_is_object(*out)) {
                rc = nb_fail(err, NB_E_FORMAT, "%s: holds %s, expected an object", path,
                             nb_json_type_name(*out));
                json_decref(*out);
                *out = NULL;
            }
        }
        nb_free(path);
        if (rc || *out) return rc;
    }
    return 0;
}

static void to_lower(char out[32], const char *s)
{
    size_t n = 0;
    for (; s[n] && n < 31; n++) out[n] = (char)tolower((unsigned char)s[n]);
    out[n] = '\0';
}

const json_t *nb_quant_config_any(const json_t *q, const char *const *keys)
{
    for (; *keys; keys++) {
        const json_t *v = json_object_get(q, *keys);
        if (v && !json_is_null(v)) return v;
    }
    return NULL;
}

int nb_quant_config_int(const json_t *q, const char *const *keys, const int64_t *fallback,
                        int64_t *out, struct nb_err *err)
{
    for (const char *const *k = keys; *k; k++) {
        const json_t *v = json_object_get(q, *k);
        if (v && !json_is_null(v)) return nb_json_get_int(q, *k, true, out, what, err);
    }
    if (!fallback) return nb_fail(err, NB_E_FORMAT, "%s: key '%s' is missing", what, *keys);
    *out = *fallback;
    return 0;
}

int nb_quant_config_group(const json_t *q, int64_t *out, struct nb_err *err)
{
    static const char *const keys[] = {"group_size", "q_group_size", NULL};
    int rc = nb_quant_config_int(q, keys, NULL, out, err);
    if (rc) return rc;
    if (*out != -1 && (*out < 1 || *out > INT32_MAX)) {
        return nb_fail(err, NB_E_FORMAT, "%s: group_size %" PRId64 " is neither -1 nor a size",
                       what, *out);
    }
    return 0;
}

int nb_quant_config_word(const json_t *q, const char *const *keys, const char *fallback,
                         char out[32], struct nb_err *err)
{
    const char *s = fallback;
    for (const char *const *k = keys; *k; k++) {
        const json_t *v = json_object_get(q, *k);
        if (!v || json_is_null(v)) continue;
        int rc = nb_json_get_string(q, *k, true, &s, what, err);
        if (rc) return rc;
        break;
    }
    to_lower(out, s);
    return 0;
}

void nb_quant_config_method(const json_t *q, char out[32])
{
    static const char *const named[] = {"quant_method", "method", NULL};
    static const char *const awq[] = {"w_bit", "q_group_size", NULL};
    static const char *const gptq[] = {"desc_act", "checkpoint_format", NULL};
    const char *s = json_string_value(nb_quant_config_any(q, named));
    if (!s) {
        const char *version = json_string_value(json_object_get(q, "version"));
        if (nb_quant_config_any(q, awq) || (version && !strncasecmp(version, "gemm", 4))) s = "awq";
        else if (json_object_get(q, "bits") && nb_quant_config_any(q, gptq)) s = "gptq";
        else if (json_object_get(q, "config_groups")) s = "compressed-tensors";
        else s = "";
    }
    to_lower(out, s);
}

int nb_quant_config_checkpoint(const json_t *q, const struct nb_checkpoint **out,
                               struct nb_err *err)
{
    char known[128] = "";
    for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
        if ((*c)->probe(q)) {
            *out = *c;
            return 0;
        }
        size_t n = strlen(known);
        if (*c != &nb_checkpoint_dense) {
            snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", (*c)->name);
        }
    }
    char method[32];
    nb_quant_config_method(q, method);
    if (!method[0]) {
        return nb_fail(err, NB_E_FORMAT, "%s: names no quant_method and has no key that tells it",
                       what);
    }
    return nb_fail(err, NB_E_SPEC,
                   "%s: quant_method '%s' cannot be read; readable are %s and float models", what,
                   method, known);
}

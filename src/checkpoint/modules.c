/* SPDX-License-Identifier: Apache-2.0
 *
 * modules.c - the tensors of one linear, looked up by module path, and how engines spell module paths. */
#include "checkpoint/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const struct nb_tensor *nb_module_tensor(const struct nb_model *m, const char *path,
                                         const char *suffix)
{
    char name[NB_MODULE_NAME_MAX];
    int n = snprintf(name, sizeof name, "%s%s", path, suffix);
    if (!m->tensors || n < 0 || (size_t)n >= sizeof name) return NULL;
    return nb_safetensors_find(m->tensors, name);
}

static void print_shape(char out[96], int rank, const int64_t *shape)
{
    size_t n = 0;
    out[n++] = '[';
    for (int i = 0; i < rank && n < 72; i++) {
        n += (size_t)snprintf(out + n, 96 - n, "%s%" PRId64, i ? "," : "", shape[i]);
    }
    snprintf(out + n, 96 - n, "]");
}

static bool same_shape(const struct nb_tensor *t, const struct nb_packed_tensor *want)
{
    if (t->rank != want->rank) return false;
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] != want->shape[i]) return false;
    }
    return true;
}

int nb_module_need(const struct nb_model *m, const char *path, const struct nb_packed_tensor *want,
                   const struct nb_tensor **out, struct nb_err *err)
{
    const struct nb_tensor *t = *out = nb_module_tensor(m, path, want->suffix);
    if (!t) {
        nb_fail(err, NB_E_FORMAT, "tensor '%s%s' is missing", path, want->suffix);
        if (nb_module_tensor(m, path, ".weight")) {
            nb_err_hint(
                err, "'%s.weight' is there: the quantization config does not say that it is float",
                path);
        }
        return NB_E_FORMAT;
    }
    bool typed = t->dtype == want->dtype || (want->dtype == NB_F16 && nb_dtype_is_weight(t->dtype));
    if (!typed) {
        return nb_fail(err, NB_E_FORMAT, "tensor '%s' has type %s, format %s expects %s", t->name,
                       nb_dtype_name(t->dtype), m->checkpoint->name,
                       want->dtype == NB_F16 ? "F16, BF16 or F32" : nb_dtype_name(want->dtype));
    }
    if (!same_shape(t, want)) {
        char found[96], expected[96];
        print_shape(found, t->rank, t->shape);
        print_shape(expected, want->rank, want->shape);
        return nb_fail(err, NB_E_FORMAT, "tensor '%s' has shape %s, config and format %s expect %s",
                       t->name, found, m->checkpoint->name, expected);
    }
    return 0;
}

bool nb_module_looks_quantized(const struct nb_model *m, const char *path)
{
    return nb_module_tensor(m, path, ".qweight") || !nb_module_tensor(m, path, ".weight");
}

bool nb_module_is_head(const struct nb_model *m, const char *path)
{
    size_t n = strlen(path);
    return n && !strncmp(m->arch.head_name, path, n) && !strcmp(m->arch.head_name + n, ".weight");
}

bool nb_module_fused_path(const char *path, char out[NB_MODULE_NAME_MAX])
{
    static const struct {
        const char *part, *whole;
    } fused[] = {
        {"q_proj", "qkv_proj"},        {"k_proj", "qkv_proj"},      {"v_proj", "qkv_proj"},
        {"gate_proj", "gate_up_proj"}, {"up_proj", "gate_up_proj"},
    };
    const char *dot = strrchr(path, '.');
    const char *last = dot ? dot + 1 : path;
    for (size_t i = 0; i < sizeof fused / sizeof *fused; i++) {
        if (strcmp(last, fused[i].part)) continue;
        snprintf(out, NB_MODULE_NAME_MAX, "%.*s%s", (int)(last - path), path, fused[i].whole);
        return true;
    }
    return false;
}

const char *nb_module_inside_layer(const char *path)
{
    for (const char *dot = strchr(path, '.'); dot; dot = strchr(dot + 1, '.')) {
        size_t digits = strspn(dot + 1, "0123456789");
        if (digits && dot[1 + digits] == '.') return dot + 2 + digits;
    }
    return NULL;
}

bool nb_module_same_grid(const struct nb_qspec *a, const struct nb_qspec *b)
{
    int64_t x = a->group_cols <= 0 ? -1 : a->group_cols,
            y = b->group_cols <= 0 ? -1 : b->group_cols;
    return a->elem.bits == b->elem.bits && x == y && a->symmetric == b->symmetric;
}

bool nb_module_has_order(const struct nb_qspec *spec, bool desc_act)
{
    return desc_act && spec->group_cols > 0;
}

bool nb_module_group_usable(int64_t group, int64_t cols, int64_t largest)
{
    bool known = group == 32 || group == 64 || group == 128 || group == 256;
    return known && group <= largest && cols % group == 0;
}

void nb_module_usable_groups(int64_t cols, int64_t largest, char out[32])
{
    size_t n = 0;
    out[0] = '\0';
    for (int64_t g = 32; g <= largest; g *= 2) {
        if (!nb_module_group_usable(g, cols, largest)) continue;
        n += (size_t)snprintf(out + n, 32 - n, "%s%" PRId64, n ? ", " : "", g);
    }
}

void nb_packed_set(struct nb_packed_tensor *t, const char *suffix, enum nb_dtype dtype, int64_t a,
                   int64_t b)
{
    *t = (struct nb_packed_tensor){.dtype = dtype,
                                   .rank = a < 0   ? 0
                                           : b < 0 ? 1
                                                   : 2,
                                   .shape = {a < 0 ? 0 : a, b < 0 ? 0 : b}};
    snprintf(t->suffix, sizeof t->suffix, "%s", suffix);
}

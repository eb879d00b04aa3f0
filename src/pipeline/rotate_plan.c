/* SPDX-License-Identifier: Apache-2.0
 *
 * rotate_plan.c - see rotate_plan.h. */
#include "pipeline/rotate_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_name(const void *pa, const void *pb)
{
    const struct nb_turn_entry *a = pa, *b = pb;
    return strcmp(a->name, b->name);
}

/* NULL: the files have no such tensor. */
static struct nb_turn_entry *find(const struct nb_turn_plan *p, const char *name)
{
    const struct nb_turn_entry key = {.name = name};
    return bsearch(&key, p->entries, p->n, sizeof key, by_name);
}

static struct nb_turn_entry *find_inside(const struct nb_turn_plan *p, const struct nb_arch *arch,
                                         int64_t l, const char *inside)
{
    char name[NB_NAME_MAX * 2];
    nb_arch_name(arch, l, inside, name);
    return find(p, name);
}

static void set_norm(struct nb_turn_plan *p, const char *name)
{
    struct nb_turn_entry *e = find(p, name);
    if (e) e->turn = NB_TURN_NORM;
}

static void set_reader(struct nb_turn_entry *e, const char *norm, int64_t first_value)
{
    if (!e) return;
    e->turn = NB_TURN_READ;
    e->first_value = first_value;
    snprintf(e->norm, sizeof e->norm, "%s", norm);
}

static void set_writer(struct nb_turn_entry *e, bool heads)
{
    if (!e) return;
    e->turn = NB_TURN_WRITE;
    e->heads = heads;
}

static int64_t first_value(const struct nb_arch *arch, enum nb_role role)
{
    if (role == NB_ROLE_V) return 0;
    return role == NB_ROLE_QKV ? (arch->n_heads + arch->n_kv_heads) * arch->head_dim : -1;
}

static void set_linear(struct nb_turn_plan *p, const struct nb_arch *arch, int64_t l,
                       const struct nb_arch_linear *lin)
{
    char inside[NB_NAME_MAX + 8], norm[NB_NAME_MAX * 2];
    const bool attn = lin->input == NB_INPUT_ATTN;
    const bool writes = lin->input == NB_INPUT_O || lin->input == NB_INPUT_DOWN;
    snprintf(inside, sizeof inside, "%s.weight", lin->name);
    struct nb_turn_entry *weight = find_inside(p, arch, l, inside);
    snprintf(inside, sizeof inside, "%s.bias", lin->name);
    struct nb_turn_entry *bias = find_inside(p, arch, l, inside);
    nb_arch_name(arch, l, attn ? arch->attn_norm_name : arch->mlp_norm_name, norm);
    const int64_t value = first_value(arch, lin->role);
    if (writes) set_writer(weight, lin->input == NB_INPUT_O);
    else set_reader(weight, norm, value);
    if (bias && writes) bias->turn = NB_TURN_WRITE_BIAS;
    if (bias && value >= 0) {
        bias->turn = NB_TURN_VALUE_BIAS;
        bias->first_value = value;
    }
}

static void set_experts(struct nb_turn_plan *p, const struct nb_arch *arch, int64_t l)
{
    char norm[NB_NAME_MAX * 2];
    const struct nb_arch_moe *moe = arch->moe;
    nb_arch_name(arch, l, arch->mlp_norm_name, norm);
    set_reader(find_inside(p, arch, l, moe->router_name), norm, -1);
    if (moe->shared_gate_name[0])
        set_reader(find_inside(p, arch, l, moe->shared_gate_name), norm, -1);
    if (moe->stacked_up_name[0])
        set_reader(find_inside(p, arch, l, moe->stacked_up_name), norm, -1);
    if (moe->stacked_down_name[0])
        set_writer(find_inside(p, arch, l, moe->stacked_down_name), false);
}

static void set_layer(struct nb_turn_plan *p, const struct nb_arch *arch, int64_t l)
{
    char name[NB_NAME_MAX * 2];
    nb_arch_name(arch, l, arch->attn_norm_name, name);
    set_norm(p, name);
    nb_arch_name(arch, l, arch->mlp_norm_name, name);
    set_norm(p, name);
    int n;
    const struct nb_arch_linear *linears = nb_arch_layer_linears(arch, l, &n);
    for (int i = 0; i < n; i++) set_linear(p, arch, l, &linears[i]);
    if (nb_arch_has_experts(arch, l)) set_experts(p, arch, l);
}

int nb_turn_plan_make(struct nb_turn_plan *p, const struct nb_model *model, struct nb_err *err)
{
    const struct nb_arch *arch = &model->arch;
    const size_t n = nb_safetensors_count(model->tensors);
    const bool tied = arch->tie_word_embeddings;
    *p = (struct nb_turn_plan){.entries = nb_calloc(n + 1, sizeof *p->entries)};
    if (!p->entries) return nb_fail(err, NB_E_NOMEM, "no memory for a plan of %zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        const struct nb_tensor *t = nb_safetensors_at(model->tensors, i);
        if (nb_arch_is_ignorable(arch, t->name)) continue;
        if (tied && !strcmp(t->name, arch->head_name)) continue;
        p->entries[p->n++] = (struct nb_turn_entry){.from = t, .name = t->name, .first_value = -1};
    }
    if (tied) {
        p->entries[p->n++] =
            (struct nb_turn_entry){.from = nb_safetensors_find(model->tensors, arch->embed_name),
                                   .name = arch->head_name,
                                   .first_value = -1};
    }
    qsort(p->entries, p->n, sizeof *p->entries, by_name);
    set_norm(p, arch->norm_name);
    set_reader(find(p, arch->embed_name), "", -1);
    set_reader(find(p, arch->head_name), arch->norm_name, -1);
    for (int64_t l = 0; l < arch->n_layers; l++) set_layer(p, arch, l);
    return 0;
}

void nb_turn_plan_release(struct nb_turn_plan *p)
{
    nb_free(p->entries);
    *p = (struct nb_turn_plan){0};
}

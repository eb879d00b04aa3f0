/* SPDX-License-Identifier: Apache-2.0
 *
 * ct_args.c - args objects, checked key by key. See ct_args.h. */
#include "checkpoint/ct_args.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *const strategies[] = {
    [NB_CT_TENSOR] = "tensor",       [NB_CT_CHANNEL] = "channel",
    [NB_CT_GROUP] = "group",         [NB_CT_BLOCK] = "block",
    [NB_CT_TOKEN] = "token",         [NB_CT_TENSOR_GROUP] = "tensor_group",
    [NB_CT_ATTN_HEAD] = "attn_head",
};
enum { N_STRATEGIES = sizeof strategies / sizeof *strategies };

static int check_keys(const json_t *args, const char *what, struct nb_err *err)
{
    static const char *const known[] = {
        "num_bits", "type",     "symmetric",   "strategy", "group_size", "block_structure",
        "dynamic",  "actorder", "scale_dtype", "zp_dtype", "observer",   "observer_kwargs"};
    if (!json_is_object(args))
        return nb_fail(err, NB_E_FORMAT, "%s: expected an object, found %s", what,
                       nb_json_type_name(args));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)args, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            found = found || !strcmp(key, known[i]);
        if (!found) return nb_fail(err, NB_E_FORMAT, "%s: unknown key '%.80s'", what, key);
    }
    return 0;
}

static int parse_type(struct nb_ct_args *a, const json_t *args, const char *what,
                      struct nb_err *err)
{
    const char *type = "int";
    a->bits = 8;
    a->symmetric = true;
    int rc = nb_json_get_int(args, "num_bits", false, &a->bits, what, err);
    if (!rc) rc = nb_json_get_string(args, "type", false, &type, what, err);
    if (!rc) rc = nb_json_get_bool(args, "symmetric", false, &a->symmetric, what, err);
    if (rc) return rc;
    a->is_float = !strcasecmp(type, "float");
    if (!a->is_float && strcasecmp(type, "int"))
        return nb_fail(err, NB_E_FORMAT, "%s: type '%.40s' is neither int nor float", what, type);
    const bool known = a->is_float ? a->bits == 4 || a->bits == 8 : a->bits >= 1 && a->bits <= 8;
    if (!known) {
        return nb_fail(err, NB_E_SPEC, "%s: %s of %" PRId64 " bits cannot be read, only %s", what,
                       type, a->bits, a->is_float ? "float of 4 and 8" : "int of 1 to 8");
    }
    return 0;
}

static int parse_dynamic(struct nb_ct_args *a, const json_t *args, const char *what,
                         struct nb_err *err)
{
    const json_t *v = json_object_get(args, "dynamic");
    a->dynamic = NB_CT_STATIC;
    if (!v || json_is_false(v)) return 0;
    if (json_is_true(v)) a->dynamic = NB_CT_DYNAMIC;
    else if (json_is_string(v) && !strcasecmp(json_string_value(v), "local"))
        a->dynamic = NB_CT_LOCAL;
    else return nb_fail(err, NB_E_FORMAT, "%s: dynamic is none of false, true, \"local\"", what);
    return 0;
}

static int parse_actorder(struct nb_ct_args *a, const json_t *args, const char *what,
                          struct nb_err *err)
{
    const json_t *v = json_object_get(args, "actorder");
    const char *s = json_string_value(v);
    a->g_idx = json_is_true(v) || (s && (!strcasecmp(s, "group") || !strcasecmp(s, "dynamic")));
    if (!v || json_is_null(v) || json_is_boolean(v) || a->g_idx) return 0;
    if (s && (!strcasecmp(s, "weight") || !strcasecmp(s, "static"))) return 0;
    return nb_fail(err, NB_E_FORMAT, "%s: actorder is none of null, weight, static, group, dynamic",
                   what);
}

/* [rows, columns], or "128x128" as it once was written. */
static int parse_block(struct nb_ct_args *a, const json_t *args, const char *what,
                       struct nb_err *err)
{
    const json_t *v = json_object_get(args, "block_structure");
    if (!v || json_is_null(v)) return 0;
    long long rows = 0, cols = 0;
    char rest;
    if (json_is_string(v)) {
        if (sscanf(json_string_value(v), "%9lldx%9lld%c", &rows, &cols, &rest) != 2) rows = 0;
    } else if (json_array_size(v) == 2) {
        rows = json_integer_value(json_array_get(v, 0));
        cols = json_integer_value(json_array_get(v, 1));
    }
    if (rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX)
        return nb_fail(err, NB_E_FORMAT, "%s: block_structure is not [rows, columns]", what);
    a->block[0] = rows;
    a->block[1] = cols;
    return 0;
}

/* strategy, and group_size, which decides where no strategy stands. */
static int parse_strategy(struct nb_ct_args *a, const json_t *args, const char *what,
                          struct nb_err *err)
{
    int64_t group = 0;
    const char *name = NULL;
    const json_t *size = json_object_get(args, "group_size");
    const bool sized = size && !json_is_null(size);
    int rc = nb_json_get_int(args, "group_size", false, &group, what, err);
    if (!rc) rc = nb_json_get_string(args, "strategy", false, &name, what, err);
    if (rc) return rc;
    if (sized && group != -1 && (group < 1 || group > INT32_MAX))
        return nb_fail(err, NB_E_FORMAT, "%s: group_size %" PRId64 " is neither -1 nor a size",
                       what, group);
    a->strategy = !sized ? NB_CT_TENSOR : group < 0 ? NB_CT_CHANNEL : NB_CT_GROUP;
    bool found = !name;
    for (int i = 0; name && i < N_STRATEGIES; i++) {
        if (strcasecmp(name, strategies[i])) continue;
        a->strategy = (enum nb_ct_strategy)i;
        found = true;
    }
    if (!found) return nb_fail(err, NB_E_FORMAT, "%s: strategy '%.40s' is unknown", what, name);
    const bool grouped = a->strategy == NB_CT_GROUP || a->strategy == NB_CT_TENSOR_GROUP;
    if (grouped != (group > 0)) {
        return nb_fail(err, NB_E_FORMAT,
                       grouped ? "%s: strategy %s needs a positive group_size"
                               : "%s: group_size does not go with strategy %s",
                       what, strategies[a->strategy]);
    }
    a->group = grouped ? group : 0;
    return 0;
}

static int check_strategy(const struct nb_ct_args *a, const char *what, struct nb_err *err)
{
    const char *name = strategies[a->strategy];
    if ((a->strategy == NB_CT_BLOCK) != (a->block[0] > 0))
        return nb_fail(err, NB_E_FORMAT,
                       "%s: block_structure goes with strategy block, and only with it", what);
    if (a->strategy == NB_CT_TOKEN && a->dynamic == NB_CT_STATIC)
        return nb_fail(err, NB_E_FORMAT, "%s: strategy token must be dynamic", what);
    const bool may = a->strategy == NB_CT_TOKEN || a->strategy == NB_CT_TENSOR ||
                     a->strategy == NB_CT_GROUP || a->strategy == NB_CT_TENSOR_GROUP;
    if (a->dynamic != NB_CT_STATIC && !may)
        return nb_fail(err, NB_E_FORMAT, "%s: strategy %s cannot be dynamic", what, name);
    if (a->dynamic == NB_CT_LOCAL && a->strategy != NB_CT_TENSOR_GROUP)
        return nb_fail(err, NB_E_FORMAT,
                       "%s: dynamic \"local\" needs strategy tensor_group, not %s", what, name);
    if (a->g_idx && a->strategy != NB_CT_GROUP)
        return nb_fail(err, NB_E_FORMAT, "%s: actorder group needs strategy group, not %s", what,
                       name);
    return 0;
}

int nb_ct_args_parse(struct nb_ct_args *out, const json_t *args, const char *what,
                     struct nb_err *err)
{
    const char *scale = NULL, *ignored = NULL;
    memset(out, 0, sizeof *out);
    int rc = check_keys(args, what, err);
    if (!rc) rc = parse_type(out, args, what, err);
    if (!rc) rc = parse_dynamic(out, args, what, err);
    if (!rc) rc = parse_actorder(out, args, what, err);
    if (!rc) rc = parse_block(out, args, what, err);
    if (!rc) rc = parse_strategy(out, args, what, err);
    if (!rc) rc = check_strategy(out, what, err);
    if (!rc) rc = nb_json_get_string(args, "scale_dtype", false, &scale, what, err);
    if (!rc) rc = nb_json_get_string(args, "zp_dtype", false, &ignored, what, err);
    if (!rc) rc = nb_json_get_string(args, "observer", false, &ignored, what, err);
    out->exponents = scale && (!strcmp(scale, "torch.uint8") || !strcmp(scale, "uint8"));
    return rc;
}

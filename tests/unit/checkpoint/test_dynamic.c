/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/dynamic.h"

enum outcome { NOTHING, NEGATIVE, OVERRIDE };

/* What the rules say of path; *override borrowed from rules. */
static enum outcome ask(json_t *rules, const char *path, const json_t **override)
{
    struct nb_err err;
    struct nb_dynamic *d;
    bool hit;
    const json_t *o;
    if (nb_dynamic_new(&d, rules, &err)) fail_msg("%s", err.text);
    if (nb_dynamic_find(d, path, &hit, &o, &err)) fail_msg("%s", err.text);
    nb_dynamic_free(d);
    if (override) *override = o;
    return !hit ? NOTHING : o ? OVERRIDE : NEGATIVE;
}

static json_t *parse(const char *text)
{
    struct nb_err err;
    json_t *v = nb_json_parse(text, strlen(text), 64, "rules", &err);
    if (!v) fail_msg("%s", err.text);
    return v;
}

static void test_matching(void **state)
{
    (void)state;
    json_t *r = parse(
        "{\"+:.*\\\\.down_proj\": {\"bits\": 8}, \".*\\\\.1\\\\.\": {\"bits\": 2}, \"-:.*\\\\.0\\\\.self_attn\": {}}");
    const json_t *o;
    assert_int_equal(ask(r, "model.layers.0.mlp.down_proj", &o), OVERRIDE);
    assert_int_equal(json_integer_value(json_object_get(o, "bits")), 8);
    assert_int_equal(ask(r, "model.layers.1.mlp.down_proj", &o),
                     OVERRIDE); /* the first match wins */
    assert_int_equal(json_integer_value(json_object_get(o, "bits")), 8);
    assert_int_equal(ask(r, "model.layers.1.mlp.up_proj", &o), OVERRIDE);
    assert_int_equal(json_integer_value(json_object_get(o, "bits")), 2);
    assert_int_equal(ask(r, "model.layers.0.self_attn.q_proj", NULL), NEGATIVE);
    assert_int_equal(ask(r, "model.layers.0.mlp.up_proj", NULL), NOTHING);
    json_decref(r);
}

/* Anchored at the start of the path, open at its end. */
static void test_anchoring(void **state)
{
    (void)state;
    json_t *r = parse("{\"mlp\": {}}");
    assert_int_equal(ask(r, "model.layers.0.mlp.up_proj", NULL), NOTHING);
    assert_int_equal(ask(r, "mlp.up_proj", NULL), OVERRIDE);
    json_decref(r);
    r = parse("{\"-:model\\\\.layers\\\\.1\\\\.mlp\": null, \"x|model\\\\.layers\\\\.2\": {}}");
    assert_int_equal(ask(r, "model.layers.1.mlp.up_proj", NULL), NEGATIVE);
    assert_int_equal(ask(r, "model.layers.11.mlp.up_proj", NULL), NOTHING);
    assert_int_equal(ask(r, "model.layers.2.mlp.up_proj", NULL), OVERRIDE);
    json_decref(r);
    r = parse("{\"^lm_head$\": {\"bits\": 8}}");
    assert_int_equal(ask(r, "lm_head", NULL), OVERRIDE);
    assert_int_equal(ask(r, "lm_head2", NULL), NOTHING);
    json_decref(r);
}

/* Savers that sort keys put "+:" before "-:"; the meaning must not change. */
static void test_negative_first(void **state)
{
    (void)state;
    json_t *r = parse("{\"+:.*\": {\"bits\": 8}, \"-:.*gate\": {}}");
    assert_int_equal(ask(r, "mlp.gate", NULL), NEGATIVE);
    assert_int_equal(ask(r, "mlp.up", NULL), OVERRIDE);
    json_decref(r);
}

static void test_no_rules(void **state)
{
    (void)state;
    assert_int_equal(ask(NULL, "a", NULL), NOTHING);
    json_t *r = parse("{}");
    assert_int_equal(ask(r, "a", NULL), NOTHING);
    json_decref(r);
    r = json_null();
    assert_int_equal(ask(r, "a", NULL), NOTHING);
}

static void refuses(const char *text, const char *start)
{
    struct nb_err err = {0};
    struct nb_dynamic *d;
    json_t *r = parse(text);
    assert_int_not_equal(nb_dynamic_new(&d, r, &err), 0);
    assert_null(d);
    assert_memory_equal(err.text, start, strlen(start));
    json_decref(r);
}

static void test_refusals(void **state)
{
    (void)state;
    refuses("[]", "quantization config: dynamic is an array, expected an object");
    refuses("{\"a\": 1}",
            "quantization config: dynamic: rule 'a' is an integer, expected an object");
    refuses("{\"+:a\": null}",
            "quantization config: dynamic: rule '+:a' is null, expected an object");
    refuses("{\"a(\": {}}", "quantization config: dynamic: regex 'a(' ");
}

/* A pattern that would run for ages is stopped with an error. */
static void test_runaway_pattern(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct nb_dynamic *d;
    bool hit;
    const json_t *o;
    json_t *r = parse("{\"(((a*)*)*)*x\": {}}");
    assert_int_equal(nb_dynamic_new(&d, r, &err), 0);
    assert_true(nb_dynamic_find(d, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", &hit, &o,
                                &err) <= 0);
    assert_false(hit);
    nb_dynamic_free(d);
    json_decref(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matching),       cmocka_unit_test(test_anchoring),
        cmocka_unit_test(test_negative_first), cmocka_unit_test(test_no_rules),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_runaway_pattern),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

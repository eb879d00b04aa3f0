/* SPDX-License-Identifier: Apache-2.0
 *
 * config.c - config.json of the output: the source's text with one key more. */
#include <string.h>

#include "pipeline/run.h"

static const char key[] = "quantization_config";

/* The key is there already (null, as some tools write it): the object is written anew. */
static int replace_key(struct nb_strbuf *out, json_t *config, const char *value, struct nb_err *err)
{
    json_t *v = nb_json_parse(value, strlen(value), NB_JSON_MAX_DEPTH, key, err);
    if (!v) return err ? err->status : NB_E_FORMAT;
    if (json_object_set_new(config, key, v))
        return nb_fail(err, NB_E_NOMEM, "no memory for config.json");
    int rc = nb_json_dump(config, true, out, err);
    nb_strbuf_putc(out, '\n');
    return rc;
}

/* The key goes before the last brace. text holds a JSON object. */
static void append_key(struct nb_strbuf *out, const char *text, size_t len, const char *value)
{
    size_t close = len - 1;
    while (text[close] != '}') close--;
    size_t last = close;
    while (strchr(" \t\r\n", text[last - 1])) last--;
    nb_strbuf_add(out, text, last);
    if (text[last - 1] != '{') nb_strbuf_putc(out, ',');
    nb_strbuf_printf(out, "\n  \"%s\": ", key);
    for (const char *s = value; *s; s++) {
        nb_strbuf_putc(out, *s);
        if (*s == '\n') nb_strbuf_puts(out, "  ");
    }
    nb_strbuf_putc(out, '\n');
    nb_strbuf_add(out, text + close, len - close);
}

int nb_config_splice(struct nb_strbuf *out, const char *text, size_t len, const char *value,
                     struct nb_err *err)
{
    json_t *config = nb_json_parse(text, len, NB_JSON_MAX_DEPTH, "config.json", err);
    if (!config) return err ? err->status : NB_E_FORMAT;
    int rc = 0;
    if (!json_is_object(config)) {
        rc = nb_fail(err, NB_E_FORMAT, "config.json: expected an object, found %s",
                     nb_json_type_name(config));
    } else if (json_object_get(config, key)) {
        rc = replace_key(out, config, value, err);
    } else {
        append_key(out, text, len, value);
    }
    json_decref(config);
    if (!rc && out->failed) rc = nb_fail(err, NB_E_NOMEM, "no memory for config.json");
    return rc;
}

/* SPDX-License-Identifier: Apache-2.0
 *
 * ct_presets.c - the schemes that have a name in compressed-tensors, spelled out.
 *
 * WxAy is a pattern: x bits in groups of 128, inputs of y bits per token (16: float); W8A8 is its own, per channel.
 * Source: checkpoint formats, section 5.1; names and values of compressed-tensors 0.20. */
#include "checkpoint/ct_args.h"

#include <stdio.h>
#include <strings.h>

static const char
    tensor_fp8[] = "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"tensor\"",
    mx4[] = "\"num_bits\":4,\"type\":\"float\",\"strategy\":\"group\",\"group_size\":32,"
            "\"scale_dtype\":\"torch.uint8\"",
    mx8[] = "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"group\",\"group_size\":32,"
            "\"scale_dtype\":\"torch.uint8\"",
    nv4[] = "\"num_bits\":4,\"type\":\"float\",\"strategy\":\"tensor_group\",\"group_size\":16",
    int4[] = "\"num_bits\":4,\"strategy\":\"group\",\"group_size\":128",
    channel_fp8[] = "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\"",
    channel_int8[] = "\"num_bits\":8,\"strategy\":\"channel\"",
    token_fp8[] = "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"token\",\"dynamic\":true",
    token_int8[] = "\"num_bits\":8,\"strategy\":\"token\",\"dynamic\":true",
    group_fp8[] = "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"group\",\"group_size\":128,"
                  "\"dynamic\":true",
    block_fp8[] =
        "\"num_bits\":8,\"type\":\"float\",\"strategy\":\"block\",\"block_structure\":[128,128]",
    int4_asym[] = "\"num_bits\":4,\"strategy\":\"group\",\"group_size\":128,\"symmetric\":false";

static const struct preset {
    const char *name, *weights, *inputs, *more; /* more: of the inputs */
} presets[] = {
    {"UNQUANTIZED", NULL, NULL, ""},
    {"W4A16_ASYM", int4_asym, NULL, ""},
    {"W8A8", channel_int8, token_int8, ""},
    {"INT8", channel_int8, token_int8, ""},
    {"W4AFP8", int4, token_fp8, ""},
    {"FP8", tensor_fp8, tensor_fp8, ""},
    {"FP8_DYNAMIC", channel_fp8, token_fp8, ""},
    {"FP8_BLOCK", block_fp8, group_fp8, ""},
    {"NVFP4A16", nv4, NULL, ""},
    {"NVFP4", nv4, nv4, ",\"dynamic\":\"local\""},
    {"MXFP4A16", mx4, NULL, ""},
    {"MXFP4", mx4, mx4, ",\"dynamic\":true"},
    {"MXFP4XFP8", mx4, group_fp8, ""},
    {"MXFP8A16", mx8, NULL, ""},
    {"MXFP8", mx8, mx8, ",\"dynamic\":true"},
};

static json_t *parse(const char *weights, const char *inputs, const char *more)
{
    char text[512];
    if (!weights) snprintf(text, sizeof text, "{}");
    else if (!inputs) snprintf(text, sizeof text, "{\"weights\":{%s}}", weights);
    else
        snprintf(text, sizeof text, "{\"weights\":{%s},\"input_activations\":{%s%s}}", weights,
                 inputs, more);
    return json_loads(text, 0, NULL);
}

json_t *nb_ct_preset(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        const struct preset *p = &presets[i];
        if (!strcasecmp(name, p->name)) return parse(p->weights, p->inputs, p->more);
    }
    int bits, act;
    char rest, weights[96], inputs[96];
    if (sscanf(name, "%*1[Ww]%1d%*1[Aa]%2d%c", &bits, &act, &rest) != 2) return NULL;
    if (bits < 2 || bits > 8 || bits > act || (act != 4 && act != 8 && act != 16)) return NULL;
    snprintf(weights, sizeof weights, "\"num_bits\":%d,\"strategy\":\"group\",\"group_size\":128",
             bits);
    snprintf(inputs, sizeof inputs, "\"num_bits\":%d,\"strategy\":\"token\",\"dynamic\":true", act);
    return parse(weights, act < 16 ? inputs : NULL, "");
}

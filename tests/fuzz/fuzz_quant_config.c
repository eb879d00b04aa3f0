/* SPDX-License-Identifier: Apache-2.0
 *
 * A quantization config of any ecosystem: detect, parse, ask about modules. Regular expressions inside it are
 * hostile too. */
#include <stdint.h>
#include <stdlib.h>

#include "checkpoint/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const paths[] = {"lm_head", "model.layers.0.self_attn.q_proj",
                                        "model.layers.11.mlp.down_proj"};
    struct nb_err err;
    struct nb_model m = {.arch = {.head_name = "lm_head.weight"}};
    m.quant_config = nb_json_parse((const char *)data, size, NB_JSON_MAX_DEPTH, "config", &err);
    if (!m.quant_config) return 0;
    if (!nb_quant_config_checkpoint(m.quant_config, &m.checkpoint, &err)) {
        if (!m.checkpoint->parse(&m, &m.checkpoint_state, &err)) {
            for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
                m.checkpoint->is_quantized(&m, paths[i]);
                if (!m.checkpoint->check(&m, paths[i], 128, 256, &err))
                    abort(); /* there are no tensors */
            }
            m.checkpoint->release(m.checkpoint_state);
        } else if (!err.text[0] || m.checkpoint_state) {
            abort();
        }
    }
    json_decref(m.quant_config);
    return 0;
}

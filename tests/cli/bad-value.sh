# SPDX-License-Identifier: Apache-2.0
# NaN and Inf in a weight are named; quantizing them is refused unless asked for.
. "$NB_SRC/tests/cli/try.bash"
small_model m
cp m/model.safetensors good
poke m/model.safetensors model.layers.1.mlp.up_proj.weight 34 '\xc0\x7f'
try verify m
try quantize m -o out --method rtn -g 32 --no-gate --quiet
[ ! -e out ]
# Asked for, such a matrix stays as it is; what reads its output is rounded without statistics.
for method in rtn gptq; do
    nibble quantize m -o "$method" --method "$method" -g 32 --no-gate --quiet --allow-nonfinite --samples 8 --seqlen 32 \
        --calib "$NB_SRC/data/calibration/treasure-island.txt" 2>&1 >/dev/null
    grep -o '"model.layers.1.mlp.up_proj": "float"' "$method/manifest.json"
    grep -c '"ladder": "rtn"' "$method/manifest.json"
done
cp good m/model.safetensors
poke m/model.safetensors model.layers.0.self_attn.q_proj.bias 2 '\x80\xff'
try verify m
cp good m/model.safetensors
try verify m

# SPDX-License-Identifier: Apache-2.0
# NaN and Inf in a weight are named; quantizing them is refused unless asked for.
. "$NB_SRC/tests/cli/try.bash"
small_model m
cp m/model.safetensors good
poke m/model.safetensors model.layers.1.mlp.up_proj.weight 34 '\xc0\x7f'
try verify m
try quantize m -o out --method rtn -g 32 --no-gate --quiet
[ ! -e out ]
cp good m/model.safetensors
poke m/model.safetensors model.layers.0.self_attn.q_proj.bias 2 '\x80\xff'
try verify m
cp good m/model.safetensors
try verify m

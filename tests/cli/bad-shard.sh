# SPDX-License-Identifier: Apache-2.0
# Broken weight files: each fault is named, exit 5.
. "$NB_SRC/tests/cli/try.bash"
make-model m --hidden 64 --inter 128 --layers 1 --heads 4 --kv-heads 2 --vocab 100 --context 64 --seed 1
cp m/model.safetensors good
S=m/model.safetensors
fresh() { cp good "$S"; }

echo "# truncated"
head -c 20000 good >"$S"
try inspect m
echo "# shorter than a header"
head -c 5 good >"$S"
try inspect m
: >"$S"
try inspect m
echo "# bytes after the last tensor"
{ cat good && printf 'x'; } >"$S"
try inspect m
echo "# header length past the end"
{ length_bytes 99999999 && tail -c +9 good; } >"$S"
try inspect m
{ printf '\xff\xff\xff\xff\xff\xff\xff\xff' && tail -c +9 good; } >"$S"
try inspect m
echo "# header is not JSON"
fresh
edit_header "$S" 's/^{/[/'
try inspect m
echo "# overlapping tensors"
fresh
edit_header "$S" 's/\("model.norm.weight":{[^}]*"data_offsets":\[\)[0-9]*,[0-9]*/\10,128/'
try inspect m
echo "# duplicate name"
fresh
edit_header "$S" 's/"model.norm.weight"/"model.embed_tokens.weight"/'
try inspect m
echo "# unknown type"
fresh
edit_header "$S" 's/\("model.norm.weight":{"dtype":"\)BF16/\1BF17/'
try inspect m
echo "# missing tensor"
fresh
edit_header "$S" 's/"model.norm.weight"/"model.norms.weight"/'
try inspect m
echo "# wrong shape for the config"
fresh
sed 's/"intermediate_size": 128/"intermediate_size": 96/' m/config.json >c && mv c m/config.json
try inspect m
sed 's/"intermediate_size": 96/"intermediate_size": 128/; s/"vocab_size": 100/"vocab_size": 99/' m/config.json >c && mv c m/config.json
try inspect m

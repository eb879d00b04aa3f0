# SPDX-License-Identifier: Apache-2.0
# A folder that was changed after it was made is told apart, whatever was changed.
. "$NB_SRC/tests/cli/try.bash"
small_model m
nibble quantize m -o good --method rtn --no-gate --quiet --samples 2 --seqlen 32 -g 32 >/dev/null
try verify good
try verify good --json --quiet
fresh() { rm -rf q && cp -r good q; }
tamper() { # WHAT SED-SCRIPT: both hash and contents
    fresh
    sed -i "$2" "q/$1"
    try verify q --quiet
}
fresh
poke q/model.safetensors model.layers.0.mlp.down_proj.qweight 5 '\x01'
nibble verify q --quiet 2>err && exit 1
sed 's/is [0-9a-f]*\.\.\./is X.../; s/says [0-9a-f]*\.\.\./says Y.../' err
fresh
rm q/tokenizer_config.json
try verify q --quiet
fresh
echo >>q/README.md
nibble verify q --quiet 2>err && exit 1
sed 's/[0-9][0-9]* bytes/N bytes/; s/says [0-9]*/says N/' err
tamper manifest.json 's/"quantized": 14/"quantized": 13/'
tamper manifest.json 's/"quantized": 14/"quantized": 13/; s/"copied": 12/"copied": 13/'
tamper manifest.json '1s/{/[/'
tamper manifest.json 's/"files"/"filez"/'
tamper manifest.json 's|"config.json": {|"../config.json": {|'
echo "# scales that are not finite, and hashes that fit"
fresh
poke q/model.safetensors model.layers.1.mlp.down_proj.scales 2 '\x00\x7e'
sum=$(sha256sum q/model.safetensors | cut -d ' ' -f 1)
old=$(sha256sum good/model.safetensors | cut -d ' ' -f 1)
sed -i "s/$old/$sum/" q/manifest.json
try verify q --quiet

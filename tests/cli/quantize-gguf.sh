# SPDX-License-Identifier: Apache-2.0
# A calibrated GGUF file: better than encoding alone, whole, close to its source; from a GGUF source too.
make-model m --family llama --hidden 256 --inter 256 --layers 1 --heads 8 --kv-heads 4 --vocab 8192 --context 256 --seed 5
cp "$NB_SRC"/models/books-11m/tokenizer.json m/
arguments=(m --scheme Q4_K_S --samples 6 --seqlen 256 --no-gate --quiet)
quantize() { nibble quantize "${arguments[@]}" "$@"; }
loss() { # FILE ARGUMENTS...: relative to plain encoding
    out=$1
    shift
    quantize -o "$out" --json "$@" | sed 's/.*"layers":\[\(.*\)\],"tensors".*/\1/' | tr '{' '\n' |
        awk -F'[:,]' '/loss_rtn/ { for (i = 1; i < NF; i++) { if ($i == "\"loss\"") a += $(i + 1); if ($i == "\"loss_rtn\"") b += $(i + 1) } } END { print a < 0.9 * b ? "less" : "not less" }'
}
loss whole.gguf
grep -o '"sha256"' whole.gguf.manifest.json | wc -l
nibble verify whole.gguf | sed -n 1p
nibble eval whole.gguf --against m --text "$NB_SRC/README.md" --window 256 --limit 4 --json --quiet |
    sed 's/.*"kld_mean":\([0-9.e-]*\).*/\1/' | awk '{ print $1 < 0.01 ? "close" : "far: " $1 }'
# The same from a GGUF source, and untied with a head of its own.
nibble convert m -o source.gguf --type bf16 --quiet >/dev/null
nibble quantize source.gguf -o from.gguf --scheme Q4_K_S --samples 6 --seqlen 256 --no-gate --quiet | sed -n 1,2p
# Types chosen one by one.
nibble quantize m -o own.gguf --scheme Q6_K --method gptq --tensor-type 'ffn_down=Q8_0' --output-type Q5_K --samples 4 --seqlen 256 --no-gate --quiet | sed -n 1,2p
nibble inspect own.gguf --tensors | grep -E 'blk.0|^output|^token_embd' | awk '{ print $1, $2 }'

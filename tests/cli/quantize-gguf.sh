# SPDX-License-Identifier: Apache-2.0
# A calibrated GGUF file: the same bytes for any threads and memory, after kills too; better than encoding alone.
make-model m --family llama --hidden 256 --inter 512 --layers 3 --heads 8 --kv-heads 4 --vocab 8192 --context 256 --seed 5
cp "$NB_SRC"/models/books-11m/tokenizer.json m/
arguments=(m --scheme Q4_K_S --samples 24 --seqlen 256 --no-gate --quiet)
quantize() { nibble quantize "${arguments[@]}" "$@"; }
loss() { # FILE ARGUMENTS...: relative to plain encoding
    out=$1
    shift
    quantize -o "$out" --json "$@" | sed 's/.*"layers":\[\(.*\)\],"tensors".*/\1/' | tr '{' '\n' |
        awk -F'[:,]' '/loss_rtn/ { for (i = 1; i < NF; i++) { if ($i == "\"loss\"") a += $(i + 1); if ($i == "\"loss_rtn\"") b += $(i + 1) } } END { print a < 0.9 * b ? "less" : "not less" }'
}
loss whole.gguf -t 2
sha256sum <whole.gguf >whole.sum
for t in 1 3; do
    quantize -o "t$t.gguf" -t "$t" --memory 1M >/dev/null
    sha256sum <"t$t.gguf" | cmp - whole.sum
done
echo same bytes for 1, 2 and 3 threads, spilled or not

start=$(date +%s%N)
quantize -o part.gguf >/dev/null
took=$((($(date +%s%N) - start) / 1000000))
rm part.gguf*
for share in 15 35 55 75 90; do
    quantize -o part.gguf >/dev/null 2>&1 &
    pid=$!
    wait_ms=$((took * share / 100))
    sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
done
[ -e part.gguf ] || quantize -o part.gguf >/dev/null
sha256sum <part.gguf | cmp - whole.sum
[ ! -e part.gguf.partial ]
echo same bytes after kills

grep -o '"sha256"' part.gguf.manifest.json | wc -l
nibble verify whole.gguf | sed -n 1p
nibble eval whole.gguf --against m --text "$NB_SRC/README.md" --window 256 --limit 4 --json --quiet |
    sed 's/.*"kld_mean":\([0-9.e-]*\).*/\1/' | awk '{ print $1 < 0.01 ? "close" : "far: " $1 }'
# The same from a GGUF source, and untied with a head of its own.
nibble convert m -o source.gguf --type bf16 --quiet >/dev/null
nibble quantize source.gguf -o from.gguf --scheme Q4_K_S --samples 24 --seqlen 256 --no-gate --quiet | sed -n 1,2p
# Types chosen one by one.
nibble quantize m -o own.gguf --scheme Q6_K --method gptq --tensor-type 'ffn_down=Q8_0' --output-type Q5_K --samples 8 --seqlen 64 --no-gate --quiet | sed -n 1,2p
nibble inspect own.gguf --tensors | grep -E 'blk.0|^output|^token_embd' | awk '{ print $1, $2 }'

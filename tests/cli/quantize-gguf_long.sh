# SPDX-License-Identifier: Apache-2.0
# A calibrated GGUF file: the same bytes for any threads and memory, and after kills.
make-model m --family llama --hidden 256 --inter 512 --layers 3 --heads 8 --kv-heads 4 --vocab 8192 --context 256 --seed 5
cp "$NB_SRC"/models/books-11m/tokenizer.json m/
arguments=(m --scheme Q4_K_S --samples 24 --seqlen 256 --no-gate --quiet)
quantize() { nibble quantize "${arguments[@]}" "$@"; }
quantize -o whole.gguf -t 2 >/dev/null
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


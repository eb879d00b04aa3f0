# SPDX-License-Identifier: Apache-2.0
# Models with experts: the same bytes for any threads and memory, and after being killed; routers stay as they are;
# a rare expert is calibrated on all tokens; experts that lie in one tensor come out one by one; no GGUF.
make-model m --family qwen2-moe --hidden 128 --inter 128 --layers 3 --heads 4 --kv-heads 2 --context 128 --seed 5 \
    --experts 6 --top-k 2
cp "$NB_SRC"/models/books-11m/tokenizer.json m/
arguments=(--method best --format gptq --group 64 --samples 24 --seqlen 64 --no-gate --quiet)
run() { # OUT OPTIONS...
    out=$1
    shift
    nibble quantize m -o "$out" "${arguments[@]}" "$@" >"$out.log" 2>&1 || { cat "$out.log"; exit 1; }
    (cd "$out" && find . -type f | LC_ALL=C sort | xargs sha256sum) >"$out.sums"
}
run t1 -t 1
run t3 -t 3
cmp t1.sums t3.sums
run spill -t 2 --memory 100K
cmp t1.sums spill.sums
for wait in 0.2 0.5 0.8; do
    nibble quantize m -o part "${arguments[@]}" >/dev/null 2>&1 &
    pid=$!
    sleep $wait
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
done
[ -d part ] || run part
(cd part && find . -type f | LC_ALL=C sort | xargs sha256sum) >part.sums
cmp t1.sums part.sums
echo "same bytes"
nibble verify t1 | head -n 1

nibble quantize m -o few --method gptq --format gptq --group 64 --samples 1 --seqlen 24 --no-gate --quiet --json >few.out 2>few.err
sed 's/},/},\n/g' few.out >few.json
grep -q '"all_tokens": *true' few.json && grep -q 'experts saw fewer than 16 of 24 calibration tokens' few.err && echo "rare experts"
nibble quantize m -o all --method gptq --format gptq --group 64 --samples 4 --seqlen 64 --no-gate --quiet --json --moe-all-tokens >all.out
sed 's/},/},\n/g' all.out >all.json
grep -c '"all_tokens": *true' all.json

# the same experts, all in one tensor of each kind; one of them left float
G=$NB_SRC/tests/golden/models/mixtral-stacked-f16
nibble quantize "$G" -o stacked --method rtn --clip none --format gptq --group 32 --ignore '*experts.3.*' --no-gate --quiet |
    sed -n 2p
nibble verify stacked | head -n 1
nibble inspect stacked --tensors 2>/dev/null | grep -o 'layers.1.mlp.experts.[23].down_proj[^ ]*' | LC_ALL=C sort || true

nibble quantize m -o m.gguf --scheme Q4_0 --quiet || echo "exit $?"
nibble imatrix m -o m.dat --text "$NB_SRC/data/calibration/treasure-island.txt" --quiet || echo "exit $?"

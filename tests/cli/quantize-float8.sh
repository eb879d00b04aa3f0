# Float8 with static activations and scales of the KV cache: the same bytes for any number of threads and after an
# interruption, and the file is whole.
make-model m --family llama --hidden 128 --inter 256 --layers 3 --heads 4 --kv-heads 2 --context 256 --seed 5
cp "$NB_SRC"/models/books-11m/tokenizer.json m/
run() { # OUT OPTIONS...
    out=$1
    shift
    nibble quantize m -o "$out" --method rtn --scheme FP8 --format fp8 --kv-scales --samples 24 --seqlen 128 \
        --no-gate --quiet "$@" >"$out.log" 2>&1 || { cat "$out.log"; exit 1; }
}
sums() { (cd "$1" && find . -type f | LC_ALL=C sort | xargs sha256sum); }
run one -t 1
sums one >one.sums
run three -t 3
sums three | cmp - one.sums
run percent -t 1 --act-percentile 99.9
run percent3 -t 3 --act-percentile 99.9
cmp percent/model.safetensors percent3/model.safetensors
cmp -s percent/model.safetensors one/model.safetensors || echo a percentile is not the maximum

nibble quantize m -o part --method rtn --scheme FP8 --format fp8 --kv-scales --samples 24 --seqlen 128 --no-gate --quiet \
    -t 1 >/dev/null 2>part.log &
pid=$!
while kill -0 "$pid" 2>/dev/null && ! grep -q '"layers_done": *1' part.partial/.nibble/journal.json 2>/dev/null; do sleep 0.01; done
kill -9 "$pid" 2>/dev/null || true
wait "$pid" 2>/dev/null || true
[ -d part ] || run part -t 1
sums part | cmp - one.sums
echo same bytes

nibble verify one --quiet >/dev/null && echo whole
get_header() { tail -c +9 "$1" | head -c "$(od -An -tu8 -N8 "$1" | tr -d ' ')"; }
get_header one/model.safetensors | grep -o '"model.layers.[0-9].self_attn.[kv]_scale":{"dtype":"F32","shape":\[1\]' | LC_ALL=C sort
get_header one/model.safetensors | grep -o '"[a-z0-9_.]*input_scale"' | wc -l

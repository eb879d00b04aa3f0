# The same bytes for 1, 2, 3 and 7 threads, and for activations in RAM or in a file.
make-model m --family qwen2 --hidden 128 --inter 320 --layers 2 --heads 4 --kv-heads 2 --context 256 --seed 3
cp "$NB_SRC"/models/books-11m/tokenizer.json m/
run() { # OUT OPTIONS...
    out=$1
    shift
    nibble quantize m -o "$out" --method awq+gptq --format gptq --group 64 --samples 24 --seqlen 128 \
        --no-gate --quiet "$@" >"$out.log" 2>&1 || { cat "$out.log"; exit 1; }
    (cd "$out" && find . -type f | LC_ALL=C sort | xargs sha256sum) >"$out.sums"
}
run t1 -t 1
for t in 2 3 7; do
    run "t$t" -t "$t"
    cmp t1.sums "t$t.sums"
done
run spill -t 2 --memory 1M
cmp t1.sums spill.sums
echo same bytes

# Killed at random moments and started again: the same bytes as a run that was left alone.
# kills: 8, or as many as NB_KILLS says (quantize-killed_long: 60).
make-model m --family llama --hidden 128 --inter 256 --layers 6 --heads 4 --kv-heads 2 --context 256 --seed 5
cp "$NB_SRC"/models/books-11m/tokenizer.json m/
arguments=(m --method gptq --format gptq --group 32 --samples 64 --seqlen 256 --no-gate --quiet)
quantize() { nibble quantize "${arguments[@]}" -o "$1"; }
sums() { (cd "$1" && find . -type f | LC_ALL=C sort | xargs sha256sum); }

start=$(date +%s%N)
quantize whole >/dev/null
took=$((($(date +%s%N) - start) / 1000000))
sums whole >whole.sums

kills=${NB_KILLS:-8} done=0 seed=12345 finished=0
while [ "$done" -lt "$kills" ]; do
    nibble quantize "${arguments[@]}" -o part >/dev/null 2>part.log &
    pid=$!
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    wait_ms=$((seed / 65536 * took * 8 / 10 / 32768 + 1))
    sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
    if kill -9 "$pid" 2>/dev/null; then done=$((done + 1)); fi
    wait "$pid" 2>/dev/null || true
    # As if it had been killed while the manifest was written.
    if [ -e part.partial/.nibble/journal.json ]; then echo half >part.partial/manifest.json.tmp; fi
    if [ -d part ]; then # finished before the kill: compare and begin anew
        sums part | cmp - whole.sums
        finished=$((finished + 1))
        rm -rf part
    fi
done
if [ ! -d part ]; then quantize part >/dev/null; fi
sums part | cmp - whole.sums
[ ! -e part.partial ]
echo "same bytes"

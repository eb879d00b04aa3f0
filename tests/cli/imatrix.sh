# SPDX-License-Identifier: Apache-2.0
# One file for any threads, memory and container of the model; both formats; what is wrong is told before any work.
. "$NB_SRC/tests/cli/try.bash"
short() { sed -e '/^time:/d'; }
small_model m --family qwen2 --tied 0
head -c 40000 "$NB_SRC/data/calibration/treasure-island.txt" >text
nibble imatrix m -o one.gguf --text text --window 64 --quiet -t 1 | short
for t in 2 3; do
    nibble imatrix m -o t$t.gguf --text text --window 64 --quiet -t $t >/dev/null
    cmp one.gguf t$t.gguf
done
nibble imatrix m -o small.gguf --text text --window 64 --quiet --memory 100K >/dev/null
cmp one.gguf small.gguf
nibble convert m -o m.gguf --type f32 --quiet >/dev/null
nibble imatrix m.gguf -o file.gguf --text text --window 64 --quiet >/dev/null
cmp one.gguf file.gguf
# The old format says the same to a reader.
nibble imatrix m -o one.dat --text text --window 64 --quiet | short
nibble imatrix m -o other --format dat --text text --window 64 --quiet | short
cmp one.dat other
for i in one.gguf one.dat; do
    nibble quantize m -o q-$i.gguf --scheme Q4_0 --method rtn --imatrix $i --no-gate --quiet | sed -n 2p
done
# The head on request; standard input; the bundled texts; the first windows only; a quantized model.
nibble imatrix m -o head.gguf --text - --window 64 --limit 3 --output-tensor --quiet <text | short
nibble imatrix m -o bundled.gguf --limit 2 --window 128 --quiet | short
nibble imatrix q-one.dat.gguf -o q.dat --text text --limit 2 --window 64 --quiet | short
nibble imatrix m -o j.gguf --text text --window 64 --limit 2 --json --quiet |
    sed -e 's/"\(seconds\|peak_rss_bytes\)": *[0-9.e+]*/"\1": N/g' -e 's/"text_sha256": *"[0-9a-f]*"/"text_sha256": "H"/'
nibble imatrix m -o bundled.gguf --text text --window 64 --limit 1 --overwrite 2>&1 >/dev/null | sed 's/  .*//'
# Refused.
cp one.gguf kept
try imatrix m
try imatrix m -o one.gguf --text text
try imatrix m -o x.bin --text text
try imatrix m -o x.dat --format gguf --text text
try imatrix m -o x.gguf --text text --window 8
printf 'Too short a text for one window.\n' >words
try imatrix m -o x.gguf --text words
try imatrix m -o x.gguf --text missing.txt
try imatrix m -o missing/x.gguf --text text
try imatrix missing -o x.gguf --text text
try imatrix m.gguf -o m.gguf --overwrite --text text
mv text text.dat
try imatrix m -o text.dat --overwrite --text text.dat
mkdir folder.gguf
try imatrix m -o folder.gguf --overwrite --text text.dat
small_model tied --family qwen2
try imatrix tied -o x.gguf --text text.dat --window 64 --output-tensor --quiet
# Interrupted: nothing is left.
nibble imatrix "$NB_SRC/models/books-11m" -o x.gguf -t 1 >out 2>err &
pid=$!
for _ in $(seq 300); do
    ! grep -q 'layer 0' err || break
    sleep 0.1
done
kill -INT $pid
code=0
wait $pid || code=$?
cat out
echo "exit $code: $(tail -n 1 err)"
ls -d x* 2>/dev/null || echo nothing left

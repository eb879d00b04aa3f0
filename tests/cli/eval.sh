# SPDX-License-Identifier: Apache-2.0
# Perplexity and divergence of small models: JSON keys, equal models, gates and their exit codes.
. "$NB_SRC/tests/cli/try.bash"
small_model a
small_model b --seed 4
head -c 20000 "$NB_SRC/data/calibration/treasure-island.txt" >text
keys() { sed 's/:[-0-9.e+]*\([],}]\)/\1/g; s/:"[^"]*"/:""/g; s/:\[[^]]*\]/:[]/g'; }
nibble eval a --text text --json --quiet | keys
nibble eval a --against b --text text --json --quiet --gate ratio=1e6 | keys
nibble eval a --text text --as lm-eval --json --quiet | keys
echo "# equal models"
nibble eval a --against a --text text --quiet --gate ratio=1,kld=0,top=1 | grep -v -e time -e '^perplexity' -e '^against'
echo "# other models"
code=0
nibble eval a --against b --text text --quiet --gate kld=0.00001 >/dev/null 2>err || code=$?
sed 's/[0-9]\.[0-9]\{4\}/N/g' err
echo "exit $code"
echo "# one window decides nothing"
nibble eval a --against a --text text --limit 1 --quiet --gate ratio=2 | grep verdict
echo "# the same figures for any number of threads"
for t in 1 2 3 7; do
    nibble eval a --against b --text text --json --quiet -t "$t" | sed 's/,"version.*//' >"r$t"
    cmp r1 "r$t"
done
echo "# models that do not fit together"
make-model c --hidden 64 --inter 128 --layers 1 --heads 4 --vocab 9000 --context 64 --seed 1
try eval a --against c --text text --quiet
echo "# a tokenizer.json with other bytes but the same ids, then with other ids"
cp -r a d
echo >>d/tokenizer.json
nibble eval a --against d --text text --quiet --gate kld=0 | grep verdict
sed -e 's/: 263,/: @,/' -e 's/: 264,/: 263,/' -e 's/: @,/: 264,/' a/tokenizer.json >d/tokenizer.json
try eval a --against d --text text --quiet

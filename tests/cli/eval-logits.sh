# SPDX-License-Identifier: Apache-2.0
# llama.cpp's base-logits file: written, read back, combinations that make no sense, files that are none.
. "$NB_SRC/tests/cli/try.bash"
small_model a
small_model b --seed 4
head -c 20000 "$NB_SRC/data/calibration/treasure-island.txt" >text
as="--as llama.cpp --window 64 --quiet"
keys() { sed 's/:[-0-9.e+]*\([],}]\)/\1/g; s/:"[^"]*"/:""/g; s/:\[[^]]*\]/:[]/g'; }
nibble eval a --text text $as --limit 5 --save-logits base | grep -v -e time -e '^perplexity'
[ ! -e base.tmp ]
wc -c <base
echo "# the model itself: nothing but rounding to 16 bits is left"
nibble eval a --as llama.cpp --quiet --against-logits base --json >self
sed 's/.*"kld":\([-0-9.e]*\),.*"same_top":\([0-9.]*\).*/\1 \2/' self | awk '{ print ($1 < 1e-6 && $1 > -1e-6 && $2 > 0.99) ? "equal" : "differs " $0 }'
keys <self
echo "# another model, against the file and against the model itself: the same figures"
figures() { grep -o '"\(ppl\|ppl_base\|ratio\|kld\|kld_error\|dp\|dp_rms\|same_top_error\)":[-0-9.e]*' | tr -d '"' | tr : ' '; }
nibble eval b --as llama.cpp --quiet --against-logits base --json | figures >file
nibble eval b --text text $as --limit 5 --against a --json | figures >model
paste file model | awk '{ d = $2 - $4; if (d < 0) d = -d; s = $2 < 0 ? -$2 : $2; if (d > 2e-3 * s + 1e-6) print; n++ } END { print n " figures" }'
echo "# fewer windows, a gate"
nibble eval a --as llama.cpp --quiet --against-logits base --limit 2 --gate kld=0.001 | grep -e protocol -e verdict | sed "s|-0\.0000|0.0000|g"
echo "# what does not fit together"
try eval a --text text --quiet --save-logits x
try eval a --quiet --against-logits base
try eval a --as llama.cpp --quiet --against-logits base --against b
try eval a --as llama.cpp --quiet --against-logits base --text text
try eval a --as llama.cpp --quiet --against-logits base --window 64
try eval a --text text $as --save-logits no/where
make-model c --hidden 64 --inter 128 --layers 1 --heads 4 --vocab 9000 --context 64 --seed 1
cp a/tokenizer.json c/
try eval c --as llama.cpp --quiet --against-logits base
echo "# files that are none"
try eval a --as llama.cpp --quiet --against-logits absent
try eval a --as llama.cpp --quiet --against-logits text
head -c 1000 base >cut
try eval a --as llama.cpp --quiet --against-logits cut
cp base bad
printf '\xff\xff\xff\x7f\xff\xff\xff\x7f\xff\xff\xff\x7f' | dd of=bad bs=1 seek=8 conv=notrunc status=none
try eval a --as llama.cpp --quiet --against-logits bad
cp base bad
printf '\x00\x00\xc0\x7f' | dd of=bad bs=1 seek=$((20 + 5 * 64 * 4)) conv=notrunc status=none
try eval a --as llama.cpp --quiet --against-logits bad | sed 's/from -[0-9.]*/from N/'

# SPDX-License-Identifier: Apache-2.0
# A folder becomes a GGUF file and a folder again without losing a bit; what is wrong is told before any work.
. "$NB_SRC/tests/cli/try.bash"
# The first line and the notes: sizes and times differ from machine to machine.
short() { sed -e '/^size:/d' -e '/^hint:/d'; }
small_model m --family qwen2
nibble convert m -o m.gguf --quiet | short
nibble inspect m.gguf | sed -n '2,3p;5,8p'
nibble verify m.gguf
nibble convert m.gguf -o back --quiet | short
nibble verify back | sed -n 1p
# Weights and tokens are the same in all three.
for x in m m.gguf back; do
    nibble tokenize $x --text "$NB_SRC/README.md" >"$x.ids"
    nibble run $x -p Once -n 8 --quiet --ids >"$x.run"
    cmp m.ids "$x.ids"
    cmp m.run "$x.run"
done
# Threads and the place of the files change nothing.
nibble convert m -o again.gguf --quiet -t 1 >/dev/null
cmp m.gguf again.gguf
mv m.gguf elsewhere.gguf
# Codes move to gptq as they are.
nibble quantize m -o q.gguf --scheme Q4_0 --method rtn --no-gate --quiet | short
nibble convert q.gguf -o q --format gptq --quiet | short
nibble run q.gguf -p Once -n 8 --quiet --ids >1
nibble run q -p Once -n 8 --quiet --ids | cmp - 1
# Split by size, opened by the first file.
nibble convert m -o split.gguf --shard-size 300K --quiet | short
ls split*.gguf | wc -l
nibble verify split-00001-of-*.gguf
# Refused.
try convert m
try convert m -o q.gguf
try convert m -o x.gguf --type q4_k
try convert m -o x --type f16
try convert elsewhere.gguf -o x --format gptq
try convert elsewhere.gguf -o elsewhere.gguf --overwrite
try convert elsewhere.gguf -o back
try quantize q.gguf -o x.gguf --scheme Q8_0 --method rtn --no-gate --quiet
try quantize m -o x.gguf --scheme Q4 --method rtn --no-gate
try quantize m -o x.gguf --method awq --no-gate
try quantize m -o x.gguf --ignore '*' --no-gate
try quantize m -o x.gguf --method gptq --imatrix i.dat --no-gate
try quantize m -o x.gguf -w 4
try quantize m -o x.gguf --tensor-type 'attn_(q=Q8_0' --method rtn --no-gate
try quantize elsewhere.gguf -o x --format gptq --no-gate
printf 'no matrix at all' >i.dat
try quantize m -o x.gguf --imatrix i.dat --no-gate
ls -d x* 2>/dev/null || echo nothing left

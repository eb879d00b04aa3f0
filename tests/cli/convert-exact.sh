# SPDX-License-Identifier: Apache-2.0
# A quantized folder moves to another container with every code and scale unchanged, and answers the same; what cannot
# be exact is refused before any work, with what can.
. "$NB_SRC/tests/cli/try.bash"
short() { sed -e '/^size:/d' -e '/^gate:/d'; }
run() { nibble run "$1" -p Once -n 8 --quiet --ids; }
small_model m --family llama
quantize() { nibble quantize m -o "$1" --method rtn --effort fast --no-gate --quiet "${@:2}" >/dev/null; }
move() { nibble convert "$1" -o "$2" --format "$3" --quiet | short; }
quantize q -w 4 -g 32 --sym --format gptq
run q >q.run
# There and back through every container of such codes.
move q c compressed-tensors
move c v gptq_v2
move v a awq
move a c2 compressed-tensors
move c2 q2 gptq
for x in c v a c2 q2; do run $x | cmp - q.run; done
nibble inspect c | grep '^quantization'
# Floats of the same values.
nibble convert q -o d --format dense --type f32 --quiet | short
run d | cmp - q.run
# Other widths, without zeros in the middle, per channel.
quantize q8 -w 8 -g -1 --asym --format gptq_v2
move q8 c8 compressed-tensors
move c8 q8b gptq_v2
run q8 >q8.run
run q8b | cmp - q8.run
# The side files came along; a finished folder is not replaced unasked.
cmp m/tokenizer.json c2/tokenizer.json
try convert q -o c --format compressed-tensors --quiet
nibble convert q -o c --format compressed-tensors --overwrite --quiet | short
# Refused.
try convert q -o x --format fp8 --quiet
try convert q8 -o x --format awq --quiet
try convert q -o x --quiet
try convert q -o x --format marlin --quiet
try convert m -o x --format gptq --quiet
try convert q -o x --format gptq --type f32 --quiet
ls -d x* 2>/dev/null || echo nothing left

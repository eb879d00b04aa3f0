# SPDX-License-Identifier: Apache-2.0
# Outputs that must not be touched, and grids that cannot be written.
. "$NB_SRC/tests/cli/try.bash"
small_model m
q() { try quantize m --method rtn --no-gate --quiet --samples 2 --seqlen 32 "$@"; }
mkdir out
echo precious >out/file
q -o out
cat out/file
q -o m
q -o ./m/
(cd m && sha256sum --quiet -c) <<SUM
$(sha256sum m/model.safetensors | sed 's|m/||')
SUM
q -o new -g 48
q -o new -w 5
q -o new -g 96 --format awq
q -o new --method magic
q -o new --format zip
q -o new -g 32 --format awq --act-order dynamic
q -o new --ignore '*'
[ ! -e new ]
echo text >plain
q -o plain/x -g 32

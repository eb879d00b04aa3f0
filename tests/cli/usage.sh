# SPDX-License-Identifier: Apache-2.0
# What is wrong with a command line, with the remedy; exit 2.
. "$NB_SRC/tests/cli/try.bash"
try inspekt
try frobnicate
try help evil
try inspect
try inspect a b
try run a
try run a -p x -n 0
try run a -p x --temp hot
try run a --tmep 1
try eval a --as wikitext
try eval a --window
try eval a --gate ratio=1.05
try eval a --against b --gate speed=2
try eval a --bogus
try quantize a
try quantize a -o b --sym --asym
try quantize a -o b --gate ratio=1 --no-gate
try quantize a -o b --memory lots
try quantize a -o b --target-size 1G --target-kld 0.1
try tokenize a --json=1
try doctor --cpu sse9
try doctor x

# SPDX-License-Identifier: Apache-2.0
# What inspect says of the embedded model and of a quantized one, as text and as JSON.
. "$NB_SRC/tests/cli/try.bash"
(cd "$NB_SRC" && try inspect models/books-11m && try inspect models/books-11m --json)
nibble inspect "$NB_SRC/models/books-11m" --tensors | sed -n '10,14p'
small_model m
nibble quantize m -o q --method rtn --no-gate --quiet --samples 2 --seqlen 32 -g 32 >/dev/null
try inspect q

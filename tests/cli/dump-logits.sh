# SPDX-License-Identifier: Apache-2.0
# --dump-logits writes a safetensors file of the first window.
. "$NB_SRC/tests/cli/try.bash"
small_model a
head -c 5000 "$NB_SRC/data/calibration/treasure-island.txt" >text
nibble eval a --text text --window 16 --limit 2 --quiet --dump-logits l.safetensors >/dev/null
get_header l.safetensors | sed 's/ *$//'
echo
wc -c <l.safetensors
tail -c +$((9 + $(header_bytes l.safetensors))) l.safetensors | head -c 128 | od -An -v -td8 | tr -d '\n' | sed 's/  */,/g; s/^,/[/; s/$/]\n/' >ids
nibble tokenize a --text text | cut -d , -f 1-16 | sed 's/$/]/' | cmp - ids
try eval a --text text --window 16 --limit 2 --quiet --dump-logits no/where
[ ! -e l.safetensors.tmp ]

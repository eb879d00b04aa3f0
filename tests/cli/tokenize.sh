# SPDX-License-Identifier: Apache-2.0
# Text to ids and back, line by line and whole, and special tokens in the text.
M=$NB_SRC/models/books-11m
text=$'Hello, world!\n\nDrei \xc3\x84pfel <|endoftext|> 123  \n'
printf '%s' "$text" | nibble tokenize "$M"
printf '%s' "$text" | nibble tokenize "$M" --plain
printf '%s' "$text" | nibble tokenize "$M" --lines
printf '%s' "$text" | nibble tokenize "$M" --json
printf '%s' "$text" >t.txt
nibble tokenize "$M" --text t.txt | nibble tokenize "$M" --decode | cmp - t.txt
nibble tokenize "$M" --text t.txt --lines | nibble tokenize "$M" --decode --lines | cmp - t.txt
nibble tokenize "$M" --text t.txt | nibble tokenize "$M" --decode --skip-special
echo '[42, 503] 81' | nibble tokenize "$M" --decode --json
printf '' | nibble tokenize "$M"
printf '' | nibble tokenize "$M" --lines
. "$NB_SRC/tests/cli/try.bash"
echo '1 two 3' >ids.txt
try tokenize "$M" --decode --text ids.txt
echo '[1, 99999]' >ids.txt
try tokenize "$M" --decode --text ids.txt
printf '[1]\n[-4]\n' >ids.txt
try tokenize "$M" --decode --lines --text ids.txt

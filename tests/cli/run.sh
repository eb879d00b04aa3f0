# SPDX-License-Identifier: Apache-2.0
# Greedy and seeded generation repeat exactly; text, ids and JSON agree.
M=$NB_SRC/models/books-11m
nibble run "$M" -p "The old man looked at the sea" -n 12 --quiet
nibble run "$M" -p "The old man looked at the sea" -n 12 --quiet --ids >ids
cat ids
nibble tokenize "$M" --decode --text ids >a
nibble run "$M" -p "The old man looked at the sea" -n 12 --quiet | head -c -1 | cmp - a
printf 'The old man looked at the sea' | nibble run "$M" -p - -n 12 --quiet --ids | cmp - ids
nibble run "$M" -p "The old man looked at the sea" -n 12 --json --quiet |
    sed 's/"prompt_tok_s":[0-9.e+]*/"prompt_tok_s":X/; s/"tok_s":[0-9.e+]*/"tok_s":X/'
for t in 1 2 3; do
    nibble run "$M" -p "Once" -n 24 --temp 0.9 --top-k 50 --top-p 0.95 --min-p 0.01 --seed 7 --quiet --ids -t "$t" >"s$t"
done
cmp s1 s2
cmp s1 s3
nibble run "$M" -p "Once" -n 24 --temp 0.9 --seed 8 --quiet --ids >other
! cmp -s s1 other
nibble run "$M" -p "Once" -n 4 2>&1 >/dev/null | sed 's/[0-9.]* tokens\/s/N tokens\/s/g'

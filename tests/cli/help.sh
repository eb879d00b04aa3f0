# SPDX-License-Identifier: Apache-2.0
# Every command explains itself on one screen and ends with one example.
nibble help >overview
commands=$(sed -n 's/^  \([a-z]*\)  .*/\1/p' overview)
for c in $commands; do
    nibble "$c" -h >text 2>errors
    nibble "$c" --help | cmp - text
    nibble help "$c" | cmp - text
    [ ! -s errors ]
    [ "$(head -c $((8 + ${#c})) text)" = "nibble $c " ]
    tail -n 1 text | grep -q "^Example: nibble $c "
    [ "$(grep -c '^Example:' text)" = 1 ]
    awk -v c="$c" 'length > 90 { print c ": too wide: " $0 } END { if (NR > 40) print c ": " NR " lines" }' text
    echo "$c"
done
nibble | cmp - overview
nibble -h | cmp - overview
nibble --help | cmp - overview
nibble --version | grep -qx 'nibble [0-9]*\.[0-9]*\.[0-9]*'

# SPDX-License-Identifier: Apache-2.0
# A GGUF file that is no model shows what it holds, and a damaged one what is wrong with it.
. "$NB_SRC/tests/cli/try.bash"

number() { # VALUE BYTES: little-endian
    local n=$1 i escapes=
    for ((i = 0; i < $2; i++)); do
        escapes+=$(printf '\\x%02x' $((n & 255)))
        n=$((n >> 8))
    done
    # shellcheck disable=SC2059
    printf "$escapes"
}
text() { number "$(printf %s "$1" | wc -c)" 8 && printf %s "$1"; }
zeros() { head -c "$1" /dev/zero; }

# begin VERSION TENSORS RECORDS
begin() { printf GGUF && number "$1" 4 && number "$2" 8 && number "$3" 8; }

# An importance matrix, with a name that would drive a terminal.
{
    begin 3 2 4
    text general.type && number 8 4 && text imatrix
    text imatrix.datasets && number 9 4 && number 8 4 && number 1 8 && text "books.txt"
    text numbers && number 9 4 && number 5 4 && number 12 8
    for i in 1 2 3 4 5 6 7 8 9 10 11 12; do number $i 4; done
    text $'odd\ekey' && number 8 4 && text "$(printf 'line\n%0300d' 7)"
    text a.weight.in_sum2 && number 2 4 && number 6 8 && number 1 8 && number 0 4 && number 0 8
    text a.weight.counts && number 1 4 && number 1 8 && number 0 4 && number 32 8
} >i.gguf
size=$(stat -c %s i.gguf)
zeros $(((32 - size % 32) % 32 + 64)) >>i.gguf
try inspect i.gguf --tensors
try inspect i.gguf --tensors --json
size=$(stat -c %s i.gguf)
head -c $((size - 29)) i.gguf >short.gguf
try inspect short.gguf
{ begin 50331648 0 0; } >big.gguf
try inspect big.gguf

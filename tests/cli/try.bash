# SPDX-License-Identifier: Apache-2.0
#
# Sourced by cases: `try` shows a command with all that it says; the rest edits safetensors files by hand.

# try ARGS...: runs nibble and prints the command, its output and errors, and its exit code.
try() {
    echo "\$ nibble $*"
    nibble "$@" 2>&1 | sed "s|$HOME|{HOME}|g"
    echo "exit ${PIPESTATUS[0]}"
}

# small_model OUT [OPTIONS]: two layers of random weights with the tokenizer of the embedded model.
small_model() {
    local out=$1
    shift
    make-model "$out" --hidden 64 --inter 128 --layers 2 --heads 4 --kv-heads 2 --context 128 --seed 3 "$@"
    cp "$NB_SRC"/models/books-11m/tokenizer.json "$NB_SRC"/models/books-11m/tokenizer_config.json "$out"/
}

header_bytes() { od -An -tu8 -N8 "$1" | tr -d ' '; }

# get_header FILE: the JSON header on standard output.
get_header() { tail -c +9 "$1" | head -c "$(header_bytes "$1")"; }

# length_bytes N: N as eight little-endian bytes.
length_bytes() {
    local n=$1 i escapes=
    for i in 1 2 3 4 5 6 7 8; do
        escapes+=$(printf '\\x%02x' $((n & 255)))
        n=$((n >> 8))
    done
    # shellcheck disable=SC2059
    printf "$escapes"
}

# edit_header FILE SED-SCRIPT: changes the header, keeps the data.
edit_header() {
    local n
    n=$(header_bytes "$1")
    get_header "$1" | sed -e "$2" >"$1.header"
    tail -c +$((9 + n)) "$1" >"$1.data"
    { length_bytes "$(wc -c <"$1.header")" && cat "$1.header" "$1.data"; } >"$1"
    rm "$1.header" "$1.data"
}

# poke FILE TENSOR BYTE ESCAPES: overwrites bytes of a tensor's data, '\x00\x7f'.
poke() {
    local start
    start=$(get_header "$1" | sed -e "s/.*\"$2\":{[^}]*\"data_offsets\":\[\([0-9]*\),.*/\1/")
    # shellcheck disable=SC2059
    printf "$4" | dd of="$1" bs=1 seek=$((8 + $(header_bytes "$1") + start + $3)) conv=notrunc status=none
}

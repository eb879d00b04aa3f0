# SPDX-License-Identifier: Apache-2.0
# A GGUF file with its manifest beside it: one changed byte anywhere, a part that is gone or unknown, another ledger.
. "$NB_SRC/tests/cli/try.bash"
small_model m --hidden 256 --inter 256
quantize() { nibble quantize m --scheme Q4_0 --samples 2 --seqlen 32 --no-gate --quiet "$@" >/dev/null; }
quantize -o good.gguf
try verify good.gguf
try verify good.gguf --json --quiet
flip() { # FILE OFFSET
    local byte
    byte=$(od -An -tu1 -j "$2" -N1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059
    printf "$(printf '\\x%02x' $((byte ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
short() { sed 's/is [0-9a-f]*\.\.\./is X.../; s/says [0-9a-f]*\.\.\./says Y.../; s/[0-9][0-9]* bytes/N bytes/; s/says [0-9]*$/says N/'; }
size=$(stat -c %s good.gguf)
fresh() { cp good.gguf q.gguf && sed 's/"good.gguf"/"q.gguf"/' good.gguf.manifest.json >q.gguf.manifest.json; }
fresh
try verify q.gguf --quiet | sed -n 2p
echo "# a byte of the magic, of the architecture's name, of a weight, and the last one"
at=$(grep -abo -m 1 'general.architecture' good.gguf | head -n 1 | cut -d : -f 1)
for offset in 0 $((at + 32)) $((size / 2)) $((size - 1)); do
    fresh
    flip q.gguf "$offset"
    try verify q.gguf --quiet | short
done
fresh
truncate -s -1 q.gguf
try verify q.gguf --quiet | short
fresh
sed -i 's/"quantized": /&1/' q.gguf.manifest.json
try verify q.gguf --quiet
sed -i 's/"source": /&1/' q.gguf.manifest.json
try verify q.gguf --quiet
fresh
sed -i '1s/{/[/' q.gguf.manifest.json
try verify q.gguf --quiet
rm q.gguf.manifest.json
try verify q.gguf --quiet
echo "# alone in a folder"
mkdir d
mv good.gguf good.gguf.manifest.json d
try verify d --quiet
flip d/good.gguf $((size / 2))
try verify d --quiet | short
echo "# replaced without calibration: the old manifest is gone, and only one of ours goes"
nibble quantize m -o d/good.gguf --scheme Q4_0 --method rtn --no-gate --quiet --overwrite >/dev/null
echo '{"producer": "somebody"}' >d/other.gguf.manifest.json
ls d
cp d/good.gguf d/other.gguf
nibble quantize m -o d/other.gguf --scheme Q4_0 --method rtn --no-gate --quiet --overwrite >/dev/null
ls d
echo "# in parts"
quantize -o s.gguf --shard-size 200K
first=$(echo s-00001-of-*.gguf)
second=$(echo s-00002-of-*.gguf)
try verify "$first" --quiet
cp "$second" kept
flip "$second" 100
try verify "$first" --quiet | short
rm "$second"
try verify "$first" --quiet
mv kept "$second"
sed -i "/\"$second\": {/,/}/d" s.gguf.manifest.json
try verify "$first" --quiet

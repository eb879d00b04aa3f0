# SPDX-License-Identifier: Apache-2.0
# AWQ folds divide the quantized stream's inputs; the float stream beside it must be seen in the same scale.
# At 8 bits the two streams hardly differ, so the term between them changes next to nothing. Mixed scales
# made the divergence a hundred times larger.
make-model m --family qwen2 --hidden 128 --inter 256 --layers 3 --heads 4 --kv-heads 2 --context 128 --seed 5
cp "$NB_SRC"/models/books-11m/tokenizer.json m/
divergence() { # ALPHA
    nibble quantize m -o "q$1" --method awq+gptq -w 8 -g 32 --gptaq "$1" --samples 80 --seqlen 64 --no-gate --quiet >/dev/null
    nibble eval "q$1" --against m --text "$NB_SRC/data/calibration/treasure-island.txt" --window 128 --limit 10 \
        --quiet --json | sed 's/.*"kld_mean": *\([^,}]*\).*/\1/'
}
off=$(divergence 0)
on=$(divergence 1)
awk -v off="$off" -v on="$on" 'BEGIN {
    if (off > 0 && on > 0 && on < 3 * off) print "same size"
    else print "without the term " off ", with it " on
}'

# SPDX-License-Identifier: Apache-2.0
# Tokenizers that cannot be honoured are refused by the part that is at fault.
. "$NB_SRC/tests/cli/try.bash"
small_model m
cp m/tokenizer.json good
sed 's/"type": *"BPE"/"type":"WordPiece"/' good >m/tokenizer.json
try run m -p x
try tokenize m --text good
sed 's/"type": *"NFC"/"type":"Nmt"/' good >m/tokenizer.json
cmp -s good m/tokenizer.json || try tokenize m --text good
head -c 1000 good >m/tokenizer.json
try tokenize m --text good
rm m/tokenizer.json
try run m -p x
try inspect m
echo "# more tokens than the embedding has rows"
make-model small --hidden 64 --inter 128 --layers 1 --heads 4 --vocab 8000 --context 64 --seed 1
cp good small/tokenizer.json
try run small -p x
try eval small --text good
try verify small
try inspect small
echo "# far fewer"
make-model large --hidden 64 --inter 128 --layers 1 --heads 4 --vocab 9000 --context 64 --seed 1
cp good large/tokenizer.json
try run large -p x -n 2 --ids --quiet
try inspect large

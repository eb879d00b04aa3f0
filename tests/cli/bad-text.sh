# SPDX-License-Identifier: Apache-2.0
# Texts that cannot be used: empty, too short, no UTF-8, the same for calibration and evaluation.
. "$NB_SRC/tests/cli/try.bash"
small_model m
: >empty.txt
echo "A short text." >short.txt
printf 'caf\xe9 is Latin-1\n' >latin.txt
head -c 60000 "$NB_SRC/data/calibration/treasure-island.txt" >novel.txt
head -c 50000 novel.txt >part.txt
try eval m --text nowhere.txt --quiet
try eval m --text empty.txt --quiet
try eval m --text short.txt --quiet
try eval m --text latin.txt --quiet
try eval m --text short.txt --as llama.cpp --quiet
try eval m --text short.txt --window 4 --stride 5 --quiet
try eval m --as gptq-paper --quiet
try tokenize m --text latin.txt
try run m -p ""
tr "\n" " " <novel.txt | head -c 1000 >long.txt
try run m -p - --quiet <long.txt
q() { try quantize m -o out --method gptq -g 32 --samples 8 --seqlen 64 -t 2 --quiet "$@"; }
q --calib nowhere.txt
q --calib empty.txt
q --calib short.txt
q --eval-text empty.txt
q --eval-text short.txt
q --calib novel.txt --eval-text novel.txt
q --samples 64 --calib novel.txt --eval-text part.txt
[ ! -e out ]

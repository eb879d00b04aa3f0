# SPDX-License-Identifier: Apache-2.0
# SIGINT and SIGTERM end the work at its next safe point: 130 and 143.
for signal in INT TERM; do
    rm -f begun
    nibble eval "$NB_SRC/models/books-11m" --text "$NB_SRC/data/calibration/treasure-island.txt" \
        --window 256 --stride 1 -t 1 --quiet --dump-logits begun >out 2>err &
    pid=$!
    for _ in $(seq 300); do
        [ ! -e begun ] || break
        sleep 0.1
    done
    kill -$signal $pid
    code=0
    wait $pid || code=$?
    sed 's/[0-9][0-9]* of [0-9]*/N of M/' err
    cat out
    echo "exit $code"
done

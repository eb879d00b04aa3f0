# SPDX-License-Identifier: Apache-2.0
# With --json an error is one object on standard output, and the same line on standard error.
for line in "inspect nowhere --json" "--json" "inspect --json" "eval --json nowhere --tex x" "run --json x -p y --temp -1"; do
    code=0
    # shellcheck disable=SC2086
    nibble $line >out 2>err || code=$?
    cat out
    sed 's/^/  /' err
    echo "  exit $code"
done

# SPDX-License-Identifier: Apache-2.0
#
# lib.sh - for the tests of the tools: a scratch tree in $tree, and two verbs.
#
#   passes NAME COMMAND...          the command must succeed
#   fails NAME PATTERN COMMAND...   the command must fail and print a line that matches the pattern
#
# Sourced by tests/tools/test-*, which end with `finish`.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tree=$scratch/tree
mkdir -p "$tree/src"
bad=0 n=0

passes() {
    name=$1
    shift
    n=$((n + 1))
    if ! "$@" >"$scratch/log" 2>&1; then
        echo "FAIL $name: should pass"
        sed 's/^/  | /' "$scratch/log"
        bad=$((bad + 1))
    fi
}

fails() {
    name=$1 pattern=$2
    shift 2
    n=$((n + 1))
    if "$@" >"$scratch/log" 2>&1; then
        echo "FAIL $name: should fail"
        bad=$((bad + 1))
    elif ! grep -q -e "$pattern" "$scratch/log"; then
        echo "FAIL $name: no line like $pattern"
        sed 's/^/  | /' "$scratch/log"
        bad=$((bad + 1))
    fi
}

# put FILE: standard input into a file of the tree
put() {
    mkdir -p "$(dirname "$tree/$1")"
    cat >"$tree/$1"
}

finish() {
    [ $bad = 0 ] || exit 1
    echo "$n cases"
}

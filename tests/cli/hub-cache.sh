# SPDX-License-Identifier: Apache-2.0
# org/name[@revision] is looked up in the Hugging Face cache.
. "$NB_SRC/tests/cli/try.bash"
place=$HOME/.cache/huggingface/hub/models--acme--tiny
mkdir -p "$place/refs" "$place/snapshots"
small_model "$place/snapshots/0123abc"
printf 0123abc >"$place/refs/main"
first() { nibble inspect "$@" | head -n 1 | sed "s|$HOME|HOME|"; }
first acme/tiny
first acme/tiny@main
first acme/tiny@0123abc
HF_HUB_CACHE=$HOME/.cache/huggingface/hub first acme/tiny
HF_HOME=$HOME/.cache/huggingface first acme/tiny
code=0
HF_HOME=/nonexistent nibble inspect acme/tiny@v2 2>&1 || code=$?
echo "exit $code"
try inspect acme/tiny@../../x

# The case quantize-killed with 60 kills.
NB_KILLS=60
. "$NB_SRC/tests/cli/quantize-killed.sh"

# SPDX-License-Identifier: Apache-2.0
# Folders that are no model this program can read.
. "$NB_SRC/tests/cli/try.bash"
try inspect nowhere
try inspect no/where
touch file x.gguf
try inspect file
try inspect x.gguf
mkdir empty
try inspect empty
small_model m
mv m/model.safetensors w
try inspect m
mv w m/model.safetensors
cp m/config.json good
sed 's/"qwen2"/"gpt_bigcode"/' good >m/config.json
try inspect m
sed 's/"hidden_size": 64,//' good >m/config.json
try inspect m
sed 's/"hidden_size": 64/"hidden_size": "64"/' good >m/config.json
try inspect m
sed 's/"hidden_size": 64/"hidden_size": -64/' good >m/config.json
try inspect m
sed 's/"hidden_size": 64/"hidden_size": 4611686018427387904/' good >m/config.json
try inspect m
head -c 100 good >m/config.json
try inspect m
cp good m/config.json
ln -s loop loop
try inspect loop
if [ "$(id -u)" != 0 ]; then
    mkdir locked
    chmod 000 locked
    nibble inspect locked 2>err && exit 1
    grep -q 'Permission denied' err
    chmod 700 locked
fi

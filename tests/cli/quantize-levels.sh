# In f32 AVX2 and AVX-512 give the same weights to the bit; a level the processor lacks is left out. (The losses in
# the manifest are sums of another order and may differ in their last digits.)
make-model m --family qwen3 --hidden 128 --inter 320 --layers 2 --heads 4 --kv-heads 2 --context 256 --seed 9
cp "$NB_SRC"/models/books-11m/tokenizer.json m/
for level in avx2 avx512; do
    if ! nibble quantize m -o "$level" --method awq+gptq --group 64 --samples 16 --seqlen 128 --precision f32 \
        --cpu "$level" --no-gate --quiet >log 2>&1; then
        grep -q "this machine" log || { cat log; exit 1; }
        continue
    fi
    [ ! -e avx2/model.safetensors ] || cmp avx2/model.safetensors "$level"/model.safetensors
done
echo same bytes

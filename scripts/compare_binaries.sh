#!/usr/bin/env bash
# Two binaries train the same, bit for bit: a pairwise sample of layouts, ZeRO stages, cadences and types, each trained by both and
# compared by the shards' bytes and by loss, gradient norm and learning rate of every step. For changes that must not change a number.
#
#   scripts/compare_binaries.sh BEFORE AFTER [--set KEY=VALUE ...]     e.g. build/before/bin/tptrain build/cpu/bin/tptrain
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
before=$(realpath "$1") after=$(realpath "$2")
settings=("${@:3}")
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
for i in $(seq 400); do echo "Line $i: the quick brown fox jumps over the lazy dog, $((i * 7919 % 1000)) times."; done > "$work/text.txt"

# tp dp zero cadence         dtype masters moments tied  micro-batches sequence_parallel recompute
cases="
1  1  0    per_step         fp32  fp32    fp32    false 1             true              none
1  2  1    per_step         fp32  fp32    fp32    true  2             true              selective
2  1  0    per_micro_batch  fp32  fp32    fp32    true  2             false             full
2  2  1    per_micro_batch  fp32  fp32    bf16    false 3             true              none
2  2  2    per_micro_batch  bf16  fp32    fp32    true  2             true              full
2  2  3    per_micro_batch  fp32  fp32    fp32    false 1             false             selective
1  4  3    per_micro_batch  bf16  bf16    bf16    true  2             true              none
4  1  1    per_step         bf16  fp32    bf16    false 2             true              selective
1  4  2    per_micro_batch  fp32  fp32    fp32    true  1             true              none
1  2  0    per_step         bf16  bf16    fp32    false 2             true              full
2  2  0    per_step         fp32  fp32    fp32    true  3             true              none
2  2  1    per_step         bf16  bf16    bf16    false 2             false             none
"

train() {  # BINARY DIRECTORY CASE...
  local binary=$1 directory=$2; shift 2
  mkdir -p "$directory"
  cat > "$directory/run.yaml" <<YAML
run_dir: $directory/run
model: {architecture: {model_type: qwen2, vocab_size: 272, hidden_size: 48, intermediate_size: 88, num_hidden_layers: 3,
        num_attention_heads: 4, num_key_value_heads: 2, tie_word_embeddings: $8}}
parallel: {tp_size: $1, dp_size: $2, zero_stage: $3, reduce_gradients: $4, sequence_parallel: ${10}, recompute: ${11}}
data: {train: [$work/text.txt], tokenizer: bytes}
train: {seq_length: 40, micro_batch_size: 1, global_batch_size: $(($2 * $9)), max_steps: 6, dtype: $5}
optimizer: {learning_rate: 1e-3, weight_decay: 0.1, max_grad_norm: 0.5, master_dtype: $6, moments_dtype: $7}
checkpoint: {save_steps: 3, keep: 0}
YAML
  mpirun --allow-run-as-root --oversubscribe -n $(($1 * $2)) "$binary" --config "$directory/run.yaml" "${settings[@]}" < /dev/null > "$directory/out" 2>&1 ||
    { cat "$directory/out"; exit 1; }
  (cd "$directory/run/checkpoints" && sha256sum */*.safetensors) > "$directory/shards"
  python3 -c 'import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    if "loss" not in row: continue  # of a save, or of an evaluation
    print(row["step"], *(repr(row.get(key)) for key in ("loss", "grad_norm", "lr")))' "$directory/run/metrics.jsonl" > "$directory/numbers"
}

number=0 differing=0
while read -r -a words; do
  [ ${#words[@]} -gt 0 ] || continue
  number=$((number + 1))
  train "$before" "$work/$number.before" "${words[@]}"
  train "$after" "$work/$number.after" "${words[@]}"
  verdict=equal
  cmp -s "$work/$number.before/shards" "$work/$number.after/shards" || verdict="OTHER SHARDS"
  cmp -s "$work/$number.before/numbers" "$work/$number.after/numbers" || verdict="OTHER NUMBERS"
  [ "$verdict" = equal ] || differing=$((differing + 1))
  echo "tp ${words[0]} dp ${words[1]} ZeRO ${words[2]} ${words[*]:3}: $(wc -l < "$work/$number.after/shards") shards, $verdict"
done <<< "$cases"
echo "$number trainings, $differing differ"
[ "$differing" -eq 0 ]

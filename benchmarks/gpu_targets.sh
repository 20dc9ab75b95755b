#!/usr/bin/env bash
# The steps that the results page holds, on one or two GPUs: bench_gpu_step for each named row (all by default).
#   benchmarks/gpu_targets.sh --models DIR [--bench build/cuda/benchmarks/bench_gpu_step] [ROW ...] [-- MORE_OPTIONS]
# DIR holds a folder with config.json for each of: llama-3-8b qwen2-7b qwen2.5-7b qwen2.5-0.5b gpt2
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
bench=$root/build/cuda/benchmarks/bench_gpu_step
models=
rows=()
more=()
while [ $# -gt 0 ]; do
  case "$1" in
    --models) models=$2; shift 2 ;;
    --bench) bench=$2; shift 2 ;;
    --) shift; more=("$@"); break ;;
    -h | --help) sed -n '2,4p' "$0"; exit 0 ;;
    *) rows+=("$1"); shift ;;
  esac
done
[ -n "$models" ] || { echo "gpu_targets.sh: --models DIR is missing" >&2; exit 2; }
[ "${#rows[@]}" -gt 0 ] || rows=(gpt2 qwen05_one qwen05_tp qwen05_dp qwen05_tp_512 qwen05_dp_512 qwen7_tp llama_tp_8192 llama_tp_4096 llama_dp)

run() {
  local ranks=$1 model=$2
  shift 2
  mpirun --allow-run-as-root --oversubscribe -n "$ranks" "$bench" --model "$models/$model" "$@" "${more[@]}"
}
# One GPU each, both at once: cards differ, and dp 2 goes at the pace of the slower one.
each() {
  local model=$1
  shift
  CUDA_VISIBLE_DEVICES=0 "$bench" --model "$models/$model" "$@" "${more[@]}" >"$scratch" &
  CUDA_VISIBLE_DEVICES=1 "$bench" --model "$models/$model" "$@" "${more[@]}"
  wait $!
  cat "$scratch"
}
scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT
# ROW_gb: gradients of the layers' matrices in bf16. ROW_x8: 8 micro-batches a step. ROW_fp8: linears of the layers in FP8. Both: ROW_fp8_x8.
for row in "${rows[@]}"; do
  echo "--- $row"
  given=("${more[@]}")
  case "$row" in *_x8) more+=(--accumulation 8 --steps 4 --warmup 1 --rounds 2) row=${row%_x8} ;; esac
  case "$row" in *_gb) more+=(--gradient-dtype bf16) row=${row%_gb} ;; esac
  case "$row" in *_fp8) more+=(--fp8 on) row=${row%_fp8} ;; esac
  case "$row" in
    gpt2) run 1 gpt2 --seq-length 1024 --micro-batch-size 64 ;;
    qwen05_one) run 1 qwen2.5-0.5b --seq-length 2048 --micro-batch-size 8 ;;
    qwen05_each) each qwen2.5-0.5b --seq-length 2048 --micro-batch-size 8 ;;
    qwen05_tp) run 2 qwen2.5-0.5b --tp 2 --seq-length 2048 --micro-batch-size 8 ;;
    qwen05_dp) run 2 qwen2.5-0.5b --seq-length 2048 --micro-batch-size 8 ;;
    qwen05_tp_512) run 2 qwen2.5-0.5b --tp 2 --seq-length 512 --warmup 20 --steps 100 ;;
    qwen05_dp_512) run 2 qwen2.5-0.5b --seq-length 512 --warmup 20 --steps 100 ;;
    qwen7_tp) run 2 qwen2-7b --tp 2 --seq-length 2048 --micro-batch-size 4 ;;
    llama_tp_8192) run 2 llama-3-8b --tp 2 --seq-length 8192 ;;
    llama_tp_4096) run 2 llama-3-8b --tp 2 --seq-length 4096 --micro-batch-size 2 ;;
    llama_dp) run 2 llama-3-8b --zero 2 --seq-length 8192 ;;
    llama_lora) run 1 llama-3-8b --adapter-rank 16 --seq-length 4096 --micro-batch-size 4 --accumulation 8 --steps 4 --warmup 2 --rounds 2 ;;
    qwen7_lora) run 1 qwen2.5-7b --adapter-rank 16 --seq-length 4096 --micro-batch-size 4 --accumulation 8 --steps 4 --warmup 2 --rounds 2 ;;
    llama16_each) each llama-3-8b --layers 16 --seq-length 8192 ;;
    llama16_one) run 1 llama-3-8b --layers 16 --seq-length 8192 ;;
    llama_one) run 1 llama-3-8b --seq-length 4096 --master-dtype bf16 --moments-dtype bf16 ;;
    llama16_dp) run 2 llama-3-8b --layers 16 --zero 2 --seq-length 8192 ;;
    *) echo "gpu_targets.sh: no row '$row'" >&2; exit 2 ;;
  esac
  more=("${given[@]}")
done

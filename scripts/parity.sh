#!/bin/bash
# Runs the whole parity product (layouts x ZeRO x cadence x sequence parallel x recompute x accumulation x model) on 1, 2, 4 and 8
# CPU ranks and writes the table to docs/parity.md. Needs a build of the cpu preset (scripts/test.sh makes one); takes about ten
# minutes on two cores.
#   scripts/parity.sh [folder of the test programs] [output]
set -euo pipefail
cd "$(dirname "$0")/.."
programs=${1:-build/cpu/tests/mpi/train}
output=${2:-docs/parity.md}
program=$programs/mpi_train_parity
rules=$programs/mpi_train_rules_and_freezing
for one in "$program" "$rules"; do
  [ -x "$one" ] || { echo "scripts/parity.sh: $one is not there: run scripts/test.sh first, or name the folder of the test programs" >&2; exit 2; }
done
export TPTRAIN_PARITY=all OMP_NUM_THREADS=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
table=$(mktemp)
masked=$(mktemp)
by_rule=$(mktemp)
trap 'rm -f "$table" "$masked" "$by_rule"' EXIT
for ranks in 1 2 4 8; do
  echo "== $ranks ranks" >&2
  # A failing case ends the script here: the table is not written.
  mpirun --oversubscribe -n "$ranks" "$program" "every layout trains like one rank*" | tee /dev/stderr | grep '^| [0-9]' >> "$table"
  mpirun --oversubscribe -n "$ranks" "$program" "documents that do not see each other*" | tee /dev/stderr | grep '^| [0-9]' >> "$masked"
  mpirun --oversubscribe -n "$ranks" "$rules" "muon: every layout*,lion: every layout*" | tee /dev/stderr | grep -oE '\| (lion|muon) \| .*' >> "$by_rule"
done
{
  cat <<'HEAD'
# Parity: the same numbers on every layout

Every row: 20 AdamW steps at learning rate 1e-3 with clipping, against one rank without communication, in fp32. Four small models with
sizes that do not divide (vocabulary 1003, ffn 172, sequences of 22 tokens): llama with 14 heads, 2 kv heads and biases, untied; qwen2
with 6 heads, 1 kv head, tied; gpt2 (LayerNorm, learned positions, GELU) with 5 heads, tied; qwen3 (norms of q and k, scaled rotary
embedding) with 6 heads, 2 kv heads, untied. Unequal masks and fully masked micro-batches. `runs` are the combinations of model,
recompute (none, selective, full) and accumulation (1, 3); a row shows the worst of them. Loss and norm: largest relative difference of
any step. Gradient: the worst tensor's largest difference, relative to its largest element (gpt2's bias of k, whose gradient is zero but
for rounding: relative to that of q). Allowed: loss 2e-6, norm 1e-5, gradient 1e-5 at step 1 and 1e-4 at step 20.
At one cadence ("reduced") all ZeRO stages and all forms of recompute are bitwise equal; the program checks that in the same run.
(On one H100 or H200 by itself large matrices bring the squares of their gradients in ZeRO 0 and 1, and not in 2 and 3: there the norm can differ in its last bit, [gpu.md](gpu.md).)

Written by `scripts/parity.sh`.

| tp | dp | ZeRO | reduced | sequence parallel | runs | loss | norm | gradient, step 1 | gradient, step 20 |
|---|---|---|---|---|---|---|---|---|---|
HEAD
  sort "$table"
  cat <<'MASKED'

## Documents that do not see each other (`data.document_mask`)

The same runs with each sequence cut into 2 to 22 documents, of which a micro-batch has another number in every step. The reference is one
rank without communication and with all 12 sequences in one micro-batch; its own loss and gradients at step 1 are held to those of every
document alone, in plain ATen with autograd, and without the mask it is outside the contract. `runs` are the four models, in three
micro-batches; ZeRO 0 without recompute, 1 and 3 with full, 2 with selective, all bitwise equal. ZeRO 1 without accumulation is checked too.

| tp | dp | ZeRO | reduced | sequence parallel | runs | loss | norm | gradient, step 1 | gradient, step 20 |
|---|---|---|---|---|---|---|---|---|---|
MASKED
  sort "$masked"
  cat <<'RULES'

## Muon and Lion (`optimizer.type`)

The same 20 steps at 1e-3 by Muon, three micro-batches each, to AdamW's own bounds: loss 2e-6, norm 1e-5, gradient 1e-5 at step 1 and 1e-4
at step 20. That is less than could be feared: five Newton-Schulz steps multiply a small singular value, and what rounding has made of it, by
up to 3.4^5; but such directions are small in what is trained, and the update's size is bounded. Lion at 1e-4: an element whose mean of
momentum and gradient is about zero takes a whole step of one sign or the other, so layouts, whose sums differ in the last bits, part there by
two learning rates; allowed are norm 1e-4 and gradient 1e-3 at step 20. ZeRO 0 to 3 are bitwise alike.

| rule | model | tp | dp | ZeRO | loss | norm | gradient, step 1 | gradient, step 20 |
|---|---|---|---|---|---|---|---|---|
RULES
  sort "$by_rule"
} > "$output"
echo "written: $output ($(grep -c '^| [0-9]' "$output") rows)"

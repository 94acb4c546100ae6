#!/usr/bin/env bash
# All four folds of two draws of the blocks, out-of-fold predictions pooled and compared over repeated splits.
# Hardware: 2 CPU cores, JOBS runs at a time (1 GB each). Queue from a committed state.
# Time and score: docs/results.md, "All folds". Writes metrics/folds.json and plots/population/folds.
# More seeds (SEEDS="0 1 2") tell how much is owed to the model's own randomness; a variant is one more -S below.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=$(mktemp -d)
names=()
for split_seed in ${SPLIT_SEEDS:-0 1}; do
  for seed in ${SEEDS:-0}; do
    for fold in 0 1 2 3; do
      name="folds-$split_seed-$seed-$fold"
      names+=("$name")
      dvc exp remove "$name" > /dev/null 2>&1 || true
      dvc exp run --queue --name "$name" -S "split.seed=$split_seed" -S "seed=$seed" -S "split.fold=$fold"
    done
  done
done
dvc queue start --jobs "${JOBS:-2}"
# Not piped into grep: with pipefail, its early exit would end the wait.
while status=$(dvc queue status) && [[ $status =~ Queued|Running ]]; do sleep 15; done
for name in "${names[@]}"; do
  dvc get . reports/population/predictions.parquet --rev "$name" --out "$runs/$name.parquet"
done
python -m src.population.folds --variant "model=$runs/*.parquet" --out metrics/folds.json --plots plots/population/folds

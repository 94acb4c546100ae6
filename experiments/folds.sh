#!/usr/bin/env bash
# Ridge, head: mlp and head: anchored on all five folds, out-of-fold predictions pooled.
# Hardware: 2 CPU cores, JOBS runs at a time (1 GB each). Queue from a committed state.
# Time and score: README.md, "Five folds". Writes metrics/folds.json.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=$(mktemp -d)
for head in mlp anchored; do
  for fold in 0 1 2 3 4; do
    dvc exp remove "fold$fold-$head" > /dev/null 2>&1 || true
    dvc exp run --queue --name "fold$fold-$head" -S "split.fold=$fold" -S "sft.head=$head"
  done
done
dvc queue start --jobs "${JOBS:-2}"
# Not piped into grep: with pipefail, its early exit would end the wait.
while status=$(dvc queue status) && [[ $status =~ Queued|Running ]]; do sleep 15; done
for head in mlp anchored; do
  for fold in 0 1 2 3 4; do
    dvc get . reports/population/predictions.parquet --rev "fold$fold-$head" --out "$runs/$head-$fold.parquet"
  done
done
python -m src.population.folds \
  --variant "mlp=$runs/mlp-*.parquet" --variant "anchored=$runs/anchored-*.parquet" --out metrics/folds.json

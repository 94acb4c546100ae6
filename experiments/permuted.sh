#!/usr/bin/env bash
# The null of the model: five trainings on permuted labels. Hardware: 2 CPU cores, JOBS runs at a time (1 GB each).
# Time and p-value: docs/results.md, "Nulls and controls". Writes metrics/model_null.json. Queue from a committed state.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=$(mktemp -d)
for draw in 1 2 3 4 5; do
  dvc exp remove "permuted-$draw" > /dev/null 2>&1 || true
  dvc exp run --queue --name "permuted-$draw" -S "sft.permutation=$draw"
done
dvc queue start --jobs "${JOBS:-2}"
while status=$(dvc queue status) && [[ $status =~ Queued|Running ]]; do sleep 15; done
for draw in 1 2 3 4 5; do
  dvc get . metrics/population.json --rev "permuted-$draw" --out "$runs/$draw.json"
done
python -m src.population.model_null --metrics metrics/population.json --permuted "$runs/*.json" \
  --out metrics/model_null.json

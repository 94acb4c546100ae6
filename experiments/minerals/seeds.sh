#!/usr/bin/env bash
# The default run with three seeds: how far words differ from one training to the next (mean, standard deviation, range).
# The seed also draws the training pixels of the map's thresholds and the tiles that the control swaps; never the split.
# Hardware: 2 CPU cores, JOBS runs at a time (2 GB each); about 10 min with 2 jobs, of which seed 0 is in the cache
# if the default was run. Queue from a committed state. Writes metrics/minerals_seeds.json. Expect: balanced accuracy
# of all bands 0.960 ± 0.010, of the composite 0.927 ± 0.017 (2026-11-28, AMD EPYC).
#
#     SEEDS="0 1 2" JOBS=2 experiments/minerals/seeds.sh [-S ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
params=pipelines/minerals/params.yaml
seeds=${SEEDS:-0 1 2}
runs=$(mktemp -d)
for seed in $seeds; do
  dvc exp remove "minerals-seed-$seed" > /dev/null 2>&1 || true
  dvc exp run pipelines/minerals/dvc.yaml:evaluate --queue --name "minerals-seed-$seed" -S "$params:seed=$seed" "$@"
done
dvc queue start --jobs "${JOBS:-2}"
# Not piped into grep: with pipefail, its early exit would end the wait.
while status=$(dvc queue status) && [[ $status =~ Queued|Running ]]; do sleep 15; done
for seed in $seeds; do
  dvc get . metrics/minerals.json --rev "minerals-seed-$seed" --out "$runs/seed-$seed.json"
done
python -m src.minerals.seeds --metrics "$runs/seed-*.json" --out metrics/minerals_seeds.json

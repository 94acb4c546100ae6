#!/usr/bin/env bash
# How an RGB patch embedding starts to read all bands: pca, copy, normal and zero, queued one after the other.
# Needs your own tiles (params.yaml, data.root) of at least 56 px; the embedded sample has 16.
# Hardware: one GPU; `python -m src.population.sft --dry-run …` says how large. Hours and score: not measured yet.
set -euo pipefail
cd "$(dirname "$0")/.."
backbone=${BACKBONE:-Qwen/Qwen2.5-VL-3B-Instruct} # or the absolute path of a folder
for init in pca copy normal zero; do
  dvc exp run --queue --name "init-$init" -S "model.backbone=$backbone" -S "model.init=$init" "$@"
done
dvc queue start --jobs 1

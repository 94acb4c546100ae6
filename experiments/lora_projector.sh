#!/usr/bin/env bash
# "LoRA + projector": the vision encoder stays as pretrain left it, merger and LoRA train, both of them.
# Needs your own tiles (params.yaml, data.root) of at least 56 px; the embedded sample has 16.
# Hardware: one GPU; `python -m src.population.sft --dry-run …` says how large. Hours and score: not measured yet.
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --name lora-projector -S "model.backbone=${BACKBONE:-Qwen/Qwen2.5-VL-3B-Instruct}" \
  -S sft.lr.pretrained.blocks=0.0 -S sft.lr.pretrained.patch_embed=0.0 "$@"

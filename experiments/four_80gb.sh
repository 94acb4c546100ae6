#!/usr/bin/env bash
# A 7B model on four GPUs of 80 GB: LoRA on the language model, encoder and merger trained whole, one process a GPU.
# Needs your own tiles (params.yaml, data.root) of at least 56 px.
# Hardware: 4 x 80 GB. Hours and score: not measured yet.
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --name four-80gb -S "model.backbone=${BACKBONE:-Qwen/Qwen2.5-VL-7B-Instruct}" \
  -S "launch=accelerate launch --num_processes 4 --config_file accelerate/ddp.yaml" \
  -S sft.batch_size=16 -S sft.accumulate=4 -S dpo.accumulate=4 "$@"

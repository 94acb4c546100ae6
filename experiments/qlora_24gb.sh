#!/usr/bin/env bash
# QLoRA of a 7B model on one GPU of 24 GB: batch 1 (8 accumulated), rank 64, language model in 4 bits, encoder by LoRA.
# Needs your own tiles (params.yaml, data.root) of at least 56 px and bitsandbytes (requirements-gpu.txt).
# Hardware: one GPU of 24 GB. Peak, hours and score: not measured yet; `python -m bench.gpu --json` measures the peak.
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --name qlora-24gb -S "model.backbone=${BACKBONE:-Qwen/Qwen2.5-VL-7B-Instruct}" \
  -S memory.four_bit=true -S memory.optimizer_8bit=true -S memory.gradient_checkpointing=always \
  -S sft.batch_size=8 -S sft.accumulate=8 -S sft.lora.rank=64 -S sft.lora.alpha=128 -S sft.lora.encoder=true \
  -S sft.lr.pretrained.blocks=1e-4 \
  -S pretrain.batch_size=32 -S pretrain.accumulate=32 -S dpo.batch_size=16 -S dpo.accumulate=16 \
  -S prefs.batch_size=1 -S evaluate.batch_size=1 "$@"

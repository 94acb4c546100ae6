#!/usr/bin/env bash
# The published settings: Qwen3-VL 8B, LoRA and projector, tiles of 224 px, on a scene of your own (data.root).
# Tiles of 224 px need three blocks of 448 px (split.block_px), or as many scenes, and 25 for intervals. One scene of
# Cuprite's size has two: set 64, 32 and 64 below, and split.block_px=128.
# Hardware: one GPU of 40 GB or more, or several with accelerate/zero3.yaml. Not run by us: no GPU was at hand.
# Expect: nothing yet.
#
#     experiments/minerals/seed_published.sh [-S ...]
set -euo pipefail
params=pipelines/minerals/params.yaml
dvc exp run pipelines/minerals/dvc.yaml:evaluate \
    -S $params:model.backbone=Qwen/Qwen3-VL-8B-Instruct -S "$params:model.inputs=[rgb]" \
    -S $params:tiles.tile_px=224 -S $params:tiles.stride=112 -S $params:split.gap_px=224 \
    -S $params:sft.epochs=5 -S $params:sft.batch_size=16 -S $params:sft.accumulate=4 "$@"

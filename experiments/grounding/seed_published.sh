#!/usr/bin/env bash
# The published settings of grounding: one window of 128 px at a time, 8 to a step, 256 an epoch, 50 epochs, its weights
# of the losses, its early stop on its own agreement (which unrelated noise scores 0.79 on), and its seed. The generator
# is still the compact one that `pretrain` makes: TerraMind's samples tokens without a gradient.
# LPIPS counts only with its package and weights (its default 0.1 is off without, and the stage says so); add
#     -S pipelines/grounding/params.yaml:ground.lpips_weights=alexnet.safetensors
# Hardware: one GPU of 8 GB or more, and scenes of 128 px or more; the dry runs of pretrain and ground say 3 GB, and on
# 2 CPU cores 7 and 20 hours. Not run by us: no GPU was at hand.
# Expect: nothing yet.
#
#     experiments/grounding/seed_published.sh [-S ...]
set -euo pipefail
params=pipelines/grounding/params.yaml
dvc exp run pipelines/grounding/dvc.yaml:evaluate \
    -S $params:seed=42 -S $params:simulate.side_px=256 -S $params:tiles.tile_px=128 -S $params:model.steps=10 \
    -S $params:ground.batch_size=8 -S $params:ground.accumulate=8 -S $params:ground.windows=256 \
    -S $params:ground.epochs=50 -S $params:ground.lr=1e-4 -S $params:ground.weight_decay=1e-5 \
    -S $params:ground.lora.rank=8 -S $params:ground.lora.alpha=16 \
    -S $params:ground.weights.sar=1.0 -S $params:ground.weights.cycle=0.5 -S $params:ground.weights.identity=0.3 \
    -S $params:ground.weights.lpips=0.1 -S $params:ground.weights.spectral=1.0 \
    -S $params:ground.stop.measure=seed_agreement -S $params:ground.stop.patience=5 -S $params:ground.stop.delta=1e-4 "$@"

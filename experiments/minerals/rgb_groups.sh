#!/usr/bin/env bash
# All three inputs side by side: all bands, the composite, and bands in triples through the RGB encoder (EarthDial).
# A tile is 62 triples, hence small: the models see it with 32 x 32 px in place of 64 x 64, 62 x 4 image tokens in place
# of 62 x 16. All three are trained so, for metrics/minerals.json to compare them (paired: bands-rgb_groups).
# Hardware: 2 CPU cores, 4 GB. A step of the triples takes 1.3 s of one core, the training 9 min; with the rest about
# 15 min. At full size, 7 s a step, 48 min and 4 GB, with the rest well over an hour: add
#     -S pipelines/minerals/params.yaml:sft.max_pixels=50176
# Expect (2026-11-28, AMD EPYC, seed 0): balanced accuracy of all bands 0.95, triples 0.92 [0.83, 1.00], composite 0.87.
#
#     experiments/minerals/rgb_groups.sh [-S ...]
set -euo pipefail
params=pipelines/minerals/params.yaml
dvc exp run pipelines/minerals/dvc.yaml:evaluate \
    -S "$params:model.inputs=[bands,rgb,rgb_groups]" -S $params:sft.max_pixels=1024 "$@"

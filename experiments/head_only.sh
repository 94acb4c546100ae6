#!/usr/bin/env bash
# The regression head alone: no words are learned, so there is nothing for DPO to prefer.
# Hardware: 2 CPU cores. Time and score: docs/experiments.md, "Variants".
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --name head-only -S sft.ce_weight=0.0 -S dpo.epochs=0 "$@"

#!/usr/bin/env bash
# No masked pretraining: sft starts from the backbone as it is.
# Hardware: 2 CPU cores. Time and score: docs/experiments.md, "Variants".
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --name no-pretrain -S pretrain.epochs=0 "$@"

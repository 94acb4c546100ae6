#!/usr/bin/env bash
# Head and words without DPO: what the pipeline is worth up to sft.
# Hardware: 2 CPU cores. Time and score: docs/experiments.md, "Variants".
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --name no-dpo -S dpo.epochs=0 "$@"

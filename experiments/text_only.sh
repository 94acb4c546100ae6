#!/usr/bin/env bash
# The words alone: the head stays as it was drawn, and its scores mean nothing.
# Hardware: 2 CPU cores. Time and score: docs/experiments.md, "Variants".
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --name text-only -S sft.mse_weight=0.0 "$@"

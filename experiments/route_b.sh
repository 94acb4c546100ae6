#!/usr/bin/env bash
# Route B: three principal components instead of all bands, as an RGB model would see them. Route A is the default.
# Hardware: 2 CPU cores. Time and score: docs/experiments.md, "Variants".
set -euo pipefail
cd "$(dirname "$0")/.."
dvc exp run --name route-b -S model.input=pca3 "$@"

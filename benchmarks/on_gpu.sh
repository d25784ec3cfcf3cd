#!/usr/bin/env bash
# Everything that needs the GPU, in one go, on a machine that has one: the marked tests, the calibration, the core set.
#   benchmarks/on_gpu.sh [h200]
set -euo pipefail
cd "$(dirname "$0")/.."
target="${1:-$(python -c 'from autotune.targets import detect_target; print(detect_target().name)')}"
if ! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "on_gpu: this machine has no CUDA device" >&2
  exit 2
fi
mkdir -p benchmarks/results
python -m pytest -q tests/gpu
python -m prism.cli calibrate --target "$target" --json | tee "benchmarks/results/calibration-$target.json"
python -m benchmarks --set core --target "$target"
python -m benchmarks.render

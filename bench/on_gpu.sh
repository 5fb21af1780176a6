#!/usr/bin/env bash
# Build, check and measure on a bare machine with an NVIDIA GPU and no network, in one call of at
# most nine minutes. The machine has a CUDA compiler and a Python with torch.
#
#   bench/on_gpu.sh [FOLDER] [STAGE...]
#
# Writes cuda.json, cuda-kernels.json and a log per stage to FOLDER (bench/results). The default
# stages are build check bench. Five more need a call each, such as bench/on_gpu.sh FOLDER build
# suite:
#
#   suite      all tests
#   cuda       tests of the CUDA backend
#   sanitizer  some of these under compute-sanitizer, for memory and for races in shared memory
#   triton     tests of the Triton backend, which also compile its kernels for other chips
#   kernels    both backends compared with products alone, compiled code and other kernels, and what
#              the figures mean for the choice of a backend
#
#   PYTHON   the interpreter, python3
#   WHEELS   a folder with wheels of packages that the machine lacks, .wheels; fill it elsewhere
#            with pip download --no-deps -d .wheels lightly ...
set -euo pipefail

folder=$(realpath -m "${1:-bench/results}")
stages=("${@:2}")
((${#stages[@]})) || stages=(build check bench)
mkdir -p "$folder"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
needed=('setuptools>=77' wheel ninja numpy 'pybind11>=2.13')
needed+=('pytest>=8' pytest-benchmark pytest-timeout pytest-xdist hypothesis)
needed+=(scikit-learn matplotlib tqdm)
peers=(open_clip_torch lightly pytorch-metric-learning info-nce-pytorch inf-cl cut-cross-entropy)

# Packages that are there and fit stay; others come from the folder. Never installs another torch.
install() {
  timeout 170 "$python" -m pip --disable-pip-version-check install --quiet --no-deps --no-index \
    --find-links "${WHEELS:-.wheels}" "$@"
}

build() {
  nvidia-smi
  install "${needed[@]}"
  for peer in "${peers[@]}"; do
    install "$peer" || echo "no $peer" # the report lists it as refused
  done
  export TORCH_CUDA_ARCH_LIST CONTRASTLOSS_CUDA=1
  TORCH_CUDA_ARCH_LIST=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)
  install --no-build-isolation -e .
  "$python" -m contrastloss info
}

check() {
  timeout 90 "$python" -m pytest -q -m gpu_smoke --device cuda
}

# pytest writes its results when it is interrupted
bench() {
  timeout -s INT -k 10 250 "$python" -m pytest -q bench --ignore bench/bench_gpu.py \
    --device cuda --seconds 2 --benchmark-json "$folder/cuda.json"
}

cuda() {
  timeout 380 "$python" -m pytest -q -n 4 tests/backends/test_cuda*.py tests/backends/test_gpu*.py \
    tests/backends/test_sweep.py tests/ops --device cuda -k cuda
}

# one test of each program, since a sanitizer turns seconds into minutes
sanitizer() {
  local tool
  for tool in memcheck racecheck; do
    timeout 240 compute-sanitizer --tool "$tool" --error-exitcode 3 "$python" -m pytest -q \
      tests/backends --device cuda -k test_races
  done
}

triton() {
  timeout 380 "$python" -m pytest -q -n 8 tests/backends/test_triton*.py tests/backends/test_gpu*.py \
    --device cuda -k "not cuda-"
}

kernels() {
  local status=0
  timeout -s INT -k 10 380 "$python" -m pytest -q bench/bench_gpu.py --device cuda --seconds 2 \
    --benchmark-json "$folder/cuda-kernels.json" || status=$?
  "$python" bench/crossover.py "$folder/cuda-kernels.json"
  return "$status"
}

suite() {
  timeout 480 "$python" -m pytest -q -n 4 --device cuda
}

for stage in "${stages[@]}"; do
  printf '\n=== %s (%d s)\n' "$stage" "$SECONDS"
  case $stage in
    build | check | bench | suite | cuda | sanitizer | triton | kernels) "$stage" 2>&1 | tee "$folder/$stage.log" ;;
    *) echo "no such stage: $stage" >&2 && exit 2 ;;
  esac
done

#!/usr/bin/env bash
# Build, check and measure on a bare machine with an NVIDIA GPU and no network, in one call of at
# most nine minutes. The machine has a CUDA compiler and a Python with torch.
#
#   bench/on_gpu.sh [FOLDER] [STAGE...]
#
# Writes first.json, cuda.json, cuda-kernels.json and a log per stage to FOLDER (bench/results). The
# default stages are build first check bench. Every stage runs, whatever failed before it; the exit
# status is the worst of theirs. Eight more need a call each, such as bench/on_gpu.sh FOLDER build
# suite:
#
#   suite      all tests
#   cuda       tests of the CUDA backend
#   sanitizer  some of these under compute-sanitizer: memory, races in shared memory, barriers
#   triton     tests of the Triton backend, which also compile its kernels for other chips
#   rivals     the same benchmarks as bench, with compiled code and other libraries
#   kernels    both backends compared with products alone, compiled code and other kernels
#   tune       checks and times of all backends, FOLDER/tuned.json: copied to
#              contrastloss/backends/tuned/CAPABILITY.json, it opens this capability to all users
#   prototypes what only a GPU can judge, each built, checked and timed: fp32 products by three
#              products of TF32, two blocks per multiprocessor; compare cuda-TF32X3.json and
#              cuda-TWO_BLOCKS.json with cuda-kernels.json
#
#   PYTHON   the interpreter, python3
#   WHEELS   a folder with wheels of packages that the machine lacks, .wheels; fill it elsewhere
#            with pip download --no-deps -d .wheels lightly ...
#   DRY      1: the stages build first check bench of a machine without a GPU, with the CUDA kernels
#            emulated on the CPU, to test this script
set -uo pipefail

folder=$(realpath -m "${1:-bench/results}")
stages=("${@:2}")
((${#stages[@]})) || stages=(build first check bench)
mkdir -p "$folder"
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

python=${PYTHON:-python3}
needed=('setuptools>=77' wheel ninja numpy 'pybind11>=2.13')
needed+=('pytest>=8' pytest-benchmark pytest-timeout pytest-xdist hypothesis)
needed+=(scikit-learn matplotlib tqdm rich)
peers=(open_clip_torch lightly pytorch-metric-learning info-nce-pytorch inf-cl cut-cross-entropy)
peers+=(memeff siglip-kernel)

# what differs without a GPU
device=(--device cuda) gpu_tests=(--device cuda) measured=()
if [[ ${DRY:-} ]]; then
  device=(--device cpu) gpu_tests=(--cuda-host plain) measured=(-m quick -k bench_accuracy)
fi

# Packages that are there and fit stay; others come from the folder. Never installs another torch.
install() {
  timeout 170 "$python" -m pip --disable-pip-version-check install --quiet --no-deps --no-index \
    --find-links "${WHEELS:-.wheels}" "$@"
}

# run_bench SECONDS OPTION...: pytest writes its results when it is interrupted
run_bench() { timeout -s INT -k 10 "$1" "$python" -m pytest -q "${device[@]}" "${@:2}"; }

build() {
  if [[ ! ${DRY:-} ]]; then
    nvidia-smi
    install "${needed[@]}"
    for peer in "${peers[@]}"; do
      install "$peer" || echo "no $peer" # the report lists it as refused
    done
    export TORCH_CUDA_ARCH_LIST CONTRASTLOSS_CUDA=1
    TORCH_CUDA_ARCH_LIST=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)
    install --no-build-isolation -e .
  fi
  "$python" -m contrastloss info
}

# before anything can fail: one warm figure of each backend
first() { run_bench 120 bench/bench_first.py --seconds 2 --benchmark-json "$folder/first.json"; }

# all of CUDA, whose programs are compiled, and few of Triton, which compiles them here
check() {
  timeout 150 "$python" -m pytest -q -n 4 "${gpu_tests[@]}" -m gpu_smoke tests/backends tests/ops \
    tests/losses/test_{clip,nt_xent,siglip,supcon}.py -k "cuda or (triton and losses)"
}

compared() {
  run_bench "$1" bench --ignore bench/bench_gpu.py --ignore bench/bench_first.py \
    --ignore bench/bench_ratios.py --seconds 2 \
    "${@:2}" --benchmark-json "$folder/cuda.json"
}
bench() { compared 250 --without-compiled "${measured[@]}"; }
rivals() { compared 480; }

cuda() {
  timeout 380 "$python" -m pytest -q -n 4 tests/backends/test_cuda*.py tests/backends/test_gpu*.py \
    tests/backends/test_sweep.py tests/ops --device cuda -k cuda
}

# one test of each program, since a sanitizer turns seconds into minutes
sanitizer() {
  local tool
  for tool in memcheck racecheck synccheck; do
    timeout 160 compute-sanitizer --tool "$tool" --error-exitcode 3 "$python" -m pytest -q \
      tests/backends --device cuda -k test_races
  done
}

triton() {
  timeout 380 "$python" -m pytest -q -n 8 tests/backends/test_triton*.py tests/backends/test_gpu*.py \
    --device cuda -k "not cuda-"
}

kernels() {
  run_bench 380 bench/bench_gpu.py --seconds 2 --benchmark-json "$folder/cuda-kernels.json"
}

tune() { CONTRASTLOSS_TUNED="$folder/tuned.json" timeout 520 "$python" -m contrastloss tune; }

prototypes() {
  local switch
  for switch in TF32X3 TWO_BLOCKS; do
    NVCCFLAGS=-DCL_$switch build
    timeout 60 "$python" -m pytest -q -n 4 tests/backends/test_cuda.py --device cuda
    run_bench 90 bench/bench_gpu.py -m quick --seconds 2 \
      --benchmark-json "$folder/cuda-$switch.json"
  done
}

# adapters are tested beside libraries that are not there
suite() { timeout 480 "$python" -m pytest -q -n 4 --device cuda --ignore=tests/compat; }

for stage in "${stages[@]}"; do
  case $stage in
    build | first | check | bench | rivals | suite | cuda | sanitizer | triton | kernels | tune | prototypes) ;;
    *) echo "no such stage: $stage" >&2 && exit 2 ;;
  esac
done
worst=0
for stage in "${stages[@]}"; do
  printf '\n=== %s (%d s)\n' "$stage" "$SECONDS"
  (set -e && "$stage") 2>&1 | tee "$folder/$stage.log"
  code=${PIPESTATUS[0]}
  ((code == 0)) || echo "FAILED: $stage ($code)" >&2
  ((code > worst)) && worst=$code
done
exit "$worst"

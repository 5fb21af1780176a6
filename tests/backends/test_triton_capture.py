"""No kernel is compiled while a CUDA graph is captured. With a stand-in for the driver, a launch
comes to the point where Triton would compile."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from contrastloss.backends import triton

if triton.missing() or triton.interpreted():
    pytest.skip("needs triton, without its interpreter", allow_module_level=True)

from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from contrastloss.backends.triton import slices

#: stands for a tensor on a GPU
ON_GPU = SimpleNamespace(is_cuda=True, device=torch.device("cuda", 0))


@pytest.fixture
def gpu(monkeypatch):
    """Whether its stream is captured."""
    fake = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
    )
    before = driver._active
    driver.set_active(fake)
    state = SimpleNamespace(captured=True)
    monkeypatch.setattr(torch.accelerator, "device_index", lambda index: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state.captured)
    yield state
    driver._active = before
    slices.merge_kernel.device_caches.clear()


def launch():
    parameters = slices.merge_kernel.params
    values = {p.name: 16 if p.is_constexpr else torch.zeros(16) for p in parameters}
    slices.merge_kernel[(1,)](**values)


def test_a_compile_during_a_capture_is_an_error_that_names_warmup(gpu):
    said = r"^backend: triton would compile merge_kernel while .*`python -m contrastloss warmup`"
    with pytest.raises(RuntimeError, match=said), triton._launching(ON_GPU):
        launch()
    assert knobs.runtime.jit_cache_hook is None


def test_without_a_capture_triton_compiles(gpu, monkeypatch):
    gpu.captured = False
    asked = []

    def skip(*, fn, **about):
        asked.append(fn.name)
        return True

    monkeypatch.setattr(knobs.runtime, "jit_cache_hook", skip)
    with triton._launching(ON_GPU):
        launch()
    assert asked == ["merge_kernel"]

"""The fuzzer finds no error in some seconds from a random seed, and does find planted errors."""

from unittest import mock

import hypothesis.strategies as st
import pytest
import torch

from contrastloss.backends import cpu
from fuzz import campaign, one_pass, raw, targets
from fuzz.guard import Guards

native = pytest.mark.skipif(cpu.missing() is not None, reason=str(cpu.missing()))


def test_a_campaign(capfd):
    code = campaign.campaign(10.0, jobs=1)
    out = capfd.readouterr().out
    assert code == 0, out
    assert "0 failures" in out
    print(out)


def test_a_wrong_gradient_is_found():
    def twice(*args, **options):
        return [2.0 * v if isinstance(v, torch.Tensor) else v for v in honest(*args, **options)]

    honest = targets.pair_stats
    with mock.patch.object(targets, "pair_stats", twice):
        failure, _ = campaign.run(targets.TARGETS["programs"], 1, 20, lambda case: None)
    assert "value 0: error" in failure


@native
def test_a_wrong_gradient_of_the_one_pass_is_found():
    def more(grad, units):
        honest(1.001 * grad, units)

    honest = cpu.scale
    with mock.patch.object(cpu, "scale", more):
        failure, _ = campaign.run(one_pass.TARGETS["one pass"], 1, 40, lambda case: None)
    assert "error" in failure


def test_a_crash_is_found_and_named():
    worker = campaign.Worker(1, 1.0, ["crash"])
    worker.process.kill()
    worker.process.wait()
    _, (failure,) = worker.results()
    assert "SIGKILL" in failure


def test_a_case_is_noted_before_it_runs():
    noted = []
    failure, count = campaign.run((st.just(7), lambda case: None), 1, 5, noted.append)
    assert failure is None
    assert noted == [7] * count


def test_memory_ends_behind_a_tensor():
    with Guards() as guards:
        for shape in ((1,), (3, 5), (1024,), (1025,)):
            tensor = guards.place(torch.arange(float(torch.Size(shape).numel())).view(shape))
            end = tensor.data_ptr() + tensor.numel() * 4
            assert end % 4096 == 0
            assert tensor.flatten()[-1] == tensor.numel() - 1


@native
def test_every_operator_is_called_as_it_should_be():
    """The calls that are then changed are valid: without changes, each of them gives a result."""
    options = {"m": 5, "n": 7, "d": 3, "lead": (2,), "seed": 1, "vectors": ("scale",)}
    options |= {"dtype": torch.float32, "symmetric": False, "cosine": True}
    from contrastloss.channel import LSE, differs

    whole = [name.removeprefix("contrastloss::") for name in torch._C._dispatch_get_all_op_names()]
    assert {n for n in whole if n[:4] == "cpu_"} == {n for n in raw.NAMES if n[:4] == "cpu_"}
    for name in raw.NAMES:
        arguments = raw.arguments_of(name, (LSE(pairs=(differs("a"),)),), options)
        getattr(torch.ops.contrastloss, name)(*arguments)

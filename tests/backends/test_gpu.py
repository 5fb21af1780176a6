"""GPU backends, tests that need a GPU: captured steps, streams, large tensors."""

import copy

import pytest
import torch

import contrastloss
from contrastloss import ops
from contrastloss.channel import COL, LSE, ROW

N, D = 3000, 192


pytestmark = pytest.mark.among("cuda", "triton")


@pytest.fixture(autouse=True)
def _on_a_gpu(device):
    if device.type != "cuda":
        pytest.skip("needs a GPU, and --device cuda")


def embeddings(device):
    made = torch.randn(2, N, D, device=device, dtype=torch.bfloat16)
    return [v.requires_grad_() for v in made.unbind()]


def step(loss, x, y):
    value = loss(x, y)
    return value.detach(), *torch.autograd.grad(value, (x, y))


@pytest.mark.gpu_smoke
@pytest.mark.parametrize("cls", [contrastloss.CLIPLoss, contrastloss.NTXentLoss])
def test_repeats_its_bits(device, backend, cls):
    x, y = embeddings(device)
    loss = cls(backend=backend)
    first = step(loss, x, y)
    for _ in range(10):
        assert all(map(torch.equal, step(loss, x, y), first))


@pytest.mark.gpu_smoke
@pytest.mark.parametrize("n", [16, 33, 200])
def test_sorting(device, backend, n):
    """Agrees with the reference in fp64, and repeats bit for bit."""
    x, t = torch.randn(500, n, device=device), torch.rand(500, 2, n, device=device)
    weights = torch.randn_like(x), torch.randn_like(t)

    def run(dtype, name):
        leaves = [v.to(dtype).requires_grad_() for v in (x, t)]
        found = ops.sort_network(*leaves, backend=name)
        return *found, *torch.autograd.grad(found, leaves, [w.to(dtype) for w in weights])

    first = run(torch.float32, backend)
    for got, want in zip(first, run(torch.float64, "reference"), strict=True):
        assert (got - want).norm() <= 1e-4 * want.norm()
    for _ in range(5):
        assert all(map(torch.equal, run(torch.float32, backend), first))


def test_a_device_that_is_not_the_current_one(backend):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x = torch.randn(2, 64, 32, device="cuda:1")
    with torch.cuda.device(0):
        found = ops.pair_stats(*x, (LSE(),), backend=backend)[0]
    torch.testing.assert_close(found, ops.pair_stats(*x, (LSE(),), backend="reference")[0])


@pytest.mark.gpu_smoke
def test_two_streams(device, backend):
    """Overlapping calls share no scratch memory."""
    loss = contrastloss.CLIPLoss(backend=backend)
    x, y = embeddings(device)
    want = step(loss, x, y)
    streams = [torch.cuda.Stream() for _ in range(2)]
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
    found = []
    for _ in range(5):
        for stream in streams:
            with torch.cuda.stream(stream):
                found.append(step(loss, x, y))
    torch.cuda.synchronize()
    for got in found:
        assert all(map(torch.equal, got, want))


@pytest.mark.gpu_smoke
def test_a_captured_training_step(device, backend):
    """Replayed on new batches, the captured step equals the eager step."""
    eager = torch.nn.Linear(48, D, device=device, dtype=torch.bfloat16)
    captured = copy.deepcopy(eager)
    loss = contrastloss.CLIPLoss(backend=backend)
    batches = torch.randn(6, 2, N, 48, device=device, dtype=torch.bfloat16)
    given = batches[0].clone()

    def training(model, batch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

        def run():
            optimizer.zero_grad()
            value = loss(model(batch[0]), model(batch[1]))
            value.backward()
            optimizer.step()
            return value.detach()

        return run

    run = training(captured, given)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles kernels and allocates library workspaces
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = run()
    captured.load_state_dict(eager.state_dict())
    for batch in batches:
        given.copy_(batch)
        graph.replay()
        assert torch.equal(value, training(eager, batch)())
    assert torch.equal(captured.weight, eager.weight)


def test_memory_of_a_million_rows(device, backend):
    if torch.cuda.mem_get_info()[0] < 16 << 30:
        pytest.skip("needs 16 GiB of free GPU memory")
    x, y = (
        torch.randn(1 << 20, 512, device=device, dtype=torch.bfloat16, requires_grad=True)
        for _ in range(2)
    )
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    channels = (LSE(), LSE(axis=COL))
    by_row, by_col = ops.pair_stats(x, y, channels, cosine=True, backend=backend)
    grads = torch.autograd.grad(by_row.sum() + by_col.sum(), (x, y))
    extra = torch.cuda.max_memory_allocated() - before - sum(grad.nbytes for grad in grads)
    assert extra <= 1.5 * (x.nbytes + y.nbytes)


@pytest.mark.parametrize("axis", [ROW, COL])
def test_more_elements_than_int32_counts(device, backend, axis):
    """The last rows of a tensor with 2^31 elements, and their gradient, equal those of a small
    tensor."""
    if torch.cuda.mem_get_info()[0] < 32 << 30:
        pytest.skip("needs 32 GiB of free GPU memory")
    few = torch.randn(96, 512, device=device, dtype=torch.bfloat16)
    many = torch.randn((1 << 22) + 77, 512, device=device, dtype=torch.bfloat16)
    last = slice(-64, None)

    def run(leaf):
        leaf.requires_grad_()
        x, y = (leaf, few) if axis == ROW else (few, leaf)
        (value,) = ops.pair_stats(x, y, (LSE(axis=axis),), scale=0.05, backend=backend)
        (grad,) = torch.autograd.grad(value[last].sum(), leaf)
        return value[last], grad[last]

    torch.testing.assert_close(run(many), run(many[last].detach().clone()))

"""SwAV and DeepCluster-v2 as their released code computes them (facebookresearch/swav)."""

import pytest
import torch
from presets.released import trains
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from contrastloss import EmbeddingQueue, SwAVLoss, presets


def normal(n, d, *shape):
    g = torch.Generator().manual_seed(n * 1000 + d)
    return torch.randn(*shape, n, d, generator=g, dtype=torch.float64)


def released(z, weight, stored=None, eps=0.05, iterations=3, tau=0.1):
    """The loss of crops (V, N, D), of which two are large, with unit prototypes: codes from the
    exponentials of the scores of queue and batch, rows of prototypes first."""
    unit = normalize(z, dim=-1)
    scores = unit @ weight.mT
    total = 0
    for w in range(2):
        with torch.no_grad():
            own = scores[w] if stored is None else torch.cat([stored[w] @ weight.mT, scores[w]])
            q = (own / eps).exp().mT
            q = q / q.sum()
            for _ in range(iterations):
                q = q / q.sum(1, keepdim=True) / q.shape[0]
                q = q / q.sum(0, keepdim=True) / q.shape[1]
            q = (q * q.shape[1]).mT[-z.shape[1] :]
        pairs = [
            -(q * (scores[v] / tau).log_softmax(1)).sum(1).mean() for v in range(len(z)) if v != w
        ]
        total = total + sum(pairs) / (len(z) - 1)
    return total / 2


def agree(found, want, leaves):
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-12)
    grads = [torch.autograd.grad(value, leaves, retain_graph=True) for value in (found, want)]
    for got, expected in zip(*grads, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize(("n", "k", "crops"), [(1, 3, 0), (7, 5, 6), (33, 130, 6), (129, 17, 1)])
def test_swav(n, k, crops, queued, backend):
    z = normal(n, 11, 2 + crops).requires_grad_()
    weight = normalize(normal(k, 11)).requires_grad_()
    queues, stored = None, None
    if queued:
        queues = [EmbeddingQueue(9, 11, dtype=torch.float64) for _ in range(2)]
        rows = normalize(normal(13, 11, 2), dim=-1)
        for queue, own in zip(queues, rows, strict=True):
            queue.enqueue(own)
        stored = rows[:, -9:]
    loss = presets.swav(backend=backend)
    small = z[2:].movedim(0, 1) if crops else None
    found = loss(z[0], z[1], weight, crops=small, queues=queues)
    agree(found, released(z, weight, stored), [z, weight])


def test_empty_slots_of_a_queue_are_no_rows(backend):
    z, weight = normal(6, 5, 2), normal(4, 5)
    queues = [EmbeddingQueue(8, 5, dtype=torch.float64) for _ in range(2)]
    loss = SwAVLoss(backend=backend)
    want = loss(*z, weight)
    torch.testing.assert_close(loss(*z, weight, queues=queues), want)
    for queue, rows in zip(queues, normal(3, 5, 2), strict=True):
        queue.enqueue(rows)
    full = [EmbeddingQueue(3, 5, dtype=torch.float64) for _ in range(2)]
    for queue, rows in zip(full, normal(3, 5, 2), strict=True):
        queue.enqueue(rows)
    found = loss(*z, weight, queues=queues)
    torch.testing.assert_close(found, loss(*z, weight, queues=full))
    assert (found - want).abs() > 1e-3


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 3), (33, 130)])
def test_deepcluster_v2(n, k, backend):
    """Cross entropy of the rows of all crops with the image's k-means cluster."""
    z, centroids = normal(n, 9, 4).requires_grad_(), normalize(normal(k, 9))
    assigned = torch.randint(-1, k, (n,))
    assigned[0] = 0
    assigned[assigned < 0] = -100  # not in the memory of the clustering
    rows, targets = z.flatten(0, 1), assigned.repeat(4)
    want = cross_entropy(normalize(rows) @ centroids.mT / 0.1, targets)
    loss = presets.image_volume()["deepcluster"]
    loss.backend = backend
    agree(loss(rows, centroids, targets), want, [z])


def test_the_systems_that_use_swav_have_its_options():
    for loss in (presets.less_is_more(), presets.spark_vs_cl()["swav"]):
        assert repr(loss) == repr(presets.swav())
    assert repr(presets.image_volume()["swav"]) == repr(presets.swav())


@pytest.mark.parametrize(("n", "stored"), [(1, 1), (7, 130), (33, 5)])
def test_moco_and_byol(n, stored, backend):
    """As Wolfda95/SSL-MedicalImagining-CL-MAE has them; its BYOL leaves out the constant 2."""
    losses, rows = presets.spark_vs_cl(), normalize(normal(stored, 6))
    q, k = normal(n, 6, 2)
    q.requires_grad_()
    losses["moco"].backend = backend
    positive = (normalize(q) * normalize(k)).sum(1, keepdim=True)
    logits = torch.cat([positive, normalize(q) @ rows.mT], 1)
    agree(losses["moco"](q, k, rows), cross_entropy(logits / 0.07, torch.zeros(n).long()), [q])
    agree(losses["byol"](q, k), 2 - 2 * cosine_similarity(q, k).mean(), [q])


def test_swav_trains():
    z = normal(16, 8, 8)

    def loss(z, weight):
        return presets.swav()(z[0], z[1], weight, crops=z[2:].movedim(0, 1))

    trains(loss, z, normal(5, 8))

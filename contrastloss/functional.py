"""Every loss as a function, ``clip(x, y, *, temperature=0.07, ...)``: the module's
inputs, then its options by keyword.

Written by `python -m contrastloss.testing write`; do not edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from torch import Tensor

from .losses.base.evaluate import evaluate
from .losses.base.pair_loss import Memory
from .memory import EmbeddingQueue

__all__ = [
    "ada_meow",
    "adjacency_contrastive",
    "alignment_uniformity",
    "bank_contrastive",
    "barlow_twins",
    "beclr",
    "binary_nce",
    "cacr",
    "circle",
    "clan",
    "clean_clip",
    "clip",
    "cluster_nt_xent",
    "cmim",
    "codebook_diversity",
    "cosine",
    "cost",
    "cross_supcon",
    "dcl",
    "diff_sort",
    "dino",
    "focal_contrastive",
    "gist",
    "groco",
    "hard_negative",
    "hard_negative_clip",
    "hierarchical_contrastive",
    "info_nce",
    "jepa",
    "koleo",
    "latent_positive",
    "margin_ranking",
    "meow",
    "mil_contrastive",
    "mochi",
    "moco",
    "momentum_cacr",
    "multi_modal",
    "multi_similarity",
    "mv_dhel",
    "mv_info_nce",
    "nspt",
    "nt_xent",
    "pair_contrastive",
    "pooled_supcon",
    "proto_nce",
    "recall_at_k",
    "region_attribute",
    "sampled",
    "selfcon",
    "sepclr",
    "siglip",
    "simctg",
    "simlap",
    "smooth_ap",
    "soft_supcon",
    "soft_target",
    "spearman",
    "spectral",
    "supcon",
    "supremix",
    "swav",
    "temporal_clip",
    "topk_cross_entropy",
    "triplet",
    "vicreg",
]


def ada_meow(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    v: Tensor,
    *,
    v_bias: Tensor | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    validate: bool = False,
) -> Tensor:
    r"""Contrastive loss with pairs weighted by a two-layer network (AdaMEOW).

    :math:`\ell_i = -\log \frac{e^{s_{ii}}}{\sum_j w_{ij} e^{s_{ij}}},
    \qquad s_{ij} = \cos(x_i, y_j) / \tau, \quad
    w_{ij} = \sigma\bigl(v^\top \tanh(W (\hat x_i + \hat y_j) + b) + c\bigr)`

    :math:`\hat x` and :math:`\hat y` are the normalised vectors, or x and y with
    ``normalize=False``. As in the authors' code, the sum includes j = i. The weights are computed
    as logarithms and cannot underflow. Embeddings and network get gradients.

    The loss takes O(N^2 h) time for h hidden units. Only some rows of pairs are in memory at a
    time; the backward pass recomputes them.

    Args:
        temperature: tau, positive. Default: 0.5.
        backend: ignored; the loss runs in plain PyTorch.

    Shared options:
        loss_weight: multiplies the loss.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        x, y: (N, D).
        weight: (h, D), the network's W; the paper has h = 16.
        bias, v: (h,), the network's b and v.
        v_bias: (1,), its c, which the authors' code has; None for 0.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Yu et al., Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples, 2022.

    The module with the same options: :class:`contrastloss.AdaMEOWLoss`.
    """
    named = {
        "v_bias": v_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
    }
    return evaluate("ada_meow", (x, y, weight, bias, v), named, options)


def adjacency_contrastive(
    z: Tensor,
    adjacency: Tensor | Sequence[Tensor],
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    self_score: bool = False,
    eps: float = 0.0,
) -> Tensor:
    r"""Contrastive loss on a graph: neighbours are positives, weighted by their edges.

    :math:`\ell_i = -\log\Bigl(\frac{\sum_{j \ne i} A_{ij} e^{s_{ij}}}
    {\sum_{j \ne i} e^{s_{ij}}} + \epsilon\Bigr), \qquad s_{ij} = \cos(z_i, z_j) / \tau`

    A is sparse. Rows are split into chunks of 16 edges, so memory is O((N + edges / 16) D + edges)
    for any degrees. The weights of repeated entries add up; entries with weights that are not
    positive are ignored. Weights get no gradient.

    Args:
        temperature: tau, positive. The paper multiplies the scores by its temperature, which is
            1 / tau. Default: 1.
        self_score: True sets the diagonal of the scores to 0, as in the released code, which adds
            :math:`e^0` to the denominator and :math:`A_{ii} e^0` to the numerator. False ignores
            self loops. Default: False.
        eps: epsilon >= 0; the released code has 1e-8. Default: 0.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        z: (N, D).
        adjacency: a sparse (N, N) tensor in CSR or COO layout (COO is sorted first); or a tuple
        (crow, col) or (crow, col, values) of CSR tensors (N + 1,), (E,) and (E,), with which the
        loss can be compiled. Without values, all weights are 1.
        Loss: (), or (N,) for ``reduction='none'``. A row without neighbours has loss 0 and is not
        counted in the mean.

    Source: Kulatilleke et al., SCGC: Self-Supervised Contrastive Graph Clustering, 2022.

    The module with the same options: :class:`contrastloss.AdjacencyContrastiveLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "self_score": self_score,
        "eps": eps,
    }
    return evaluate("adjacency_contrastive", (z, adjacency), named, options)


def alignment_uniformity(
    x: Tensor,
    y: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    alpha: float = 2.0,
    t: float = 2.0,
    weight: float = 1.0,
    across: bool = False,
    normalize: bool = True,
) -> Tensor:
    r"""Alignment of positive pairs plus uniformity of all embeddings on the hypersphere.

    :math:`\begin{aligned}
    \ell &= \frac1N \sum_i |x_i - y_i|^\alpha + \lambda\, \frac{U(x) + U(y)}{2} \\
    U(z) &= \log \frac{2}{N (N - 1)} \sum_{i < j} e^{-t |z_i - z_j|^2}
    \end{aligned}`

    for unit vectors x and y. With ``across``, the two means over pairs are replaced by one mean
    over the pairs of different instances among all 2N rows. BECLR's repulsion, with scores divided
    by 2, is that with ``t=0.25``, up to a constant.

    Args:
        alpha: exponent of the distance, positive. Equal rows get no gradient. Default: 2.
        t: scale of the Gaussian kernel, positive. Default: 2.
        weight: lambda >= 0; 0 uses alignment alone. Default: 1.
        across: whether pairs across views repel each other, too. Default: False.
        normalize: whether x and y are normalised; a zero vector is then orthogonal to all others.
            Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        x, y: (N, D).
        Loss: (). The uniformity of fewer than two rows is 0.

    Source: Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
    Uniformity on the Hypersphere, 2020.

    The module with the same options: :class:`contrastloss.AlignmentUniformityLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "alpha": alpha,
        "t": t,
        "weight": weight,
        "across": across,
        "normalize": normalize,
    }
    return evaluate("alignment_uniformity", (x, y), named, options)


@overload
def bank_contrastive(
    query: Tensor,
    key: Tensor,
    bank: EmbeddingQueue | Tensor,
    labels: Tensor,
    bank_labels: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.05,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> Tensor: ...
@overload
def bank_contrastive(
    query: Tensor,
    key: Tensor,
    bank: EmbeddingQueue | Tensor,
    labels: Tensor,
    bank_labels: Tensor | None = None,
    *,
    return_stats: Literal[True],
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.05,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def bank_contrastive(
    query: Tensor,
    key: Tensor,
    bank: EmbeddingQueue | Tensor,
    labels: Tensor,
    bank_labels: Tensor | None = None,
    *,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.05,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Query against key, with the bank's embeddings of the same label as negatives.

    :math:`\ell_i = -\log \frac{e^{s(q_i, k_i)}}
    {e^{s(q_i, k_i)} + \sum_{j:\, b_j = c_i} e^{s(q_i, m_j)}}`

    with labels c of the queries and b of the stored embeddings :math:`m_j`. With languages as
    labels, each language has its own bank within one queue, and features that only identify the
    language do not reduce the loss.

    Args:
        temperature: tau, positive. Default: 0.05.
        group: distributes the queries over ranks, for the mean and its gradient. The bank has to
            be the same on all ranks.
        return_stats: over the rows whose label is stored.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.

    Shape:
        query, key: (N, D).
        bank: an EmbeddingQueue made with ``labels=True``, which gets no gradient, or a tensor
        (K, D).
        labels: (N,), integers.
        bank_labels: (K,), integers, if bank is a tensor; otherwise None.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (N,) for ``reduction='none'``. A row whose label is not stored has loss 0.

    Source: Wu et al., Unsupervised Context Aware Sentence Representation Pretraining for
    Multi-lingual Dense Retrieval, 2022.

    The module with the same options: :class:`contrastloss.BankContrastiveLoss`.
    """
    named = {
        "ids": ids,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("bank_contrastive", (query, key, bank, labels, bank_labels), named, options)


def barlow_twins(
    x: Tensor,
    y: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    lambda_: float | None = 0.005,
    eps: float = 1e-05,
    standardize: Literal["biased", "unbiased", "none"] = "biased",
) -> Tensor:
    r"""Barlow Twins: drives the cross-correlation of two views' features to the identity.

    :math:`\sum_i (1 - c_{ii})^2 + \lambda \sum_i \sum_{j \ne i} c_{ij}^2, \qquad
    c_{ij} = \frac1N \sum_n \hat x_{ni} \hat y_{nj}`

    Features are standardised over the batch:
    :math:`\hat x = (x - \text{mean}) / \sqrt{\text{var} + \epsilon}`. The D x D matrix c is not
    materialised.

    Args:
        lambda_: weight of the second sum, positive; None for 1 / D (Graph Barlow Twins).
            Default: 0.005.
        eps: added to the variance, positive. Default: 1e-5.
        standardize: ``'biased'``, the variance of a BatchNorm without affine parameters;
            ``'unbiased'``, that of ``torch.std``, as in Graph Barlow Twins; or ``'none'``: x and y
            are used as they are, after a BatchNorm of the caller (BarLIP). Default: ``'biased'``.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        x, y: (N, D).
        Loss: (). For N = 0 it is 0. For N = 1 there is no variance, and c = 0, unless ``'none'``.

    Source: Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021;
    Bielak et al., Graph Barlow Twins, 2022; BarLIP: Fini et al., Improved baselines for
    vision-language pre-training, 2023.

    The module with the same options: :class:`contrastloss.BarlowTwinsLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "lambda_": lambda_,
        "eps": eps,
        "standardize": standardize,
    }
    return evaluate("barlow_twins", (x, y), named, options)


def beclr(
    predictions: Tensor,
    projections: Tensor,
    teacher: Tensor,
    *,
    stored: Tensor | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    temperature: float = 2.0,
    weight: float = 0.1,
    threshold: float = 0.8,
) -> Tensor:
    r"""BECLR: a student's predictions follow a teacher, and its projections repel each other.

    With predictions p and projections z of a student and the projections t of a teacher, of two
    views each,

    :math:`\ell = -\frac{1}{2N} \sum_i \bigl[\cos(p_i, t'_i) + \cos(p'_i, t_i)\bigr] +
    \lambda \log \frac{1}{2N} \sum_u \frac{1}{2N - 2} \sum_v e^{\cos(z_u, z_v) / \tau}`

    where u is any of the 2N projections, v any of another instance, and a prime the other view.
    With stored embeddings m these are the negatives in place of the batch's. Those of which
    :math:`s_{uj} = \langle \hat z_u, m_j \rangle` is above a threshold are left out of the number
    :math:`n` of all pairs; as in the authors' code, they still have score 0 in the sum:

    :math:`\lambda \log \frac{1}{2N n} \sum_{u, j} e^{[s_{uj} \le \theta] s_{uj} / \tau}`

    Rows may be followed by their nearest neighbours: :meth:`with_neighbors`.

    Args:
        temperature: tau, positive. Default: 2.
        weight: lambda >= 0; 0 uses alignment alone. Default: 0.1.
        threshold: theta, of stored embeddings. Default: 0.8.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        predictions, projections, teacher: (N, 2, D), two views of each instance; the teacher gets
        no gradient.
        stored: (K, D), without gradient, compared as they are; None for the negatives of the batch.
        Loss: (). The repulsion of fewer than two instances, or of no pair, is 0.

    Source: Poulakakis-Daktylidis and Jamali-Rad, BECLR: Batch Enhanced Contrastive Few-Shot
    Learning, 2024.

    The module with the same options: :class:`contrastloss.BECLRLoss`.
    """
    named = {
        "stored": stored,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "temperature": temperature,
        "weight": weight,
        "threshold": threshold,
    }
    return evaluate("beclr", (predictions, projections, teacher), named, options)


@overload
def binary_nce(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> Tensor: ...
@overload
def binary_nce(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[True],
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def binary_nce(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Binary NCE: logistic classification of positive and negative pairs with equal total weight.

    :math:`\ell_i = \log\bigl(1 + e^{-s_{ii}}\bigr) +
    \frac{1}{N - 1} \sum_{j \ne i} \log\bigl(1 + e^{s_{ij}}\bigr),
    \qquad s_{ij} = \cos(x_i, y_j) / \tau`

    With :math:`f = e^s` the terms are :math:`\log(1 + 1/f^+)` and :math:`\log(1 + f^-)`. The
    optimal f is the density ratio of positive and negative pairs. SigLIP sums over negatives
    instead of averaging.

    Args:
        temperature: tau, positive. Default: 1.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is the first term.

    Source: Gutmann and Hyvarinen, Noise-Contrastive Estimation, 2010; Qiu et al., Contrastive UCB:
    Provably Efficient Contrastive Self-Supervised Learning in Online Reinforcement Learning, 2022;
    Rethmeier and Augenstein, A Primer on Contrastive Pretraining in Language Processing, 2021.

    The module with the same options: :class:`contrastloss.BinaryNCELoss`.
    """
    named = {
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("binary_nce", (x, y, negatives), named, options)


def cacr(
    x: Tensor,
    y: Tensor | None = None,
    *,
    memory: EmbeddingQueue | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    alpha: float = 1.0,
    beta: float = 1.0,
    t_positive: float = 1.0,
    t_negative: float = 2.0,
    detach_weights: bool = False,
    tau_plus: float = 0.0,
) -> Tensor:
    r"""CACR: attracts far positives and repels near negatives the most.

    With the squared distances :math:`D_{ij} = |x_i - y_j|^2 / \tau` of unit vectors,

    :math:`\ell_i = \alpha \sum_k \frac{e^{t^+ D_{ik}}}{\sum_l e^{t^+ D_{il}}} D_{ik} -
    \beta \sum_{j \ne i} \frac{e^{-t^- D_{ij}}}{\sum_{l \ne i} e^{-t^- D_{il}}} D_{ij}`

    The first sum is over the positives of row i, the second over the first positive of every other
    row. Of V views, the attraction is the mean over views, to the V - 1 other ones, and the
    repulsion the mean over pairs of views. ``tau_plus`` debiases the repulsion :math:`R_i`, the
    second term, to :math:`(R_i - \tau^+ D_{ii}) / (1 - \tau^+)`, for classes of unequal sizes.

    Args:
        temperature: tau, positive. Default: 1.
        alpha: weight of the attraction, >= 0; 0 leaves it out. Default: 1.
        beta: weight of the repulsion, >= 0; 0 leaves it out. Not both are 0. Default: 1.
        t_positive: t+, positive; larger values emphasise the farthest positives. Default: 1.
        t_negative: t-, positive; larger values emphasise the nearest negatives. Default: 2.
        detach_weights: whether both softmaxes are constants; False differentiates them, as in the
            authors' code for small images. Default: False.
        tau_plus: the prior of a class, in [0, 1); 0 does not debias. Default: 0.
        normalize: whether x and y are normalised; a zero vector is then orthogonal to all others.
            Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        x: (N, D), or (N, V, D) for V >= 2 views of each instance, without y.
        y: (N, D), or (N, K, D) for K positives per row; None for views.
        memory: an EmbeddingQueue of further negatives, whose weights' gradient by their own
        distances is left out, as in the authors' code; None for none.
        Loss: (), or (N,) for ``reduction='none'``. A row without negatives has the attraction only.

    Source: Zheng et al., Contrastive Attraction and Contrastive Repulsion for Representation
    Learning, 2023.

    The module with the same options: :class:`contrastloss.CACRLoss`.
    """
    named = {
        "memory": memory,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "alpha": alpha,
        "beta": beta,
        "t_positive": t_positive,
        "t_negative": t_negative,
        "detach_weights": detach_weights,
        "tau_plus": tau_plus,
    }
    return evaluate("cacr", (x, y), named, options)


@overload
def circle(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    m: float = 0.4,
    gamma: float = 80.0,
) -> Tensor: ...
@overload
def circle(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    m: float = 0.4,
    gamma: float = 80.0,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def circle(
    z: Tensor,
    labels: Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    m: float = 0.4,
    gamma: float = 80.0,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Circle loss: the further a pair is from its optimum, the larger its weight.

    With :math:`P_i` the other rows with row i's label, :math:`N_i` the rows with other labels, and
    :math:`s_{ij} = \cos(z_i, z_j)`,

    :math:`\ell_i = \log\Bigl(1 +
    \sum_{n \in N_i} e^{\gamma [s_{in} + m]_+ (s_{in} - m)}
    \sum_{p \in P_i} e^{-\gamma [1 + m - s_{ip}]_+ (s_{ip} - 1 + m)}\Bigr)`

    where the weights :math:`[\cdot]_+` get no gradient. ``reduction='mean'`` averages over the rows
    that have both a positive and a negative; all other rows have loss 0.

    Args:
        m: relaxation factor. Default: 0.4.
        gamma: scale factor, positive. Default: 80.
        temperature: divides the scores, positive. Default: 1.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D).
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue made with ``labels=True``; its columns are additional positives
        and negatives, without gradient.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``. Of V views, only
        stored and given columns are left out.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, 2020.

    The module with the same options: :class:`contrastloss.CircleLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "ignore_index": ignore_index,
        "m": m,
        "gamma": gamma,
        "return_stats": return_stats,
    }
    return evaluate("circle", (z, labels), named, options)


def clan(
    z: Tensor,
    negatives: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    alpha: float = 0.5,
    margin: float = 1.0,
    squared: bool = False,
    eps: float = 1e-06,
) -> Tensor:
    r"""CLAN: attracts the rows of one class and repels augmented negatives.

    With :math:`d(a, b) = (1 - \cos(a, b)) / 2` and :math:`h_{ij} = [m - d(z_i, z'_j)]_+`,

    :math:`\alpha \frac{\sum_{i \ne j} d(z_i, z_j)}{\#\{d(z_i, z_j) > \epsilon\}} +
    (1 - \alpha) \frac{\sum_{ij} h_{ij}}{\#\{h_{ij} > \epsilon\}}`

    where :math:`z'` are the negatives, augmentations that change the class. The counts get no
    gradient. A term with count 0 is 0.

    Args:
        alpha: weight of the attraction, from 0 to 1. Default: 0.5.
        margin: m, positive. At 1 no pair is excluded; the released training script has 0.5.
            Default: 1.
        squared: whether d and h are squared, before counting. Default: False.
        eps: epsilon, positive. Default: 1e-6.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        z: (N, D), the rows of one class.
        negatives: (M, D). z and negatives both get gradients.
        Loss: ().

    Source: Wilkie et al., Contrastive Self-Supervised Network Intrusion Detection using Augmented
    Negative Pairs, 2025.

    The module with the same options: :class:`contrastloss.CLANLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "alpha": alpha,
        "margin": margin,
        "squared": squared,
        "eps": eps,
    }
    return evaluate("clan", (z, negatives), named, options)


@overload
def clean_clip(
    image: Tensor,
    text: Tensor,
    image_augmented: Tensor,
    text_augmented: Tensor,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    inter: float = 1.0,
    intra: float = 1.0,
) -> Tensor: ...
@overload
def clean_clip(
    image: Tensor,
    text: Tensor,
    image_augmented: Tensor,
    text_augmented: Tensor,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    inter: float = 1.0,
    intra: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def clean_clip(
    image: Tensor,
    text: Tensor,
    image_augmented: Tensor,
    text_augmented: Tensor,
    *,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    inter: float = 1.0,
    intra: float = 1.0,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""CLIP plus InfoNCE between each modality and its augmented view.

    :math:`\ell_i = \text{inter}\; \text{CLIP}_i(x, y) + \tfrac12\, \text{intra}
    \left(\text{InfoNCE}_i(x, \tilde x) + \text{InfoNCE}_i(y, \tilde y)\right)`

    for images x and texts y, with one temperature for all terms. The terms within a modality are
    one-directional, from x and y to their augmentations. The statistics of ``return_stats`` are
    those of the images with the texts.

    Args:
        inter: weight of the CLIP term. Default: 1.
        intra: weight of the terms within a modality. Default: 1.
        temperature: tau, positive. Default: 0.07.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        image, text, image_augmented, text_augmented: (N, D).
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Bansal et al., CleanCLIP: Mitigating Data Poisoning Attacks in Multimodal Contrastive
    Learning, 2023.

    The module with the same options: :class:`contrastloss.CleanCLIPLoss`.
    """
    named = {
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "inter": inter,
        "intra": intra,
        "return_stats": return_stats,
    }
    return evaluate("clean_clip", (image, text, image_augmented, text_augmented), named, options)


@overload
def clip(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    x_negatives: Tensor | None = None,
    positives: Any = None,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    x_log_q: Tensor | None = None,
    memory: Memory = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    label_smoothing: float = 0.0,
    variant: Literal["out", "in"] = "out",
    in_batch_negatives: bool = True,
    gather_negatives: bool = True,
) -> Tensor: ...
@overload
def clip(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[True],
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    x_negatives: Tensor | None = None,
    positives: Any = None,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    x_log_q: Tensor | None = None,
    memory: Memory = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    label_smoothing: float = 0.0,
    variant: Literal["out", "in"] = "out",
    in_batch_negatives: bool = True,
    gather_negatives: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def clip(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    x_negatives: Tensor | None = None,
    positives: Any = None,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    x_log_q: Tensor | None = None,
    memory: Memory = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    label_smoothing: float = 0.0,
    variant: Literal["out", "in"] = "out",
    in_batch_negatives: bool = True,
    gather_negatives: bool = True,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""CLIP: symmetric InfoNCE over rows and columns, computed in one pass.

    :math:`\ell_i = -\tfrac12 \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}} -
    \tfrac12 \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}},
    \qquad s_{ij} = \cos(x_i, y_j) / \tau`

    With several positives, of ``positives`` or ``x_ids`` and ``y_ids``, rows and columns have
    losses of their own, each as :class:`~contrastloss.InfoNCELoss` has them, and the loss is the
    mean of the rows' mean, or sum, and the columns', over those with a positive.

    Args:
        temperature: tau, positive. Element i of an (N,) tensor divides :math:`s_{ij}` in both
            terms. Default: 0.07.
        variant: ``'out'``, the mean of the logarithms of several positives, or ``'in'``, the
            logarithm of their sum. Default: ``'out'``.
        in_batch_negatives: whether the other rows of the batch are negatives; False leaves the
            given and the stored ones. Default: True.
        gather_negatives: whether rows meet the shared negatives of all ranks of a group; False if
            every rank gives the same ones. Default: True.
        label_smoothing: epsilon, from 0 to 1, as :func:`torch.nn.functional.cross_entropy` has it,
            of rows and of columns: :math:`1 - \epsilon` times the loss, and epsilon times the mean
            of minus log p over what takes part in the softmax p. Default: 0.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (M, D) and (N, D), e.g. images and their texts; M = N without ``positives``, or
        ``x_ids`` and ``y_ids``.
        negatives: (K, D), shared by all rows of x, or (M, K, D), one set per row, or (L, D) with
        offsets.
        negatives_mask: (K,) or (M, K), bool, False for no negative; None: all are there.
        negatives_offsets: (M + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        x_negatives: (L, D), shared by all rows of y, or (N, L, D), one set per row of y: negatives
        in the columns' losses.
        memory: two EmbeddingQueues, of columns like those of y and of rows like those of x:
        additional negatives of the other side.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        positives: the places in y of the positives, where row i's is not row i of y, which may then
        have another number of rows: (M,), -1 for none; (P, 2), pairs of places in x and y, where a
        pair that occurs twice counts twice; or a tuple of offsets, (M + 1,), and places, (P,), of
        which row i's are those from offset i to before offset i + 1. Pairs and offsets do not go
        with ``return_stats``.
        x_ids, y_ids: (M,) and (N,), integers, in place of ``positives``: rows with equal ones are
        positives, also on other ranks. Columns with a row's id are left out of given ones with
        ``negatives_ids`` and of queues made with ``ids=True``; all others are negatives.
        log_q, x_log_q: (N,) and (M,), subtracted from the scores of the rows of y as columns, and
        of the rows of x as those of the columns' losses: the log of the probability that it is in a
        batch; None for 0. The statistics are of corrected scores.
        row_weight: (M,), multiplies the losses of pairs; 'mean' still divides by N. None for 1; not
        with several positives.
        Loss: (), or (N,) for ``reduction='none'``; with several positives ((M,), (N,)).

    Source: Radford et al., Learning Transferable Visual Models From Natural Language
    Supervision, 2021.

    The module with the same options: :class:`contrastloss.CLIPLoss`.
    """
    named = {
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "negatives_log_q": negatives_log_q,
        "x_negatives": x_negatives,
        "positives": positives,
        "x_ids": x_ids,
        "y_ids": y_ids,
        "ids": ids,
        "row_weight": row_weight,
        "log_q": log_q,
        "x_log_q": x_log_q,
        "memory": memory,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "label_smoothing": label_smoothing,
        "variant": variant,
        "in_batch_negatives": in_batch_negatives,
        "gather_negatives": gather_negatives,
        "return_stats": return_stats,
    }
    return evaluate("clip", (x, y, negatives), named, options)


@overload
def cluster_nt_xent(
    x: Tensor,
    y: Tensor,
    clusters: Tensor,
    *,
    return_stats: Literal[False] = False,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    against: Literal["other", "own"] = "other",
    across: bool = False,
) -> Tensor: ...
@overload
def cluster_nt_xent(
    x: Tensor,
    y: Tensor,
    clusters: Tensor,
    *,
    return_stats: Literal[True],
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    against: Literal["other", "own"] = "other",
    across: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def cluster_nt_xent(
    x: Tensor,
    y: Tensor,
    clusters: Tensor,
    *,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    against: Literal["other", "own"] = "other",
    across: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""NT-Xent with negatives from other clusters only, or from the same cluster only.

    :math:`\ell_i = -\log \frac{e^{s_{ip}}}{e^{s_{ip}} + \sum_{j \in N_i} e^{s_{ij}}},
    \qquad s_{ij} = \cos(z_i, z_j) / \tau`

    for every row i of ``z = [x; y]``, where p is the other view of its instance. :math:`N_i` are
    the rows of other instances in a different cluster (``'other'``: G-SimCLR, which avoids false
    negatives) or in the same cluster (``'own'``: MCL, where the features of an earlier stage do not
    separate the negatives). A row without negatives has loss 0 and is counted: the mean is over 2N
    rows.

    Args:
        temperature: tau, positive. Default: 0.1.
        against: the clusters of the negatives, ``'other'`` or ``'own'``. Default: ``'other'``.
        across: negatives are rows of the other view only: x against y and y against x, the two
            directions of CLIP. Default: False.
        return_stats: the statistics average over the rows that have a negative.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.

    Shape:
        x, y: (N, D).
        clusters: (N,), integers; with a group, those of this rank's rows.
        memory: an EmbeddingQueue made with ``labels=True``, whose labels are clusters: additional
        negatives.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (2N,) for ``reduction='none'``, x's rows first.

    Source: Chakraborty et al., G-SimCLR: Self-Supervised Contrastive Learning with Guided
    Projection via Pseudo Labelling, 2020; Zhang et al., Learning the Unlearned: Mitigating Feature
    Suppression in Contrastive Learning, 2024.

    The module with the same options: :class:`contrastloss.ClusterNTXentLoss`.
    """
    named = {
        "memory": memory,
        "ids": ids,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "against": against,
        "across": across,
        "return_stats": return_stats,
    }
    return evaluate("cluster_nt_xent", (x, y, clusters), named, options)


@overload
def cmim(
    z: Tensor,
    y: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> Tensor: ...
@overload
def cmim(
    z: Tensor,
    y: Tensor | None = None,
    *,
    return_stats: Literal[True],
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def cmim(
    z: Tensor,
    y: Tensor | None = None,
    *,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""cMIM: InfoNCE with the mean over the batch's negatives, which needs no augmentation.

    :math:`\ell_i = \log\Bigl(1 + e^{-s_{ii}} \frac{1}{N - 1} \sum_{j \ne i} e^{s_{ij}}\Bigr),
    \qquad s_{ij} = \cos(z_i, z_j) / \tau`

    where :math:`s_{ii} = 1 / \tau`. With a second view y, :math:`\cos(z_i, y_j)` replaces
    :math:`\cos(z_i, z_j)`. InfoNCE sums over negatives, so its value grows with the batch size. The
    other terms of cMIM, the likelihoods of its encoder and decoder, are left to the model.

    Args:
        temperature: tau, positive. Default: 0.1.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        z: (N, D).
        y: (N, D), or None.
        memory: an EmbeddingQueue of additional negatives, which the mean includes.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Livne, cMIM: A Contrastive Mutual Information Framework for Unified Generative and
    Discriminative Representation Learning, 2025.

    The module with the same options: :class:`contrastloss.CMIMLoss`.
    """
    named = {
        "memory": memory,
        "ids": ids,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("cmim", (z, y), named, options)


def codebook_diversity(
    probabilities: Tensor,
    *,
    mask: Tensor | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    form: Literal["entropy", "perplexity"] = "entropy",
    eps: float = 1e-07,
) -> Tensor:
    r"""Codebook diversity: encourages equal use of all entries of each codebook (wav2vec 2.0).

    With :math:`\bar p_{gv}` the mean over frames of the softmax over the V entries of codebook g,

    :math:`\begin{aligned}
    \text{entropy: } & \frac{1}{G V} \sum_{g v} \bar p_{gv} \log \bar p_{gv} \\
    \text{perplexity: } & \frac{1}{G V} \Bigl(G V - \sum_g e^{H(\bar p_g)}\Bigr),
    \qquad H(p) = -\sum_v p_v \log p_v
    \end{aligned}`

    The first is the paper's, with the minimum :math:`-\log(V) / V`. The second, between 0 and
    1 - 1/V, is that of the released code in fairseq. w2v-BERT adds it with weight 0.1
    (``loss_weight``).

    Args:
        form: ``'entropy'`` or ``'perplexity'``. Default: ``'entropy'``.
        eps: lower bound on the probabilities in the logarithm, positive, which keeps the gradient
            of unused entries finite. Default: 1e-7.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        probabilities: (..., G, V), which sum to 1 over V; all leading dimensions are frames.
        mask: (...), bool, marks the frames that count; None for all.
        Loss: (). Without frames it is 0.

    Source: Baevski et al., wav2vec 2.0: A Framework for Self-Supervised Learning of Speech
    Representations, 2020; Chung et al., w2v-BERT, 2021.

    The module with the same options: :class:`contrastloss.CodebookDiversityLoss`.
    """
    named = {
        "mask": mask,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "form": form,
        "eps": eps,
    }
    return evaluate("codebook_diversity", (probabilities,), named, options)


def cosine(
    x: Tensor,
    target: Tensor,
    *,
    weights: Tensor | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    power: float = 1.0,
    pairs: Literal["aligned", "all"] = "aligned",
    stop_gradient: bool = True,
) -> Tensor:
    r"""Cosine distance of each row to its own target, without negatives.

    :math:`\ell_i = (1 - \cos(x_i, t_i))^{\text{power}}`

    BYOL's ``2 - 2 cos`` is ``loss_weight=2``, SimSiam's ``-cos`` is this loss minus one, GraphMAE's
    scaled cosine error is ``power`` 2 or 3. For a symmetric loss, average two calls. A zero vector
    has cosine 0.

    Args:
        power: exponent, at least 1. Default: 1.
        pairs: ``'aligned'``, or ``'all'``, which compares every row with the mean of all targets:
            :math:`\ell_i = 1 - \langle \hat x_i, \tfrac1N \sum_j \hat t_j \rangle`, in O(N D), as
            in Point-CMAE's released code; its paper has aligned tokens. ``'all'`` requires
            ``power=1``. Default: ``'aligned'``.
        stop_gradient: whether the target is a constant. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        x, target: (..., N, D).
        weights: (..., N). A bool tensor marks the rows that count. Floating weights multiply the
        losses; they get no gradient and do not change the divisor of ``reduction='mean'``.
        ``pairs='all'`` averages the targets of all rows, counted or not.
        Loss: (), or (..., N) for ``reduction='none'``.

    Source: Grill et al., Bootstrap Your Own Latent, 2020; Chen and He, Exploring Simple Siamese
    Representation Learning, 2021; Hou et al., GraphMAE, 2022; Ren et al., Bringing Masked
    Autoencoders Explicit Contrastive Properties for Point Cloud Self-Supervised Learning, 2024.

    The module with the same options: :class:`contrastloss.CosineLoss`.
    """
    named = {
        "weights": weights,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "power": power,
        "pairs": pairs,
        "stop_gradient": stop_gradient,
    }
    return evaluate("cosine", (x, target), named, options)


@overload
def moco(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> Tensor: ...
@overload
def moco(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def moco(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""MoCo: query against key, with the keys of earlier batches, from a queue, as negatives.

    :math:`\ell_i = -\log \frac{e^{s_{ii}}}{e^{s_{ii}} + \sum_k e^{t_{ik}}},
    \qquad s_{ii} = \cos(q_i, k_i) / \tau, \quad t_{ik} = \cos(q_i, n_k) / \tau`

    Unfilled slots of the queue are ignored. Enqueue the keys after the call; enqueued before it,
    each key would be among the negatives of its own query.

    Args:
        temperature: tau, positive. Default: 0.07.
        group: distributes the queries over ranks, for the mean and its gradient. The queue has to
            be the same on all ranks (``queue.enqueue(key, group=...)``).

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        query, key: (N, D).
        queue: an EmbeddingQueue of K slots, which gets no gradient, or a tensor (K, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per row, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        ids: (N,), integers, for a queue made with ``ids=True``; stored keys of the query's own
        instance are ignored.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``. With an empty queue it is 0.

    Source: He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2020.

    The module with the same options: :class:`contrastloss.MoCoLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "negatives_log_q": negatives_log_q,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("moco", (query, key, queue), named, options)


@overload
def cost(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    x_seasonal: Tensor,
    y_seasonal: Tensor,
    *,
    return_stats: Literal[False] = False,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    weight: float = 0.0005,
) -> Tensor: ...
@overload
def cost(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    x_seasonal: Tensor,
    y_seasonal: Tensor,
    *,
    return_stats: Literal[True],
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    weight: float = 0.0005,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def cost(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    x_seasonal: Tensor,
    y_seasonal: Tensor,
    *,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    weight: float = 0.0005,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""CoST: MoCo on trend representations plus NT-Xent on the spectra of seasonal ones.

    :math:`\ell_i = \text{MoCo}_i(q, k) + \tfrac12\, \text{weight}\; \frac1F \sum_f \left(
    \text{NT-Xent}_i(|X_f|, |Y_f|) + \text{NT-Xent}_i(\arg X_f, \arg Y_f)\right)`

    where :math:`X_f` and :math:`Y_f` are the real Fourier transforms over time of x and y, which
    are unit vectors at every time step. Amplitudes and phases are compared across all series, per
    frequency, by dot products without temperature. The released code adds 1e-6 to the real and
    imaginary parts; here a vanishing coefficient has amplitude and phase 0, without gradient.

    Args:
        weight: weight >= 0 of the seasonal terms. Default: 0.0005, as in the released code.
        temperature: tau of the trend term, positive. Default: 0.07.
        normalize: whether the trend term uses cosines, and x and y are normalised at every time
            step. Default: True.
        group: distributes the series over ranks; the queue has to be the same on all ranks.
            Spectra are always gathered, whatever the strategy.
        return_stats: for the trend term.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.

    Shape:
        query, key: (B, D), the trends of two views at one time step.
        queue: an EmbeddingQueue of earlier keys, which gets no gradient, or a tensor (K, D).
        x_seasonal, y_seasonal: (B, T, E).
        ids: (B,), for a queue made with ``ids=True``; stored keys of the query's own instance are
        ignored.
        logit_scale, logit_bias: those of the trend term.
        Loss: (), or (B,) for ``reduction='none'``.

    Source: Woo et al., CoST: Contrastive Learning of Disentangled Seasonal-Trend Representations
    for Time Series Forecasting, 2022.

    The module with the same options: :class:`contrastloss.CoSTLoss`.
    """
    named = {
        "ids": ids,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "weight": weight,
        "return_stats": return_stats,
    }
    return evaluate("cost", (query, key, queue, x_seasonal, y_seasonal), named, options)


@overload
def cross_supcon(
    x: Tensor,
    y: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
) -> Tensor: ...
@overload
def cross_supcon(
    x: Tensor,
    y: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def cross_supcon(
    x: Tensor,
    y: Tensor,
    labels: Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Symmetric SupCon between x and y: rows of the other side with the same label are positives.

    With :math:`P_i` all rows with row i's label, including i, and :math:`s_{ij} = \cos(x_i, y_j) /
    \tau`,

    :math:`\ell_i = -\frac{1}{2 |P_i|} \sum_{p \in P_i} \Bigl(
    \log \frac{e^{s_{ip}}}{\sum_j e^{s_{ij}}} + \log \frac{e^{s_{pi}}}{\sum_j e^{s_{ji}}}
    \Bigr).`

    If all labels differ, this is CLIP. The statistics of ``return_stats`` are those of x's rows.

    Args:
        temperature: tau, positive. Default: 0.07.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        x, y: (N, D), e.g. audio and its text.
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per row, or (L, D) with
        offsets: further negatives of the rows of x.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: two EmbeddingQueues made with ``labels=True``, of rows like those of y and of rows
        like those of x: additional positives and negatives of the other side.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: row i of x and row j of y with equal ones are no pair for j != i,
        neither positive nor negative, nor is a row with a stored column of its id, in queues made
        with ``ids=True``.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Yang et al., Unified Contrastive Learning in Image-Text-Label Space, 2022 (UniCL);
    Cappellazzo et al., Continual Contrastive Spoken Language Understanding, 2024.

    The module with the same options: :class:`contrastloss.CrossSupConLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "ignore_index": ignore_index,
        "return_stats": return_stats,
    }
    return evaluate("cross_supcon", (x, y, labels), named, options)


@overload
def dcl(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    weight: float | None = None,
    detach_weight: bool = True,
) -> Tensor: ...
@overload
def dcl(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    weight: float | None = None,
    detach_weight: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def dcl(
    x: Tensor,
    y: Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    weight: float | None = None,
    detach_weight: bool = True,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""DCL: NT-Xent without the positive in the denominator.

    :math:`\ell_i = -w_i s_{ip} + \log \sum_{j \notin \{i, p\}} e^{s_{ij}},
    \qquad s_{ij} = \cos(z_i, z_j) / \tau`

    for every row i of ``z = [x; y]``, where p is the other view of its instance.

    Args:
        temperature: tau, positive. Default: 0.1.
        weight: None for :math:`w = 1` (DCL), or a positive number sigma for DCLW,
            :math:`w_i = 2 - N \operatorname{softmax}_i(\cos(x_i, y_i) / \sigma)` (paper: 0.5).
            Default: None.
        detach_weight: whether w is a constant. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (2N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Yeh et al., Decoupled Contrastive Learning, 2022.

    The module with the same options: :class:`contrastloss.DCLLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "weight": weight,
        "detach_weight": detach_weight,
        "return_stats": return_stats,
    }
    return evaluate("dcl", (x, y), named, options)


def diff_sort(
    x: Tensor,
    target: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    steepness: float | Tensor = 10.0,
    network: str = "odd_even",
    distribution: str = "cauchy",
    art_lambda: float = 0.25,
) -> Tensor:
    r"""Ranking loss: cross entropy between a relaxed sorting of scores and the order of targets.

    :math:`\ell = -\frac1n \sum_i \log \sum_{r \in R_i} P_{ir}`

    where :math:`P_{ir}` is the mass that a relaxed sorting network moves from score i to rank r,
    and :math:`R_i` holds the rank of target i; equal targets share all of their ranks. This is the
    cross entropy between P and the permutation matrix of the targets. The published code also adds
    the terms for the zeros of that matrix. Memory is O(n^2) per row, for P.

    Args:
        steepness: steepness of the comparators, positive. Default: 10.
        network: ``'odd_even'`` or ``'bitonic'``. Default: ``'odd_even'``.
        distribution: as in :func:`contrastloss.sorting.sort`. Default: ``'cauchy'``.
        art_lambda: exponent in ``'logistic_phi'``. Default: 0.25.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        x: (..., n), scores.
        target: (..., n), real numbers whose order the scores should have.
        Loss: (), or (...) for ``reduction='none'``.

    Source: Petersen et al., Differentiable Sorting Networks for Scalable Sorting and Ranking
    Supervision, 2021.

    The module with the same options: :class:`contrastloss.DiffSortLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "steepness": steepness,
        "network": network,
        "distribution": distribution,
        "art_lambda": art_lambda,
    }
    return evaluate("diff_sort", (x, target), named, options)


def dino(
    student: Tensor,
    teacher: Tensor,
    prototypes: Tensor,
    *,
    teacher_prototypes: Tensor | None = None,
    center: Tensor | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    teacher_temperature: float | Tensor = 0.04,
) -> Tensor:
    r"""DINO: the student's softmax over prototypes matches the teacher's, sharpened and centred.

    With rows s and prototypes c of the student, rows t and prototypes c' of the teacher, and a
    centre m,

    :math:`\ell_i = -\sum_k p_{ik}
    \log \frac{e^{\cos(s_i, c_k) / \tau}}{\sum_l e^{\cos(s_i, c_l) / \tau}}, \qquad
    p_{ik} = \frac{e^{(\cos(t_i, c'_k) - m_k) / \tau_t}}
    {\sum_l e^{(\cos(t_i, c'_l) - m_l) / \tau_t}}`

    The teacher's softmax is a constant. The centre, a moving average of :meth:`center` over
    batches, keeps rows from collapsing to one prototype. For several crops, sum over pairs of
    views. Rows may be patches, as in iBOT.

    Args:
        temperature: tau, the student's temperature, positive. Default: 0.1.
        teacher_temperature: tau_t, positive, a float or a 0-dim tensor. Default: 0.04.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        student, teacher: (N, D).
        prototypes: (K, D).
        teacher_prototypes: (K, D); None uses the student's, without gradient.
        center: (K,); None for 0.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021.

    The module with the same options: :class:`contrastloss.DINOLoss`.
    """
    named = {
        "teacher_prototypes": teacher_prototypes,
        "center": center,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "teacher_temperature": teacher_temperature,
    }
    return evaluate("dino", (student, teacher, prototypes), named, options)


@overload
def focal_contrastive(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    divisor: Literal["positives", "batch"] = "positives",
) -> Tensor: ...
@overload
def focal_contrastive(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    divisor: Literal["positives", "batch"] = "positives",
) -> tuple[Tensor, dict[str, Tensor]]: ...
def focal_contrastive(
    z: Tensor,
    labels: Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    divisor: Literal["positives", "batch"] = "positives",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""SupCon with focal weights: the less likely a positive is, the more it counts.

    With :math:`P_i` the other rows with row i's label and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    :math:`\ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i} (1 - p_{ip}) \log p_{ip},
    \qquad p_{ij} = \frac{e^{s_{ij}}}{\sum_{k \ne i} e^{s_{ik}}}.`

    The weight :math:`1 - p_{ip}` is differentiated. A row without a positive has loss 0, and
    ``reduction='mean'`` averages over the other rows.

    Args:
        temperature: tau, positive. Default: 0.07.
        divisor: ``'positives'`` divides a row's sum by :math:`|P_i|` (the paper), ``'batch'`` by N
            (the authors' code). Default: ``'positives'``.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D).
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue made with ``labels=True``; its columns are additional positives
        and negatives, without gradient.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``. Of V views, only
        stored and given columns are left out.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Zhang et al., Unleashing the Power of Contrastive Self-Supervised Visual Models via
    Contrast-Regularized Fine-Tuning, 2021 (Core-tuning, whose mixed samples are made outside).

    The module with the same options: :class:`contrastloss.FocalContrastiveLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "ignore_index": ignore_index,
        "divisor": divisor,
        "return_stats": return_stats,
    }
    return evaluate("focal_contrastive", (z, labels), named, options)


@overload
def gist(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    guide: tuple[Tensor, ...] | Literal["self"] | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.01,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    margin: float = 0.0,
    margin_strategy: Literal["absolute", "relative"] = "absolute",
    contrast_anchors: bool = True,
    contrast_positives: bool = True,
) -> Tensor: ...
@overload
def gist(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[True],
    guide: tuple[Tensor, ...] | Literal["self"] | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.01,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    margin: float = 0.0,
    margin_strategy: Literal["absolute", "relative"] = "absolute",
    contrast_anchors: bool = True,
    contrast_positives: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def gist(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    guide: tuple[Tensor, ...] | Literal["self"] | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.01,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    margin: float = 0.0,
    margin_strategy: Literal["absolute", "relative"] = "absolute",
    contrast_anchors: bool = True,
    contrast_positives: bool = True,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""InfoNCE that drops negatives which a guide model considers positives.

    With g the cosines of the guide's embeddings, and negatives both across and within the sides,

    :math:`\ell_i = -\log \frac{e^{s(x_i, y_i)}}{e^{s(x_i, y_i)} +
    \sum_{j \in A_i} e^{s(x_i, y_j)} + \sum_{j \in B_i} e^{s(x_i, x_j)} +
    \sum_{j \in C_i} e^{s(y_i, y_j)}}`

    where :math:`j \ne i` is in :math:`A_i, B_i, C_i` if :math:`g(x_i, y_j)`, :math:`g(x_i, x_j)` or
    :math:`g(y_i, y_j)` is at most :math:`g(x_i, y_i) - \text{margin}` (``'absolute'``) or
    :math:`g(x_i, y_i) - |g(x_i, y_i)| \, \text{margin}` (``'relative'``). Excesses of at most
    :math:`\max(8, \sqrt E)` eps of the guide's dtype are rounding: ties stay negatives, e.g. a
    document that occurs twice. The statistics of ``return_stats`` compare x with y and ignore the
    guide.

    With ``guide='self'``, g are the cosines of x and y themselves, or their products where
    ``normalize=False``, as constants: the masks of
    Qwen3 Embedding are ``GISTLoss(margin=-0.1)(x, y, negatives, guide="self")``.

    Args:
        temperature: tau, positive. Default: 0.01.
        margin: how far below the positive the guide has to score a negative. Default: 0.
        margin_strategy: ``'absolute'`` or ``'relative'``. Default: ``'absolute'``.
        contrast_anchors: whether to include the sum over :math:`B_i`. Default: True.
        contrast_positives: whether to include the sum over :math:`C_i`. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows of x, or (N, K, D), one set per row, or (L, D) with
        offsets: further negatives of the rows of x.
        guide: two tensors (N, E), the guide's embeddings of x and y, which get no gradient, and
        with negatives a third one, (K, E), (N, K, E) or (L, E); or ``'self'``, which takes no
        second product; None keeps all negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by N. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Solatorio, GISTEmbed: Guided In-sample Selection of Training Negatives, 2024; margins:
    sentence-transformers; 'self': Zhang et al., Qwen3 Embedding: Advancing Text Embedding and
    Reranking Through Foundation Models, 2025.

    The module with the same options: :class:`contrastloss.GISTLoss`.
    """
    named = {
        "guide": guide,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "margin": margin,
        "margin_strategy": margin_strategy,
        "contrast_anchors": contrast_anchors,
        "contrast_positives": contrast_positives,
        "return_stats": return_stats,
    }
    return evaluate("gist", (x, y, negatives), named, options)


def groco(
    views: Tensor | Sequence[Tensor],
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    steepness: float | Tensor = 1.0,
    network: str = "odd_even",
    distribution: str = "cauchy",
    art_lambda: float = 0.25,
    topk_neg: int = 10,
    stop_grad: bool = True,
    positive_views: int | None = None,
) -> Tensor:
    r"""GroCo: all positives of an anchor should outrank its hardest negatives.

    Every image of every view is an anchor. Its negatives are the ``topk_neg`` most similar other
    images of its own view; its positives are the same image in the other views. Their cosines, all
    negatives ascending and then all positives ascending, go through a relaxed sorting network. With
    :math:`P_{ir}` the mass of candidate i at rank r, K negatives and n candidates,

    :math:`\ell = -\frac1n \Bigl(\sum_{i > K} \log p_i + \sum_{i \le K} \log(1 - p_i)\Bigr),
    \qquad p_i = \sum_{r > K} P_{ir},`

    so that a positive may have any of the n - K highest ranks. This is the binary cross entropy of
    the positive ranks; that of the negative ranks is equal, since the rows of P sum to 1. P is not
    materialised; memory is O(V N n). Cauchy masses have long tails: even cosines of -1 for all
    negatives and 1 for the positive leave a loss of 0.147 with 10 negatives at steepness 1, and
    0.015 at steepness 10.

    Args:
        topk_neg: number of negatives per anchor, at least 1; at most N - 1 are used. Default: 10.
        steepness: steepness of the comparators, positive. Default: 1.
        network: ``'odd_even'`` or ``'bitonic'``. Default: ``'odd_even'``.
        distribution: as in :func:`contrastloss.sorting.sort`. Default: ``'cauchy'``.
        art_lambda: exponent in ``'logistic_phi'``. Default: 0.25.
        stop_grad: whether gradients flow to anchors only, not to positives and negatives.
            Default: True.
        positive_views: number of leading views that are positives, at least 2 (the large crops of
            multi-crop; its small crops are anchors only). None for all. Default: None.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        views: (V, N, D), or a sequence of V tensors (N, D), V >= 2.
        Loss: (), or (V, N) for ``reduction='none'``. For N = 1 it is 0.

    Source: Shvetsova et al., Learning by Sorting: Self-supervised Learning with Group Ordering
    Constraints, 2023.

    The module with the same options: :class:`contrastloss.GroCoLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "steepness": steepness,
        "network": network,
        "distribution": distribution,
        "art_lambda": art_lambda,
        "topk_neg": topk_neg,
        "stop_grad": stop_grad,
        "positive_views": positive_views,
    }
    return evaluate("groco", (views,), named, options)


@overload
def hard_negative(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    detach_weights: bool = False,
) -> Tensor: ...
@overload
def hard_negative(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    detach_weights: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def hard_negative(
    x: Tensor,
    y: Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    detach_weights: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""NT-Xent with importance-weighted hard negatives, debiased by the class prior (HCL).

    Negatives are weighted by :math:`e^{\beta s}`. With M = 2N - 2 negatives per row of
    ``z = [x; y]`` and P the positive's score,

    :math:`\begin{aligned}
    \log G_i &= \log M + \log \sum_j e^{(1 + \beta) s_{ij}} - \log \sum_j e^{\beta s_{ij}} \\
    N_i &= \max\Bigl(\frac{G_i - \tau^+ M e^{P_i}}{1 - \tau^+},\; M e^{-1/\tau}\Bigr) \\
    \ell_i &= -\log \frac{e^{P_i}}{e^{P_i} + N_i}
    \end{aligned}`

    All terms are computed in logarithms. ``beta=0`` is the debiased contrastive loss, ``beta=0,
    tau_plus=0`` is NT-Xent.

    Args:
        temperature: tau, positive. Default: 0.5.
        beta: concentration on hard negatives, >= 0. Default: 1.
        tau_plus: prior probability that a negative has the anchor's class, in [0, 1). Default: 0.1.
        detach_weights: whether the weights :math:`e^{\beta s}` are constants; False differentiates
            them, as the authors' code does. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (2N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Robinson et al., Contrastive Learning with Hard Negative Samples, 2021; Chuang et al.,
    Debiased Contrastive Learning, 2020.

    The module with the same options: :class:`contrastloss.HardNegativeLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "beta": beta,
        "tau_plus": tau_plus,
        "detach_weights": detach_weights,
        "return_stats": return_stats,
    }
    return evaluate("hard_negative", (x, y), named, options)


@overload
def hard_negative_clip(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    detach_weights: bool = False,
) -> Tensor: ...
@overload
def hard_negative_clip(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[True],
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    detach_weights: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def hard_negative_clip(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    beta: float = 1.0,
    tau_plus: float = 0.1,
    detach_weights: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""CLIP with importance-weighted hard negatives, debiased by the class prior.

    The negatives of row i, the M = N - 1 other rows of the other modality, are weighted by
    :math:`e^{\beta s}`. With :math:`P_i = s_{ii}`,

    :math:`\begin{aligned}
    \log G_i &= \log M + \log \sum_{j \ne i} e^{(1 + \beta) s_{ij}} -
    \log \sum_{j \ne i} e^{\beta s_{ij}} \\
    N_i &= \max\Bigl(\frac{G_i - \tau^+ M e^{P_i}}{1 - \tau^+},\; M e^{-1/\tau}\Bigr) \\
    \ell_i &= \tfrac12 \log\bigl(1 + N_i e^{-P_i}\bigr) +
    \tfrac12 \log\bigl(1 + N'_i e^{-P_i}\bigr)
    \end{aligned}`

    where :math:`N'` is N computed from the scores :math:`s_{ji}`. ``beta=0, tau_plus=0`` is CLIP.

    Args:
        temperature: tau, positive. Default: 0.5.
        beta: concentration on hard negatives, >= 0. Default: 1.
        tau_plus: prior probability that a negative has the anchor's class, in [0, 1). Default: 0.1.
        detach_weights: whether the weights :math:`e^{\beta s}` are constants. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows of x, or (N, K, D), one set per row, or (L, D) with
        offsets: further negatives of the rows of x.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: two EmbeddingQueues, of columns like those of y and of rows like those of x:
        additional negatives of the other side.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Choi et al., Multimodal Contrastive Learning with Hard Negative Sampling for Human
    Activity Recognition, 2023; Robinson et al., Contrastive Learning with Hard Negative Samples,
    2021.

    The module with the same options: :class:`contrastloss.HardNegativeCLIPLoss`.
    """
    named = {
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "beta": beta,
        "tau_plus": tau_plus,
        "detach_weights": detach_weights,
        "return_stats": return_stats,
    }
    return evaluate("hard_negative_clip", (x, y, negatives), named, options)


def hierarchical_contrastive(
    x: Tensor,
    y: Tensor,
    *,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = False,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    alpha: float = 0.5,
    return_stats: bool = False,
) -> Tensor:
    r"""TS2Vec: NT-Xent across series and across time steps, averaged over temporal scales.

    With ``NT-Xent`` over both views of all series at one time step (instance), and over both views
    of one series at all time steps (temporal),

    :math:`\ell_i = \frac1L \sum_{k=0}^{L-1} \left(\alpha\, \text{instance}_i(x^k, y^k) +
    (1 - \alpha)\, \text{temporal}_i(x^k, y^k)\right)`

    where both terms are means over time steps and both views, :math:`x^0 = x`, and
    :math:`x^{k+1}` is the maximum over pairs of neighbouring time steps of :math:`x^k` (an odd last
    step is dropped), until one time step is left. There the temporal term is 0.

    Args:
        alpha: weight of the instance term, from 0 to 1. Default: 0.5.
        temperature: divides the scores, positive. Default: 1.
        normalize: False uses dot products, True cosines of the pooled vectors. Default: False.
        group: the instance term is over the series of all ranks, which are always gathered,
            whatever the strategy. T is the same on all ranks.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (B, T, D), two views of B series.
        Loss: (), or (B,) for ``reduction='none'``. For B = 1 the instance term is 0.

    Source: Yue et al., TS2Vec: Towards Universal Representation of Time Series, 2022.

    The module with the same options: :class:`contrastloss.HierarchicalContrastiveLoss`.
    """
    named = {
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "alpha": alpha,
        "return_stats": return_stats,
    }
    return evaluate("hierarchical_contrastive", (x, y), named, options)


@overload
def info_nce(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    positives: Any = None,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    memory: Memory = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    label_smoothing: float = 0.0,
    variant: Literal["out", "in"] = "out",
    top_k: int | None = None,
    hardness: float = 0.0,
    in_batch_negatives: bool = True,
    gather_negatives: bool = True,
) -> Tensor: ...
@overload
def info_nce(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[True],
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    positives: Any = None,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    memory: Memory = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    label_smoothing: float = 0.0,
    variant: Literal["out", "in"] = "out",
    top_k: int | None = None,
    hardness: float = 0.0,
    in_batch_negatives: bool = True,
    gather_negatives: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def info_nce(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    positives: Any = None,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    memory: Memory = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    label_smoothing: float = 0.0,
    variant: Literal["out", "in"] = "out",
    top_k: int | None = None,
    hardness: float = 0.0,
    in_batch_negatives: bool = True,
    gather_negatives: bool = True,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""InfoNCE: row i of y is the positive of row i of x, against the other rows of y and further
    negatives n.

    :math:`\ell_i = -\log \frac{e^{s_{ii}}}
    {e^{s_{ii}} + \sum_{j \ne i} e^{s_{ij}} + \sum_k e^{\cos(x_i, n_k) / \tau}},
    \qquad s_{ij} = \cos(x_i, y_j) / \tau`

    With several positives :math:`P_i`, of ``positives`` or ``x_ids`` and ``y_ids``, the denominator
    :math:`Z_i` has all rows of y, and

    :math:`\text{out: } \ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i} \log \frac{e^{s_{ip}}}{Z_i},
    \qquad
    \text{in: } \ell_i = -\log \sum_{p \in P_i} \frac{e^{s_{ip}}}{Z_i}.`

    A row without a positive then has loss 0 and is not counted.

    With ``top_k`` or ``hardness``, the statistic ``lse`` covers the positive and the selected,
    weighted negatives.

    Args:
        temperature: tau, positive. Default: 0.1.
        top_k: use only the ``top_k`` negatives with the largest scores of each row, at least 1;
            None uses all. Default: None.
        hardness: alpha >= 0. Negatives are weighted by :math:`e^{\alpha \cos(x_i, y_j)}`, a
            constant without gradient (``hardness_strength`` in sentence-transformers); 0 gives
            equal weights. Default: 0.
        variant: ``'out'``, the mean of the logarithms of several positives, or ``'in'``, the
            logarithm of their sum (MIL-NCE). Default: ``'out'``.
        in_batch_negatives: whether the other rows of y are negatives; False leaves the given and
            the stored ones. Default: True.
        gather_negatives: whether rows meet the shared negatives of all ranks of a group; False if
            every rank gives the same ones. Default: True.
        label_smoothing: epsilon, from 0 to 1. The loss is :math:`(1 - \epsilon)\, \ell_i` plus
            epsilon times the mean of :math:`-\log p_{ij}` over the columns j of the row, p its
            softmax, as :func:`torch.nn.functional.cross_entropy` has it; not together with
            ``top_k`` or ``hardness``. Default: 0.
        group: not supported together with ``top_k``.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (M, D) and (N, D); M = N without ``positives``, or ``x_ids`` and ``y_ids``.
        negatives: (K, D), shared by all rows, or (M, K, D), one set per row, or (L, D) with
        offsets.
        negatives_mask: (K,) or (M, K), bool, False for no negative; None: all are there.
        negatives_offsets: (M + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        positives: the places in y of the positives, where row i's is not row i of y, which may then
        have another number of rows: (M,), -1 for none; (P, 2), pairs of places in x and y, where a
        pair that occurs twice counts twice; or a tuple of offsets, (M + 1,), and places, (P,), of
        which row i's are those from offset i to before offset i + 1. Pairs and offsets do not go
        with ``return_stats``.
        x_ids, y_ids: (M,) and (N,), integers, in place of ``positives``: rows with equal ones are
        positives, also on other ranks. Columns with a row's id are left out of given ones with
        ``negatives_ids`` and of queues made with ``ids=True``; all others are negatives.
        log_q: (N,), subtracted from the scores of y's rows, also of positives: the log of the
        probability q that a row is in a batch, finite; None for 0. Not with ``hardness``.
        row_weight: (M,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (M,) for ``reduction='none'``. A row with one positive and no negatives has
        loss 0.

    Source: van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018;
    hardness: Lan et al., LLaVE, 2025; log_q: Yi et al., Sampling-Bias-Corrected Neural Modeling for
    Large Corpus Item Recommendations, 2019; 'in': Miech et al., End-to-End Learning of Visual
    Representations from Uncurated Instructional Videos, 2020.

    The module with the same options: :class:`contrastloss.InfoNCELoss`.
    """
    named = {
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "negatives_log_q": negatives_log_q,
        "positives": positives,
        "x_ids": x_ids,
        "y_ids": y_ids,
        "ids": ids,
        "row_weight": row_weight,
        "log_q": log_q,
        "memory": memory,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "label_smoothing": label_smoothing,
        "variant": variant,
        "top_k": top_k,
        "hardness": hardness,
        "in_batch_negatives": in_batch_negatives,
        "gather_negatives": gather_negatives,
        "return_stats": return_stats,
    }
    return evaluate("info_nce", (x, y, negatives), named, options)


def jepa(
    prediction: Tensor,
    target: Tensor,
    context: Tensor,
    occupied: Tensor,
    hidden: Tensor | None = None,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    occupied_weight: float = 0.75,
    gamma: float = 0.0625,
    eps: float = 0.0001,
    stop_gradient: bool = True,
    normalize: bool = False,
) -> Tensor:
    r"""AD-L-JEPA: cosine regression of hidden map cells, with variance regularisation.

    With O the hidden occupied cells, E the hidden empty cells, and V the visible occupied cells,

    :math:`\alpha \Bigl[w\, \operatorname{mean}_O (1 - \cos(p_c, t_c)) +
    (1 - w) \operatorname{mean}_E (1 - \cos(p_c, t_c))\Bigr] +
    \beta \bigl[v(\text{context}_V) + v(\text{prediction}_O)\bigr]`

    :math:`v(z) = \operatorname{mean}_d \Bigl[\gamma -
    \sqrt{\operatorname{Var}(z_d) + \epsilon}\Bigr]_+`

    with unbiased variances over the cells of a map, where v is averaged over maps.

    Args:
        alpha: weight of the prediction, positive. Default: 1.
        beta: weight of the variance terms, positive; 1 for KITTI, 10 for Waymo. Default: 1.
        occupied_weight: w, from 0 to 1. Default: 0.75.
        gamma: minimum standard deviation of a feature, positive. Default: 1/16.
        eps: added to variances, positive. Default: 1e-4.
        stop_gradient: whether the target is a constant. In the released code it is not: its empty
            cells are a token that learns. Default: True.
        normalize: whether variances are those of unit vectors, as in the released code, whose maps
            are normalised over features. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        prediction, target: (P, D) or (B, P, D), P cells of B maps.
        context: (P, C) or (B, P, C).
        occupied: (P,) or (B, P), bool.
        hidden: same shape as occupied, bool, marks the masked cells. None: every cell counts as
        both hidden and visible.
        Loss: (). A mean over no cells is 0, as is v. The variance of a single cell is 0.

    Source: Zhu et al., AD-L-JEPA: Self-Supervised Spatial World Models with Joint Embedding
    Predictive Architecture for Autonomous Driving with LiDAR Data, 2025.

    The module with the same options: :class:`contrastloss.JEPALoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "alpha": alpha,
        "beta": beta,
        "occupied_weight": occupied_weight,
        "gamma": gamma,
        "eps": eps,
        "stop_gradient": stop_gradient,
        "normalize": normalize,
    }
    return evaluate("jepa", (prediction, target, context, occupied, hidden), named, options)


def koleo(
    z: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    eps: float = 1e-08,
    normalize: bool = True,
) -> Tensor:
    r"""KoLeo: pushes each row away from its nearest neighbour; estimates the negative entropy.

    :math:`\ell_i = -\log\bigl(\min_{j \ne i} |z_i - z_j| + \varepsilon\bigr)`

    The neighbour is the row with the largest score, to the precision of the scores. Its distance is
    computed from the two rows, not from the score, which loses all digits for near duplicates. The
    gradient of a row also flows to its neighbour.

    Args:
        eps: the distance assigned to exact duplicates, which get no gradient; positive.
            Default: 1e-8.
        normalize: whether z is normalised; a zero vector is then orthogonal to all others.
            Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        z: (N, D).
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Sablayrolles et al., Spreading Vectors for Similarity Search, 2019; eps: Oquab et al.,
    DINOv2: Learning Robust Visual Features without Supervision, 2023.

    The module with the same options: :class:`contrastloss.KoLeoLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "eps": eps,
        "normalize": normalize,
    }
    return evaluate("koleo", (z,), named, options)


@overload
def latent_positive(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    generated: Tensor,
    valid: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    weight: float = 1.0,
    form: Literal["alignment", "info_nce"] = "alignment",
) -> Tensor: ...
@overload
def latent_positive(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    generated: Tensor,
    valid: Tensor | None = None,
    *,
    return_stats: Literal[True],
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    weight: float = 1.0,
    form: Literal["alignment", "info_nce"] = "alignment",
) -> tuple[Tensor, dict[str, Tensor]]: ...
def latent_positive(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    generated: Tensor,
    valid: Tensor | None = None,
    *,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    weight: float = 1.0,
    form: Literal["alignment", "info_nce"] = "alignment",
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""MoCo plus a term that pulls the query towards positives generated from its key.

    With the positives :math:`g \in G_i` of :func:`contrastloss.mixing.latent_positives`,

    :math:`\ell_i = \text{MoCo}_i(q, k) + \text{weight}\; \frac{N}{\sum_j |G_j|} \sum_{g \in G_i}
    \begin{cases} -s(q_i, g) & \text{alignment} \\
    \text{MoCo}_i(q, g) & \text{InfoNCE} \end{cases}`

    where MoCo takes its negatives from the queue. ``reduction='mean'`` is the mean of MoCo plus
    ``weight`` times the mean over all generated positives of the batch. A gradient flows to
    generated positives that require one; those of a generator are usually constants.

    Args:
        weight: weight of the generated positives; the released script of HaLP has 2. Default: 1.
        form: the term for generated positives, ``'alignment'`` (HaLP) or ``'info_nce'``. Default:
            ``'alignment'``.
        temperature: tau, positive. Default: 0.07.
        group: distributes the queries over ranks, for both means and their gradient. The queue has
            to be the same on all ranks; without ``valid``, G too.
        return_stats: for the key as the positive.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.

    Shape:
        query, key: (N, D).
        queue: an EmbeddingQueue, which gets no gradient, or a tensor (K, D).
        generated: (N, G, D).
        valid: (N, G), bool, marks the generated positives that count; None for all. A row without
        any has the MoCo term only.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Shah et al., HaLP: Hallucinating Latent Positives for Skeleton-based Self-Supervised
    Learning of Actions, 2023.

    The module with the same options: :class:`contrastloss.LatentPositiveLoss`.
    """
    named = {
        "ids": ids,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "weight": weight,
        "form": form,
        "return_stats": return_stats,
    }
    return evaluate("latent_positive", (query, key, queue, generated, valid), named, options)


@overload
def margin_ranking(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    margin: float = 0.6,
    symmetric: bool = False,
    in_batch_negatives: bool = True,
) -> Tensor: ...
@overload
def margin_ranking(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[True],
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    margin: float = 0.6,
    symmetric: bool = False,
    in_batch_negatives: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def margin_ranking(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    margin: float = 0.6,
    symmetric: bool = False,
    in_batch_negatives: bool = True,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Margin ranking: each positive should outscore the row's negatives by a margin.

    :math:`\ell_i = \frac{1}{N - 1} \sum_{j \ne i} [m - s_{ii} + s_{ij}]_+,
    \qquad s_{ij} = \cos(x_i, y_j) / \tau`

    Args:
        temperature: tau, positive. Default: 1.
        margin: m. Default: 0.6.
        symmetric: average with the loss over columns, :math:`[m - s_{ii} + s_{ji}]_+`. Not
            supported together with ``negatives``. Default: False.
        in_batch_negatives: whether the other rows of y are negatives; False leaves the given and
            the stored ones. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per row, or (L, D) with
        offsets; the mean includes them.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: an EmbeddingQueue of additional negatives, which the mean includes; not supported
        together with ``symmetric``.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``. A row without negatives has loss 0.

    Source: Kiros et al., Unifying Visual-Semantic Embeddings with Multimodal Neural Language
    Models, 2014; Carvalho et al., Self-Supervised Contrastive Learning for Robust Audio-Sheet Music
    Retrieval Systems, 2023.

    The module with the same options: :class:`contrastloss.MarginRankingLoss`.
    """
    named = {
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "margin": margin,
        "symmetric": symmetric,
        "in_batch_negatives": in_batch_negatives,
        "return_stats": return_stats,
    }
    return evaluate("margin_ranking", (x, y, negatives), named, options)


@overload
def meow(
    x: Tensor,
    y: Tensor,
    clusters: Tensor,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> Tensor: ...
@overload
def meow(
    x: Tensor,
    y: Tensor,
    clusters: Tensor,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def meow(
    x: Tensor,
    y: Tensor,
    clusters: Tensor,
    *,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""MEOW: negatives are weighted by the number of clusterings that separate the pair.

    :math:`\ell_i = -\log \frac{e^{s_{ii}}}{\sum_j w_{ij} e^{s_{ij}}},
    \qquad s_{ij} = \cos(x_i, y_j) / \tau, \quad w_{ij} = \#\{t : c_{it} \ne c_{jt}\}`

    Since :math:`w_{ii} = 0`, the positive is not in the denominator, and the loss can be negative.
    A row that shares its clusters with all others in every clustering has loss 0 and is counted in
    the mean.

    Args:
        temperature: tau, positive. Default: 0.5.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        clusters: (N, T), integers, for T <= 16 clusterings; with a group, those of this rank's
        rows.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Yu et al., Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples, 2022. The paper adds ProtoNCE.

    The module with the same options: :class:`contrastloss.MEOWLoss`.
    """
    named = {
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("meow", (x, y, clusters), named, options)


def mil_contrastive(
    x: Tensor,
    y: Tensor,
    scores_x: Tensor,
    scores_y: Tensor,
    labels: Tensor,
    lengths: Tensor | None = None,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    divisor: int = 16,
    released: bool = False,
) -> Tensor:
    r"""Aligns the top-scoring snippets of positive bags across two modalities, against normal ones.

    In bag b of length :math:`T_b`, each modality selects its :math:`k_b = \lfloor T_b /
    \text{divisor} \rfloor + 1` snippets with the highest scores and its :math:`k_b` snippets with
    the lowest scores. With :math:`\bar x_b`, :math:`\bar y_b` the means of the highest-scoring
    snippets, the loss of a positive bag is

    :math:`\ell_b = \sum_{V \in \{\text{background}, \text{normal}\}}
    -\log \frac{e^{s(\bar x_b, \bar y_b)}}
    {e^{s(\bar x_b, \bar y_b)} + \sum_{v \in V_y} e^{s(\bar x_b, v)}}
    -\log \frac{e^{s(\bar y_b, \bar x_b)}}
    {e^{s(\bar y_b, \bar x_b)} + \sum_{v \in V_x} e^{s(\bar y_b, v)}}`

    where :math:`s = \cos / \tau`. The background is the lowest-scoring snippets of all bags; the
    normal set is the highest-scoring snippets of the negative bags. A term without negatives is 0.
    Every positive bag counts once; with ``released=True``, :math:`k_b` times.

    Args:
        temperature: tau, positive. Default: 0.1.
        divisor: determines :math:`k_b`, at least 1. Default: 16.
        released: as the released code has it, which repeats a bag's query :math:`k_b` times, so
            that longer bags count more, and whose loss is 0 if no bag is negative. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        x, y: (B, T, D), the snippets in both modalities.
        scores_x, scores_y: (B, T), the scores of each modality, which get no gradient.
        labels: (B,), bool or integers; nonzero for positive bags.
        lengths: (B,), integers; later snippets are padding. None: all have length T.
        Loss: (), or (B,) for ``reduction='none'``. Negative and empty bags have loss 0 and are not
        counted in the mean.

    Source: Yu et al., Modality-Aware Contrastive Instance Learning with Self-Distillation for
    Weakly-Supervised Audio-Visual Violence Detection, 2022.

    The module with the same options: :class:`contrastloss.MILContrastiveLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "divisor": divisor,
        "released": released,
    }
    return evaluate("mil_contrastive", (x, y, scores_x, scores_y, labels, lengths), named, options)


@overload
def mochi(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.2,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    hardest: int = 1024,
    mixed: int = 1024,
    mixed_with_query: int = 128,
) -> Tensor: ...
@overload
def mochi(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.2,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    hardest: int = 1024,
    mixed: int = 1024,
    mixed_with_query: int = 128,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def mochi(
    query: Tensor,
    key: Tensor,
    queue: EmbeddingQueue | Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.2,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    hardest: int = 1024,
    mixed: int = 1024,
    mixed_with_query: int = 128,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""MoCHi: MoCo with additional negatives, mixed for each query from its hardest negatives.

    With :math:`n, n'` drawn from the ``hardest`` stored keys nearest to the query q, and
    :math:`\alpha \sim U(0, 1)`, :math:`\beta \sim U(0, \tfrac12)`,

    :math:`h = \frac{\alpha n + (1 - \alpha) n'}{\|\alpha n + (1 - \alpha) n'\|}
    \quad\text{(mixed of them)}, \qquad
    h' = \frac{\beta q + (1 - \beta) n}{\|\beta q + (1 - \beta) n\|}
    \quad\text{(mixed\_with\_query)}`

    are added to the denominator of :class:`~contrastloss.MoCoLoss`. Embeddings are normalised
    first, unless ``normalize=False``. Mixtures are constants: no gradient flows through h and h'
    to q, to the weights, or to the mixed keys. Mixtures are never materialised, since their scores
    follow from those of their parts. Large batches are processed some rows at a time, and the
    backward pass computes these parts again. Keys and weights are drawn from torch's global
    generator of the device. The statistics of ``return_stats`` cover the stored keys only.

    Args:
        temperature: tau, positive. Default: 0.2.
        hardest: number of stored keys to mix, those with the largest scores; at least 1.
            Default: 1024.
        mixed: number of mixtures of two keys per query; 0 for none. Default: 1024.
        mixed_with_query: number of mixtures of a key with the query; 0 for none. Default: 128.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: distributes the queries over ranks, for the mean and its gradient.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        Same as :class:`~contrastloss.MoCoLoss`.

    Source: Kalantidis et al., Hard Negative Mixing for Contrastive Learning, 2020.

    The module with the same options: :class:`contrastloss.MoCHiLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "negatives_log_q": negatives_log_q,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "hardest": hardest,
        "mixed": mixed,
        "mixed_with_query": mixed_with_query,
        "return_stats": return_stats,
    }
    return evaluate("mochi", (query, key, queue), named, options)


def momentum_cacr(
    queries: Tensor,
    keys: Tensor,
    *,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    cost: Literal["rbf", "euclidean"] = "rbf",
    return_stats: bool = False,
) -> Tensor:
    r"""CACR of several queries and a key of each instance: far queries are attracted the most.

    With queries :math:`q_{iv}`, keys :math:`k_i`, :math:`s_{iv,j} = \cos(q_{iv}, k_j) / \tau` and
    the weights

    :math:`w_{iv} = \frac{e^{|q_{iv} - k_i|^2 / \tau}}{\sum_u e^{|q_{iu} - k_i|^2 / \tau}}`

    of unit vectors, which are constants,

    :math:`\begin{aligned}
    \text{rbf: } \ell_i &= -\sum_v w_{iv} \log \frac{e^{s_{iv,i}}}{\sum_j e^{s_{iv,j}}} \\
    \text{euclidean: } \ell_i &= \sum_v w_{iv} \Bigl[ d_{iv,i} - \sum_{j \ne i}
    \frac{e^{-d_{iv,j} / \tau}}{\sum_{l \ne i} e^{-d_{iv,l} / \tau}} d_{iv,j} \Bigr],
    \qquad d = 1 - \cos
    \end{aligned}`

    where the softmax of the repulsion is constant, too. The authors' code multiplies the first by 2
    tau, and sums the second over the rows.

    Args:
        temperature: tau, positive. Default: 1.
        cost: ``'rbf'`` or ``'euclidean'``. Default: ``'rbf'``.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        queries: (N, V, D), those of other crops than the key's.
        keys: (N, D), without gradient. With a group, queries meet those of all ranks.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Zheng et al., Contrastive Attraction and Contrastive Repulsion for Representation
    Learning, 2023: pre-training on ImageNet.

    The module with the same options: :class:`contrastloss.MomentumCACRLoss`.
    """
    named = {
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "cost": cost,
        "return_stats": return_stats,
    }
    return evaluate("momentum_cacr", (queries, keys), named, options)


def multi_modal(
    *embeddings: Tensor,
    logit_scales: Tensor | Sequence[Tensor | float] | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    weights: tuple[float, ...] | None = None,
    directions: Literal["mean", "sum"] = "mean",
    return_stats: bool = False,
) -> Tensor:
    r"""CLIP loss summed over all pairs of several modalities.

    :math:`\ell_i = \sum_{a < b} w_{ab} \sum_l \text{CLIP}_i(x^a_l, x^b_l)`

    over the pairs of modalities, in the order (0, 1), (0, 2), ..., (1, 2), ..., and over layers l
    if embeddings of several layers are given.

    Args:
        weights: w, one number per pair of modalities in that order; None for 1. Pairs with weight 0
            are skipped. Default: None.
        directions: ``'mean'`` of the cross entropies over rows and over columns, as in CLIP, or
            their ``'sum'``, as in AstroM3. Default: ``'mean'``.
        temperature: tau, positive. Default: 0.07.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        embeddings: two or more tensors (N, D), or (L, N, D) for L layers, the latter without group.
        logit_scales: one already exponentiated scale per pair, as numbers, 0-dim tensors or a
        tensor (P,); they override the temperature, as ``logit_scale`` does for all pairs.
        Loss: (), or (N,) for ``reduction='none'``. Layers are summed, and the mean is over N.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    2021; Rizhko and Bloom, AstroM3, 2024; layers: Sun et al., HiCMAE, 2024.

    The module with the same options: :class:`contrastloss.MultiModalLoss`.
    """
    named = {
        "logit_scales": logit_scales,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "weights": weights,
        "directions": directions,
        "return_stats": return_stats,
    }
    return evaluate("multi_modal", (*embeddings,), named, options)


@overload
def multi_similarity(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
) -> Tensor: ...
@overload
def multi_similarity(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def multi_similarity(
    z: Tensor,
    labels: Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Multi-similarity loss: the hardest positives and negatives get the largest weights.

    With :math:`P_i` the other rows with row i's label, :math:`N_i` the rows with other labels, and
    :math:`s_{ij} = \cos(z_i, z_j)`,

    :math:`\ell_i =
    \frac1\alpha \log\Bigl(1 + \sum_{p \in P_i} e^{-\alpha (s_{ip} - \lambda)}\Bigr) +
    \frac1\beta \log\Bigl(1 + \sum_{n \in N_i} e^{\beta (s_{in} - \lambda)}\Bigr)`

    over all pairs, as in pytorch-metric-learning without a miner. A term without pairs is 0.

    Args:
        alpha: scale of positive pairs, positive. Default: 2.
        beta: scale of negative pairs, positive. Default: 50.
        base: lambda. Default: 0.5.
        temperature: divides the scores, positive. Default: 1.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D).
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue made with ``labels=True``; its columns are additional positives
        and negatives, without gradient.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``. Of V views, only
        stored and given columns are left out.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Wang et al., Multi-Similarity Loss with General Pair Weighting, 2019.

    The module with the same options: :class:`contrastloss.MultiSimilarityLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "ignore_index": ignore_index,
        "alpha": alpha,
        "beta": beta,
        "base": base,
        "return_stats": return_stats,
    }
    return evaluate("multi_similarity", (z, labels), named, options)


def mv_dhel(
    z: Tensor,
    *,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor:
    r"""MV-DHEL: uniformity within each view, alignment of all views in one term.

    With the views :math:`z_{il}` and :math:`s_{il,jm} = \cos(z_{il}, z_{jm}) / \tau`,

    :math:`\ell_i = \sum_l \log \sum_{j \ne i} e^{s_{il,jl}} -
    \log \sum_{l < m} e^{s_{il,im}}`

    This is a sum of logarithms, since a product of sums would overflow at a low temperature.

    Args:
        temperature: tau, positive. Default: 0.1.
        group: the views of all ranks are always gathered, whatever the strategy.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        z: (N, V, D), V >= 2 views of each instance.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025.

    The module with the same options: :class:`contrastloss.MVDHELLoss`.
    """
    named = {
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("mv_dhel", (z,), named, options)


def mv_info_nce(
    z: Tensor,
    *,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    same_view: bool = False,
    return_stats: bool = False,
) -> Tensor:
    r"""Multi-view InfoNCE: one term per instance, with all of its views as positives.

    With the views :math:`z_{il}` and :math:`s_{il,jm} = \cos(z_{il}, z_{jm}) / \tau`,

    :math:`\ell_i = -\log \frac{\sum_{l \ne m} e^{s_{il,im}}}
    {\sum_{l \ne m} \sum_j e^{s_{il,jm}}}`

    Args:
        temperature: tau, positive. Default: 0.1.
        same_view: whether the denominator includes other instances in the same view, l = m: True
            in the released code, False in the paper. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        z: (N, V, D), V >= 2 views of each instance.
        memory: an EmbeddingQueue of additional negatives for all views.
        ids: (N,), for a queue made with ``ids=True``; columns of the row's own instance are
        ignored.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025.

    The module with the same options: :class:`contrastloss.MVInfoNCELoss`.
    """
    named = {
        "memory": memory,
        "ids": ids,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "same_view": same_view,
        "return_stats": return_stats,
    }
    return evaluate("mv_info_nce", (z,), named, options)


@overload
def nspt(
    h: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[False] = False,
    rehearsal: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    include_own: bool = False,
) -> Tensor: ...
@overload
def nspt(
    h: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[True],
    rehearsal: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    include_own: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def nspt(
    h: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    rehearsal: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    include_own: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""SupCon with positives from the teacher and the denominator from the student.

    With the student's rows h, the teacher's rows t, :math:`P_i` the other rows with row i's label
    and :math:`s(u, v) = \cos(u, v) / \tau`,

    :math:`\ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
    \log \frac{e^{s(h_i, t_p)}}{\sum_{j \ne i} e^{s(h_i, h_j)}}`

    for every anchor i. ``reduction='mean'`` averages over the anchors that have a positive; all
    other rows have loss 0. The denominator does not contain the positives, so the loss can be
    negative. In the statistics of ``return_stats``, negatives are the student's rows with other
    labels.

    Args:
        temperature: tau, positive. Default: 0.1.
        include_own: whether the teacher's row i is a positive of row i; False excludes it, as in
            SupCon. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        h, teacher: (N, D); the teacher gets no gradient.
        labels: (N,), integers.
        rehearsal: (N,), bool, marks the anchors; None for all rows.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Cappellazzo et al., Continual Contrastive Spoken Language Understanding, 2024 (COCONUT:
    the negative-student positive-teacher loss; the anchors are the rehearsed rows).

    The module with the same options: :class:`contrastloss.NSPTLoss`.
    """
    named = {
        "rehearsal": rehearsal,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "include_own": include_own,
        "return_stats": return_stats,
    }
    return evaluate("nspt", (h, teacher, labels), named, options)


@overload
def nt_xent(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> Tensor: ...
@overload
def nt_xent(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def nt_xent(
    x: Tensor,
    y: Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""NT-Xent: normalised temperature-scaled cross entropy over two views of N instances.

    :math:`\ell_i = -\log \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}},
    \qquad s_{ij} = \cos(z_i, z_j) / \tau`

    for every row i of ``z = [x; y]``, where p is the other view of its instance. The mean is over
    2N rows.

    Args:
        temperature: tau, positive. Default: 0.1.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        log_q: (N,), subtracted from the scores with both views of an instance as columns: the
        log of the probability that the instance is in a batch; None for 0.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (2N,) for ``reduction='none'``, x's rows first. For N = 1 it is 0.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual
    Representations, 2020.

    The module with the same options: :class:`contrastloss.NTXentLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "negatives_log_q": negatives_log_q,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "log_q": log_q,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("nt_xent", (x, y), named, options)


def pair_contrastive(
    x: Tensor,
    y: Tensor,
    target: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    variant: Literal["margin", "bce", "ratio"] = "margin",
    distance: Literal["cosine", "euclidean"] = "cosine",
    margin: float = 0.5,
    positive_margin: float = 0.0,
    squared: bool = True,
    temperature: float | Tensor = 1.0,
    bias: float | Tensor = 0.0,
    normalize: bool = True,
    mean_over: Literal["pairs", "active"] = "pairs",
) -> Tensor:
    r"""Contrastive loss on pairs labelled as similar or dissimilar.

    Rows i of x and y are a pair; the target :math:`t_i` is 1 for similar pairs and 0 for dissimilar
    ones.

    :math:`\begin{aligned}
    \text{margin: } \ell_i &= t_i [d_i - m_+]_+^2 + (1 - t_i) [m - d_i]_+^2 \\
    \text{bce: } \ell_i &= -t_i \log \sigma(u_i) - (1 - t_i) \log \sigma(-u_i),
    \qquad u_i = s_i / \tau + b \\
    \text{ratio: } \ell_i &= t_i \log(1 + 1 / s_i) + (1 - t_i) \log(1 + s_i)
    \end{aligned}`

    where d is a distance and s a cosine or dot product, which has to be positive in ratio: it is
    the density ratio of similar and dissimilar pairs. Hadsell's factor 1/2 is
    ``loss_weight=0.5``. The hinges of pytorch-metric-learning are not squared.

    Args:
        variant: ``'margin'``, ``'bce'`` or ``'ratio'``. Default: ``'margin'``.
        distance: distance of the margin variant, ``'cosine'`` for 1 - cos or ``'euclidean'``
            without normalisation. Default: ``'cosine'``.
        margin: m, positive, the minimum distance of dissimilar pairs. Default: 0.5.
        positive_margin: m+ >= 0, the maximum distance of similar pairs without loss. Default: 0.
        squared: whether the hinges are squared. Default: True.
        temperature: tau of the logits, positive; a float, 0-dim tensor or Parameter. Default: 1.
        bias: b of the logits; a float, 0-dim tensor or Parameter. Default: 0.
        normalize: whether s is a cosine, else a dot product. Default: True.
        mean_over: of ``reduction='mean'``, ``'pairs'``; or ``'active'``: the mean over the similar
            pairs with a loss, plus that over the dissimilar ones with a loss, as
            pytorch-metric-learning has it. Default: ``'pairs'``.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        x, y: (N, D).
        target: (N,), bool, integers or floats; soft targets are allowed.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, 2006; ratio:
    Qiu et al., Contrastive UCB, 2022.

    The module with the same options: :class:`contrastloss.PairContrastiveLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "variant": variant,
        "distance": distance,
        "margin": margin,
        "positive_margin": positive_margin,
        "squared": squared,
        "temperature": temperature,
        "bias": bias,
        "normalize": normalize,
        "mean_over": mean_over,
    }
    return evaluate("pair_contrastive", (x, y, target), named, options)


@overload
def supcon(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    variant: Literal["out", "in"] = "out",
    label_smoothing: float = 0.0,
) -> Tensor: ...
@overload
def supcon(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    variant: Literal["out", "in"] = "out",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def supcon(
    z: Tensor,
    labels: Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    variant: Literal["out", "in"] = "out",
    label_smoothing: float = 0.0,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""SupCon: rows with the same label are positives; the softmax is over all other rows.

    With :math:`P_i` the other rows with row i's label and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    :math:`\begin{aligned}
    \text{out: } \ell_i &= -\frac{1}{|P_i|} \sum_{p \in P_i}
    \log \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}} \\
    \text{in: } \ell_i &= -\log \frac{1}{|P_i|} \sum_{p \in P_i}
    \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}}
    \end{aligned}`

    A row without a positive has loss 0, and ``reduction='mean'`` averages over the other rows. If
    no row has a positive, the loss is 0 with zero gradient.

    Args:
        temperature: tau, positive. Default: 0.1.
        variant: ``'out'`` (recommended by the paper) or ``'in'``. Default: ``'out'``.
        label_smoothing: epsilon, from 0 to 1. The loss is :math:`(1 - \epsilon)\, \ell_i` plus
            epsilon times the mean of :math:`-\log p_{ij}` over the columns j of the row, p its
            softmax, as :func:`torch.nn.functional.cross_entropy` has it. Default: 0.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D), or (N, V, D) for V views of each instance.
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue made with ``labels=True``; its columns are additional positives
        and negatives, without gradient.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``. Of V views, only
        stored and given columns are left out.
        log_q: (N,), subtracted from the scores with the views of an instance as columns: the log
        of the probability that the instance is in a batch; None for 0.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (N,) or (N, V) for ``reduction='none'``.

    Source: Khosla et al., Supervised Contrastive Learning, 2020.

    The module with the same options: :class:`contrastloss.SupConLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "negatives_log_q": negatives_log_q,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "log_q": log_q,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "ignore_index": ignore_index,
        "variant": variant,
        "label_smoothing": label_smoothing,
        "return_stats": return_stats,
    }
    return evaluate("supcon", (z, labels), named, options)


@overload
def pooled_supcon(
    image: Tensor,
    text: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    variant: Literal["out", "in"] = "out",
    label_smoothing: float = 0.0,
    image_weight: float = 0.3,
) -> Tensor: ...
@overload
def pooled_supcon(
    image: Tensor,
    text: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    variant: Literal["out", "in"] = "out",
    label_smoothing: float = 0.0,
    image_weight: float = 0.3,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def pooled_supcon(
    image: Tensor,
    text: Tensor,
    labels: Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    variant: Literal["out", "in"] = "out",
    label_smoothing: float = 0.0,
    image_weight: float = 0.3,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""SupCon on the weighted sum of each instance's image and text embeddings.

    :math:`z_i = \operatorname{unit}\bigl(w \operatorname{unit}(\text{image}_i) +
    (1 - w) \operatorname{unit}(\text{text}_i)\bigr)`

    The loss of z is that of :class:`SupConLoss`.

    Args:
        temperature: tau, positive. Default: 0.1.
        variant: ``'out'`` or ``'in'``, as in SupCon. Default: ``'out'``.
        label_smoothing: from 0 to 1, as in SupCon. Default: 0.
        image_weight: w, from 0 to 1. Default: 0.3.
        normalize: False uses images and texts without normalisation; the sum is always a unit
            vector. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        image, text: (N, D).
        labels: (N,), integers.
        ids, log_q: as in SupCon.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per row, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        memory: an EmbeddingQueue of z, made with ``labels=True``; its columns are additional
        positives and negatives, without gradient.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Arora et al., Linking Representations with Multimodal Contrastive Learning, 2023
    (CLIPPINGS).

    The module with the same options: :class:`contrastloss.PooledSupConLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "negatives_log_q": negatives_log_q,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "log_q": log_q,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "ignore_index": ignore_index,
        "variant": variant,
        "label_smoothing": label_smoothing,
        "image_weight": image_weight,
        "return_stats": return_stats,
    }
    return evaluate("pooled_supcon", (image, text, labels), named, options)


@overload
def proto_nce(
    z: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    *,
    return_stats: Literal[False] = False,
    density: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> Tensor: ...
@overload
def proto_nce(
    z: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    *,
    return_stats: Literal[True],
    density: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def proto_nce(
    z: Tensor,
    prototypes: Tensor,
    assignment: Tensor,
    *,
    density: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""ProtoNCE: softmax over prototypes, with the prototype of the row's cluster as positive.

    :math:`\ell_i = -\log \frac{e^{s_{i a_i}}}{\sum_k e^{s_{ik}}},
    \qquad s_{ik} = \cos(z_i, c_k) / \phi_k`

    with the row's cluster :math:`a_i`, and :math:`\phi_k = \tau` or element k of ``density``. The
    prototypes may be cluster centres, class weights or the regions of points.

    Args:
        temperature: tau, positive; ignored if a density is given. Default: 0.1.
        group: distributes the rows of z over ranks, for the mean and its gradient. The prototypes
            have to be the same on all ranks.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        z: (N, D).
        prototypes: (K, D), which get gradients unless detached.
        assignment: (N,), integers. A row whose assignment is not in 0, ..., K - 1, e.g. -1, has
        loss 0 and is not counted in the mean.
        density: (K,), positive, a temperature per prototype, without gradient; None for tau.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Li et al., Prototypical Contrastive Learning of Unsupervised Representations, 2021. The
    paper adds InfoNCE and averages over several clusterings.

    The module with the same options: :class:`contrastloss.ProtoNCELoss`.
    """
    named = {
        "density": density,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("proto_nce", (z, prototypes, assignment), named, options)


def recall_at_k(
    z: Tensor,
    labels: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float = 0.01,
    ignore_index: int | None = -100,
    ks: Sequence[int] = (1, 2, 4, 8, 16),
    rank_temperature: float = 1.0,
) -> Tensor:
    r"""Recall@k surrogate: one minus recall at k with smooth ranks, averaged over several k.

    :math:`\ell_q = 1 - \operatorname{mean}_k \frac{1}{\min(k, |P_q|)}
    \sum_{p \in P_q} \sigma\bigl((k - R_{qp}) / \tau_k\bigr), \qquad
    R_{qp} = 1 + \sum_{j \ne q, p} \sigma\bigl((\cos(z_q, z_j) - \cos(z_q, z_p)) / \tau\bigr)`

    with :math:`P_q` the other rows with q's label. It takes O(N^2 K) time for K positives. Only
    some rows of scores are in memory at a time; the backward pass recomputes them. Reading the size
    of the largest class synchronises a GPU. A positive at rank k counts half, so that perfect
    recall has a positive loss, and the smooth sum can exceed :math:`\min(k, |P_q|)`.

    Args:
        temperature: tau for differences of scores, positive. Default: 0.01.
        ks: the values of k, at least one, each at least 1. Default: (1, 2, 4, 8, 16).
        rank_temperature: tau_k for differences of ranks, positive. Default: 1.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D).
        labels: (N,), integers.
        Loss: (), or (N,) for ``reduction='none'``. A query without a positive has loss 0 and is not
        counted in the mean.

    Source: Patel et al., Recall@k Surrogate Loss with Large Batches and Similarity Mixup, 2022.

    The module with the same options: :class:`contrastloss.RecallAtKLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "ignore_index": ignore_index,
        "ks": ks,
        "rank_temperature": rank_temperature,
    }
    return evaluate("recall_at_k", (z, labels), named, options)


def region_attribute(
    regions: Tensor,
    attributes: Tensor,
    labels: Tensor,
    *,
    valid: Tensor | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    own_term: bool = False,
) -> Tensor:
    r"""Contrast of images by their best region for each attribute (ViLLA, first stage).

    With :math:`s_{Ia} = \max_{r \in I} \cos(r, a) / \tau`, for every attribute a of an image I,

    :math:`\ell_{Ia} = -\log \frac{e^{s_{Ia}}}{e^{s_{Ia}} + \sum_{I' \not\ni a} e^{s_{I'a}}}`

    ``reduction='mean'`` averages over the pairs of an image and one of its attributes; other pairs
    have loss 0. Among equally similar regions, the first gets the gradient.

    Args:
        own_term: whether the sum has a term :math:`e^0` for every image that has the attribute:
            True in the released code, False in the paper. Default: False.
        temperature: tau, positive. Default: 0.07.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        regions: (B, R, D), R regions of B images; or (B, R, A, D), with a projection for each
        attribute, as the released code has it by default: r is then the region's own for a.
        attributes: (A, D).
        labels: (B, A), bool, marks the attributes of each image.
        valid: (B, R), bool, False for padding; None for all True. An image without regions is
        ignored.
        Loss: (), or (B, A) for ``reduction='none'``.

    Source: Varma et al., ViLLA: Fine-Grained Vision-Language Representation Learning from
    Real-World Data, 2023 (its first stage).

    The module with the same options: :class:`contrastloss.RegionAttributeLoss`.
    """
    named = {
        "valid": valid,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "own_term": own_term,
    }
    return evaluate("region_attribute", (regions, attributes, labels), named, options)


@overload
def sampled(
    x: Tensor,
    y: Tensor,
    index: Tensor,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> Tensor: ...
@overload
def sampled(
    x: Tensor,
    y: Tensor,
    index: Tensor,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def sampled(
    x: Tensor,
    y: Tensor,
    index: Tensor,
    *,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Each row has its own positive and sampled negatives, given by index (wav2vec 2.0).

    :math:`\ell_i = -\log \frac{e^{s_{i0}}}{\sum_k e^{s_{ik}}},
    \qquad s_{ik} = \cos(x_i, y_{\text{index}_{ik}}) / \tau`

    A negative that equals the positive, by index or by value, is ignored, as in fairseq's
    wav2vec 2.0. A negative drawn twice counts twice. No (N, K, D) tensor of candidates is
    materialised.

    Args:
        temperature: tau, positive. Default: 0.1.
        group: distributes the rows of x over ranks, for the mean and its gradient. Candidates are
            rows of this rank's y.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x: (N, D).
        y: (M, D).
        index: (N, K), int64: the positive of row i, then its negatives; -1 for none.
        Loss: (), or (N,) for ``reduction='none'``. A row without a positive has loss 0 and is not
        counted in the mean.

    Source: Baevski et al., wav2vec 2.0, 2020; Trinh et al., Selfie: Self-supervised Pretraining for
    Image Embedding, 2019.

    The module with the same options: :class:`contrastloss.SampledContrastiveLoss`.
    """
    named = {
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("sampled", (x, y, index), named, options)


def selfcon(
    z: Tensor,
    labels: Tensor | None = None,
    *,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor:
    r"""SupCon between several outputs of one network, with one or more columns of labels.

    The rows are the V outputs for each instance, e.g. of the backbone and of a sub-network. With
    :math:`P_i^t` the other rows with row i's label in column t and :math:`s_{ij} = \cos(z_i, z_j) /
    \tau`,

    :math:`\ell_i^t = -\frac{1}{|P_i^t|} \sum_{p \in P_i^t}
    \log \frac{e^{s_{ip}}}{\sum_{j \ne i,\; y_j^t \ge 0} e^{s_{ij}}}.`

    ``reduction='mean'`` averages each column over the rows that have a positive in it, and sums
    over the columns. A row without a positive has loss 0. All columns are computed in one pass.

    Args:
        temperature: tau, positive. Default: 0.07.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        z: (N, V, D).
        labels: (N,), or (N, T) for T <= 8 columns, integers. A row with a negative label is ignored
        in that column, as an anchor and in the denominators of others. None: the positives are the
        other outputs for the same instance.
        Loss: (), or for ``reduction='none'`` (N, V), or (N, V, T) for T columns.

    Source: Bae et al., Self-Contrastive Learning: Single-viewed Supervised Contrastive Framework
    using Sub-network, 2023; two columns: Boychev and Cholakov, ImagiNet, 2024.

    The module with the same options: :class:`contrastloss.SelfConLoss`.
    """
    named = {
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("selfcon", (z, labels), named, options)


def sepclr(
    common_x: Tensor,
    common_y: Tensor,
    salient_x: Tensor,
    salient_y: Tensor,
    targets: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    temperature: float = 0.5,
    uniformity: float = 2.0,
    common: float = 1.0,
    salient: float = 1.0,
    background: float = 1.0,
    joint: float = 10.0,
    label_variance: float = 0.025,
) -> Tensor:
    r"""SepCLR: separates patterns common to all rows from salient patterns of the targets.

    Let c be the unit vectors of the common space, s the salient vectors (set to 0 for rows that are
    not targets), F the targets and B the other rows. The loss is the weighted sum of four terms;
    expressions of a single view are averaged over both views.

    :math:`\begin{aligned}
    \text{common} &= \operatorname{mean}_i \frac{|c_i - c'_i|^2}{2 \tau} + \lambda\, U(c) \\
    \text{salient} &= \operatorname{mean}_{i \in F} \frac{|s_i - s'_i|^2}{2 \tau} +
    \lambda\, U(s), \qquad
    U(z) = \log \operatorname{mean}_{i < j} e^{-|z_i - z_j|^2 / 2 \tau} \\
    \text{background} &= \operatorname{mean}_{i \in B} \frac{|s_i|^2}{2 \tau},
    \text{ before it is set to } 0 \\
    \text{joint} &= \operatorname{mean}_i \log \operatorname{mean}_j
    e^{-(|c_i - c_j|^2 + |s_i - s_j|^2) / 2 \tau}
    \end{aligned}`

    The joint term, an entropy that keeps both spaces independent, takes one pass over the scores of
    the concatenation [c, s]. With real labels y of the targets, the alignment of s is the
    supervised one, :math:`\operatorname{mean}_{i < j \in F} e^{-|y_i - y_j|^2 / 2 \sigma}
    |s_i - s_j|^2`.

    Args:
        temperature: tau, positive. Default: 0.5.
        uniformity: lambda. Default: 2.
        common, salient, background: weights of these terms. The released code has 1000 for salient
            and background on CelebA. Default: 1.
        joint: weight of the joint term. Default: 10.
        label_variance: sigma, positive. Default: 0.025.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        common_x, common_y: (N, C), two views.
        salient_x, salient_y: (N, S), two views.
        targets: (N,), bool; None for all rows.
        labels: (N,) or (N, E), which get no gradient.
        Loss: (). A mean over an empty set is 0.

    Source: Louiset et al., SepCLR: Separating Common from Salient Patterns with Contrastive
    Representation Learning, 2024.

    The module with the same options: :class:`contrastloss.SepCLRLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "temperature": temperature,
        "uniformity": uniformity,
        "common": common,
        "salient": salient,
        "background": background,
        "joint": joint,
        "label_variance": label_variance,
    }
    return evaluate(
        "sepclr", (common_x, common_y, salient_x, salient_y, targets, labels), named, options
    )


@overload
def siglip(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    positives: Any = None,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    memory: Memory = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    bias: float | Tensor = -10.0,
    positive_weight: Literal["one", "inverse_count"] = "one",
    in_batch_negatives: bool = True,
    gather_negatives: bool = True,
) -> Tensor: ...
@overload
def siglip(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[True],
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    positives: Any = None,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    memory: Memory = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    bias: float | Tensor = -10.0,
    positive_weight: Literal["one", "inverse_count"] = "one",
    in_batch_negatives: bool = True,
    gather_negatives: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def siglip(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    negatives_log_q: Tensor | None = None,
    positives: Any = None,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    log_q: Tensor | None = None,
    memory: Memory = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    bias: float | Tensor = -10.0,
    positive_weight: Literal["one", "inverse_count"] = "one",
    in_batch_negatives: bool = True,
    gather_negatives: bool = True,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""SigLIP: sigmoid loss, a binary classification of every pair.

    :math:`\ell_i = \sum_j \log\bigl(1 + e^{-z_{ij} s_{ij}}\bigr), \qquad
    s_{ij} = \cos(x_i, y_j) / \tau + b, \quad z_{ij} = 2 [i = j] - 1`

    ``reduction='mean'`` divides the sum over all pairs by N. With several positives, of
    ``positives`` or ``x_ids`` and ``y_ids``, :math:`z_{ij}` is 1 for all of them, and the mean
    divides by the number of rows of x, also of those without a positive.

    Args:
        temperature: tau, positive. Default: 0.1.
        bias: b, a float, a 0-dim tensor or a Parameter; ``logit_bias`` overrides it. Default: -10.
        positive_weight: the weight of the terms of positives: ``'one'``, or ``'inverse_count'``,
            :math:`1 / k_i` with the number :math:`k_i` of row i's positives on all ranks.
            Default: ``'one'``.
        in_batch_negatives: whether the other rows of the batch are negatives; False leaves the
            given and the stored ones. Default: True.
        gather_negatives: whether rows meet the shared negatives of all ranks of a group; False if
            every rank gives the same ones. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (M, D) and (N, D); M = N without ``positives``, or ``x_ids`` and ``y_ids``.
        negatives: (K, D), shared by all rows of x, or (M, K, D), one set per row, or (L, D) with
        offsets.
        negatives_mask: (K,) or (M, K), bool, False for no negative; None: all are there.
        negatives_offsets: (M + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        positives: the places in y of the positives, where row i's is not row i of y, which may then
        have another number of rows: (M,), -1 for none; (P, 2), pairs of places in x and y, where a
        pair that occurs twice has two terms of a positive; or a tuple of offsets, (M + 1,), and
        places, (P,), of which row i's are those from offset i to before offset i + 1. Pairs and
        offsets do not go with ``return_stats``.
        x_ids, y_ids: (M,) and (N,), integers, in place of ``positives``: rows with equal ones are
        positives, also on other ranks. Columns with a row's id are left out of given ones with
        ``negatives_ids`` and of queues made with ``ids=True``; all others are negatives.
        log_q, negatives_log_q: None.
        row_weight: (M,), multiplies the rows' losses; 'mean' still divides by M. None for 1.
        Loss: (), or (M,) for ``reduction='none'``.

    Source: Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.

    The module with the same options: :class:`contrastloss.SigLIPLoss`.
    """
    named = {
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "negatives_log_q": negatives_log_q,
        "positives": positives,
        "x_ids": x_ids,
        "y_ids": y_ids,
        "ids": ids,
        "row_weight": row_weight,
        "log_q": log_q,
        "memory": memory,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "bias": bias,
        "positive_weight": positive_weight,
        "in_batch_negatives": in_batch_negatives,
        "gather_negatives": gather_negatives,
        "return_stats": return_stats,
    }
    return evaluate("siglip", (x, y, negatives), named, options)


def simctg(
    h: Tensor,
    valid: Tensor | None = None,
    *,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    margin: float = 0.5,
    return_stats: bool = False,
) -> Tensor:
    r"""SimCTG: pushes the tokens of a sequence apart, up to a margin.

    :math:`\ell_i = \sum_{j \ne i} [\rho - s_{ii} + s_{ij}]_+,
    \qquad s_{ij} = \cos(h_i, h_j) / \tau`

    where j runs over the valid tokens of i's sequence. ``reduction='mean'`` divides the sum over
    all sequences by their number of ordered pairs of valid tokens.

    Args:
        temperature: tau, positive. Default: 1.
        margin: rho. Default: 0.5.
        group: distributes the sequences over ranks, for the mean and its gradient.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        h: (B, T, D).
        valid: (B, T), bool, False for padding; None for all True.
        Loss: (), or (B, T) for ``reduction='none'``. Padding and single tokens have loss 0, without
        gradient.

    Source: Su et al., A Contrastive Framework for Neural Text Generation, 2022; Su and Collier,
    Contrastive Search Is What You Need For Neural Text Generation, 2023.

    The module with the same options: :class:`contrastloss.SimCTGLoss`.
    """
    named = {
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "margin": margin,
        "return_stats": return_stats,
    }
    return evaluate("simctg", (h, valid), named, options)


def simlap(
    z: Tensor,
    keys: Tensor,
    gate: Tensor,
    labels: Tensor,
    key_labels: Tensor,
    *,
    logit_scale: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    mean_over: Literal["rows", "pairs"] = "rows",
    renormalize: bool = False,
) -> Tensor:
    r"""Queries of one class against keys of another, in features gated by the pair of classes.

    Row i has the classes :math:`(a_i, b_i)` and a gate :math:`g_i`, and :math:`s_{ij} = \langle
    \hat z_i \odot g_i^2, \hat k_j \rangle / \tau` with unit vectors :math:`\hat z_i, \hat k_j`.
    Keys of class :math:`b_i` are its positives :math:`P_i`, keys of neither class its negatives
    :math:`N_i`. If the classes differ, keys of class :math:`a_i` are ignored.

    :math:`\ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
    \log \frac{e^{s_{ip}}}{e^{s_{ip}} + \sum_{j \in N_i} e^{s_{ij}}}`

    A row without positives has loss 0 and is not counted in the mean; a row without negatives has
    loss 0. Queries, keys and gates get gradients. With ``renormalize`` the scores are cosines of
    gated vectors,

    :math:`s_{ij} = \cos(z_i \odot g_i, k_j \odot g_i) / \tau`

    The length of a gated key then depends on the row, which no operator expresses: some rows of
    scores are in memory at a time, in plain PyTorch, and the backward pass recomputes them.

    Args:
        temperature: tau, positive. Default: 0.1.
        mean_over: ``'rows'`` averages each row over its positives. With ``'pairs'``,
            ``reduction='none'`` returns the sum over a row's positives and ``reduction='mean'``
            divides by the number of all positive pairs, as in the authors' code. Default:
            ``'rows'``.
        renormalize: whether queries and keys are normalised after the gate; most of the authors'
            code does so. Default: False.
        normalize: whether queries and keys are normalised before the gate. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        z: (N, D), the queries.
        keys: (M, D).
        gate: (N, D), e.g. sigmoids.
        labels: (N, 2), integers: the row's class and the class it is paired with, which may be
        equal.
        key_labels: (M,), integers.
        logit_scale: () or a float, 1 / tau as the model has it; None for that of the option.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Wu et al., Rethinking Positive Pairs in Contrastive Learning, 2024 (Hydra).

    The module with the same options: :class:`contrastloss.SimLAPLoss`.
    """
    named = {
        "logit_scale": logit_scale,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "mean_over": mean_over,
        "renormalize": renormalize,
    }
    return evaluate("simlap", (z, keys, gate, labels, key_labels), named, options)


def smooth_ap(
    z: Tensor,
    labels: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float = 0.01,
    ignore_index: int | None = -100,
) -> Tensor:
    r"""Smooth-AP: one minus the average precision of every query, with smooth ranks.

    :math:`\ell_q = 1 - \frac{1}{|P_q|} \sum_{p \in P_q} \frac{R^P_{qp}}{R_{qp}}, \qquad
    R_{qp} = 1 + \sum_{j \ne q, p} \sigma\bigl((\cos(z_q, z_j) - \cos(z_q, z_p)) / \tau\bigr)`

    with :math:`P_q` the other rows with q's label and :math:`R^P` the same rank among these rows
    only. It takes O(N^2 K) time for K positives. Only some rows of scores are in memory at a time;
    the backward pass recomputes them. Reading the size of the largest class synchronises a GPU.

    Args:
        temperature: tau of the sigmoid, positive. Default: 0.01.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D).
        labels: (N,), integers.
        Loss: (), or (N,) for ``reduction='none'``. A query without a positive has loss 0 and is not
        counted in the mean.

    Source: Brown et al., Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, 2020.

    The module with the same options: :class:`contrastloss.SmoothAPLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "ignore_index": ignore_index,
    }
    return evaluate("smooth_ap", (z, labels), named, options)


def soft_supcon(
    z: Tensor,
    targets: Tensor,
    *,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    variant: Literal["ce", "bce"] = "ce",
    normalize_targets: bool = True,
    return_stats: bool = False,
) -> Tensor:
    r"""SupCon with soft positives: pairs are weighted by the similarity of their labels.

    With m the rows of ``targets``, :math:`t_{ij} = \cos(m_i, m_j)`, :math:`T_i = \sum_{j \ne i}
    t_{ij}` and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    :math:`\begin{aligned}
    \text{ce: } \ell_i &= -\frac{1}{T_i} \sum_{j \ne i} t_{ij}
    \log \frac{e^{s_{ij}}}{\sum_{k \ne i} e^{s_{ik}}} \\
    \text{bce: } \ell_i &= \frac{1}{N - 1} \sum_{j \ne i}
    \bigl[\log(1 + e^{s_{ij}}) - t_{ij} s_{ij}\bigr]
    \end{aligned}`

    With ``'ce'``, a row with :math:`T_i = 0` has loss 0, and ``reduction='mean'`` averages over the
    other rows. With ``'bce'`` it averages over all rows.

    Args:
        temperature: tau, positive. Default: 0.1.
        variant: ``'ce'``, a softmax over the other rows, or ``'bce'``, a sigmoid of every pair.
            Default: ``'ce'``.
        normalize_targets: False uses :math:`t_{ij} = \langle m_i, m_j \rangle`; with ``'bce'`` no
            product should exceed 1. Default: True.
        validate: additionally raise ValueError on negative targets. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        z: (N, D).
        targets: (N, C), multi-hot or soft labels >= 0 of any real dtype, without gradient.
        Negative values are clamped to 0.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: after Wang et al., Multi-Label Guided Soft Contrastive Learning for Efficient Earth
    Observation Pretraining, 2024, which compares two views: ``SoftTargetLoss``.

    The module with the same options: :class:`contrastloss.SoftSupConLoss`.
    """
    named = {
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "variant": variant,
        "normalize_targets": normalize_targets,
        "return_stats": return_stats,
    }
    return evaluate("soft_supcon", (z, targets), named, options)


def soft_target(
    x: Tensor,
    y: Tensor,
    target_x: Tensor,
    target_y: Tensor,
    *,
    target_scale: Tensor | float | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    variant: Literal["ce", "kl", "bce"] = "ce",
    targets: Literal["teacher", "labels"] = "teacher",
    target_temperature: float | Tensor = 0.07,
    symmetric: bool = True,
    identity: float = 0.0,
    normalize_targets: bool = True,
    return_stats: bool = False,
) -> Tensor:
    r"""The scores of two views follow targets: a teacher's scores, or how labels agree.

    With :math:`s_{ij} = \cos(x_i, y_j) / \tau`, its softmax :math:`q_{ij}` over j, the rows m and n
    of the targets of both views, and

    :math:`\text{teacher: } p_{ij} = \frac{e^{t_{ij}}}{\sum_k e^{t_{ik}}}, \quad
    t_{ij} = \cos(m_i, n_j) / \tau_t
    \qquad
    \text{labels: } p_{ij} = \frac{\cos(m_i, n_j)}{\sum_k \cos(m_i, n_k)}`

    the losses of rows are

    :math:`\begin{aligned}
    \text{ce: } \ell_i &= -\sum_j p_{ij} \log q_{ij} \\
    \text{kl: } \ell_i &= \sum_j p_{ij} \log \frac{p_{ij}}{q_{ij}} \\
    \text{bce: } \ell_i &= \frac1N \sum_j \bigl[\log(1 + e^{s_{ij}}) - p_{ij} s_{ij}\bigr]
    \end{aligned}`

    where p of ``'bce'`` with labels is the cosine itself. Columns have the same losses, with the
    softmax over i; the loss is the mean of both. ``identity`` adds so many times the loss whose
    target for row i is column i.

    Args:
        temperature: tau of the student, positive. Element i of an (N,) tensor divides
            :math:`s_{ij}` of rows and of columns. Default: 0.07.
        variant: ``'ce'``, ``'kl'``, whose gradient is that of ``'ce'``, or ``'bce'``. With labels
            there is no ``'kl'``. Default: ``'ce'``.
        targets: ``'teacher'`` or ``'labels'``. Default: ``'teacher'``.
        target_temperature: tau_t, a float or a 0-dim tensor, without gradient. Default: 0.07.
        symmetric: False leaves the losses of columns out: InfoNCE distillation. Default: True.
        identity: the weight of the identity target, at least 0: 1 for CLIP distillation and for
            SoftCon, whose other weight is ``loss_weight``. Default: 0.
        normalize_targets: False uses products in place of the cosines of targets. Default: True.
        validate: additionally raise ValueError on negative labels. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (M, D) and (N, D). M = N, unless ``symmetric=False`` and ``identity=0``.
        target_x, target_y: (M, C) and (N, C), the teacher's embeddings, or multi-hot or soft labels
        >= 0, of any real dtype, without gradient. Negative labels are clamped to 0.
        target_scale: () or a float, 1 / tau_t as the teacher has it, in place of the option.
        row_weight: (M,), multiplies the losses of pairs; 'mean' still divides by M. None for 1.
        Loss: (), or (M,) for ``reduction='none'``. A row without a label has target 0, and with
        ``'ce'`` loss 0.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015; open_clip's
    DistillClipLoss; Wang et al., Multi-Label Guided Soft Contrastive Learning for Efficient Earth
    Observation Pretraining, 2024.

    The module with the same options: :class:`contrastloss.SoftTargetLoss`.
    """
    named = {
        "target_scale": target_scale,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "variant": variant,
        "targets": targets,
        "target_temperature": target_temperature,
        "symmetric": symmetric,
        "identity": identity,
        "normalize_targets": normalize_targets,
        "return_stats": return_stats,
    }
    return evaluate("soft_target", (x, y, target_x, target_y), named, options)


def spearman(
    x: Tensor,
    target: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    regularization: Literal["l2", "kl"] = "l2",
    strength: float = 1.0,
) -> Tensor:
    r"""One minus Spearman's rank correlation of scores and targets, with soft ranks.

    :math:`\ell = 1 - \cos(r - \bar r, t - \bar t), \qquad r = \operatorname{soft\_rank}(x)`

    with t the ranks of the targets, where equal targets share their mean rank. The time is
    O(n log^2 n). If all scores or all targets are equal, there is no correlation: the loss is 1,
    without gradient.

    Args:
        regularization: ``'l2'`` or ``'kl'``, as in :func:`contrastloss.sorting.soft_rank`.
            Default: ``'l2'``.
        strength: strength of the regularisation, positive. Default: 1.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        x: (..., n), scores.
        target: (..., n), real numbers whose order the scores should have.
        Loss: (), or (...) for ``reduction='none'``.

    Source: Blondel et al., Fast Differentiable Sorting and Ranking, 2020.

    The module with the same options: :class:`contrastloss.SpearmanLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "regularization": regularization,
        "strength": strength,
    }
    return evaluate("spearman", (x, target), named, options)


@overload
def spectral(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> Tensor: ...
@overload
def spectral(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[True],
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def spectral(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: Memory = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Spectral contrastive loss: aligns positives and makes other pairs orthogonal.

    :math:`\ell_i = -2 s_{ii} + \frac{1}{N - 1} \sum_{j \ne i} s_{ij}^2,
    \qquad s_{ij} = \cos(x_i, y_j) / \tau`

    Up to a constant, it factorises the normalised adjacency matrix of the augmentation graph, for
    which the paper uses dot products (``normalize=False``).

    Args:
        temperature: tau, positive. Default: 1.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is the first term.

    Source: HaoChen et al., Provable Guarantees for Self-Supervised Deep Learning with Spectral
    Contrastive Loss, 2021.

    The module with the same options: :class:`contrastloss.SpectralLoss`.
    """
    named = {
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "return_stats": return_stats,
    }
    return evaluate("spectral", (x, y, negatives), named, options)


@overload
def supremix(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[False] = False,
    mixtures: Sequence[Tensor] | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    weighting: Literal["distance", "inverse"] | None = "distance",
    separate_maxima: bool = False,
) -> Tensor: ...
@overload
def supremix(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[True],
    mixtures: Sequence[Tensor] | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    weighting: Literal["distance", "inverse"] | None = "distance",
    separate_maxima: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def supremix(
    z: Tensor,
    labels: Tensor,
    *,
    mixtures: Sequence[Tensor] | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    weighting: Literal["distance", "inverse"] | None = "distance",
    separate_maxima: bool = False,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""SupCon for regression: negatives are weighted by the distance of their labels.

    With :math:`P_i` the other rows with row i's label and :math:`s_{ij} = \cos(z_i, z_j) / \tau`,

    :math:`\ell_i = -\frac{1}{|P_i|} \sum_{p \in P_i}
    \log \frac{e^{s_{ip}}}{\sum_{j \ne i} w_{ij} e^{s_{ij}}},
    \qquad w_{ij} = 1 + |y_i - y_j|,`

    so that negatives with more distant labels are pushed away more strongly. A row without a
    positive has loss 0, and ``reduction='mean'`` averages over the other rows. The mixtures of rows
    that :meth:`mixtures` makes are further negatives and positives of one row each: sums of unit
    vectors, that are constants, not normalised again and no anchors.

    Args:
        temperature: tau, positive. Default: 0.07.
        weighting: ``'distance'`` for the w above, ``'inverse'`` for
            :math:`1 / (1 + |y_i - y_j|)`, None for 1. Default: ``'distance'``.
        separate_maxima: True subtracts from the scores of the batch their largest one, with the
            row's own, and from those of the mixtures theirs, as constants: so does the authors'
            code, in which the share of the mixtures in the sum depends on it. Default: False.
        loss_weight: multiplies the loss, e.g. tau over a base temperature. Default: 1.

    Shared options:
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D), or (N, V, D) for V views of each instance.
        labels: (N,), of any real dtype, without gradient. Positives are rows with equal labels:
        floating labels are compared in fp32 (in fp64 for fp64 embeddings), others as integers.
        mixtures: five tensors (N, K), or (N V, K) for views, as of :meth:`mixtures`, whose numbers
        are those of the rows of z of this process, flattened; None for none.
        Loss: (), or (N,) or (N, V) for ``reduction='none'``.

    Source: Wu et al., Mixup Your Own Pairs, 2023.

    The module with the same options: :class:`contrastloss.SupReMixLoss`.
    """
    named = {
        "mixtures": mixtures,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "ignore_index": ignore_index,
        "weighting": weighting,
        "separate_maxima": separate_maxima,
        "return_stats": return_stats,
    }
    return evaluate("supremix", (z, labels), named, options)


def swav(
    x: Tensor,
    y: Tensor,
    prototypes: Tensor,
    *,
    crops: Tensor | None = None,
    queues: Sequence[EmbeddingQueue] | None = None,
    y_prototypes: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    eps: float = 0.05,
    iterations: int = 3,
    constant_norms: bool = False,
    return_stats: bool = False,
) -> Tensor:
    r"""SwAV: each crop predicts the balanced assignments of other crops to prototypes.

    With the scores :math:`s^v_{ik} = \cos(v_i, c_k)` of a crop v and the codes :math:`q^w` of the
    two large crops x and y, which Sinkhorn's algorithm computes from :math:`e^{s^w / \varepsilon}`,
    the loss is the mean over the ordered pairs of crops of which one gives codes,

    :math:`\ell_i = -\frac{1}{2 (V - 1)} \sum_{w \in \{x, y\}} \sum_{v \ne w} \sum_k
    q^w_{ik} \log \frac{e^{s^v_{ik} / \tau}}{\sum_l e^{s^v_{il} / \tau}}`

    of all V crops: V = 2, if there are only x and y. Every iteration divides the codes of each
    prototype by their sum over the batch and the queue, and then the codes of each row by their
    sum, so that the codes of a row sum to 1. The codes are constants. With the rows of another
    modality as prototypes, separate ones for x and y, this is SwALIP.

    Args:
        temperature: tau, positive. Default: 0.1.
        eps: weight of the entropy in Sinkhorn's algorithm, positive; smaller values give sharper
            codes. Default: 0.05.
        iterations: number of Sinkhorn iterations, 1 to 10,000. Default: 3.
        constant_norms: True: the lengths of prototypes are constants, so that their gradient keeps
            its radial part. Of prototypes that are normalised after every step, as in the authors'
            code, it is then the gradient of that code. Default: False.
        group: spreads the rows over ranks. The codes are balanced over the rows of all ranks, and
            each rank's queues hold its own rows: enqueue them without a group. The prototypes have
            to be the same on all ranks.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D), the large crops.
        prototypes: (K, D).
        crops: (N, C, D), further crops, which give no codes; None for none.
        queues: two EmbeddingQueues, of rows like those of x and of rows like those of y, over which
        their codes are balanced, too; None for none. Enqueue the rows after the loss.
        y_prototypes: (K, D), the prototypes of y; None for the same. All inputs get gradients.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments, 2020; Fini et al., Improved baselines for vision-language pre-training, 2023
    (SwALIP).

    The module with the same options: :class:`contrastloss.SwAVLoss`.
    """
    named = {
        "crops": crops,
        "queues": queues,
        "y_prototypes": y_prototypes,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "eps": eps,
        "iterations": iterations,
        "constant_norms": constant_norms,
        "return_stats": return_stats,
    }
    return evaluate("swav", (x, y, prototypes), named, options)


@overload
def temporal_clip(
    audio: Tensor,
    text: Tensor,
    audio_reversed: Tensor | None = None,
    text_reversed: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    same: float = 1.0,
    cross: float = 1.0,
) -> Tensor: ...
@overload
def temporal_clip(
    audio: Tensor,
    text: Tensor,
    audio_reversed: Tensor | None = None,
    text_reversed: Tensor | None = None,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    same: float = 1.0,
    cross: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def temporal_clip(
    audio: Tensor,
    text: Tensor,
    audio_reversed: Tensor | None = None,
    text_reversed: Tensor | None = None,
    *,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    same: float = 1.0,
    cross: float = 1.0,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""CLIP with embeddings of time-reversed inputs as additional negatives.

    :math:`\ell_i = \tfrac12\, r(t_i, a, \tilde a) + \tfrac12\, r(a_i, t, \tilde t), \qquad
    r(q_i, k, \tilde k) = -\log \frac{e^{s(q_i, k_i)}}{\sum_j e^{s(q_i, k_j)} +
    \text{same}\; e^{s(q_i, \tilde k_i)} +
    \text{cross} \sum_{j \ne i} e^{s(q_i, \tilde k_j)}}`

    for audio a and text t. Reversed embeddings that are not given are left out. For the loss of the
    reversed pair, call it with each side and its reversal exchanged. The statistics of
    ``return_stats`` are those of the audio with the texts, without reversals.

    Args:
        same: weight >= 0 of a row's own reversal; 0 leaves it out. Default: 1.
        cross: weight >= 0 of the reversals of other rows; 0 leaves them out. Default: 1.
        temperature: tau, positive. Default: 0.07.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        audio, text: (N, D).
        audio_reversed, text_reversed: (N, D) or None; at least one is required. They are negatives
        of the texts and of the audio, respectively.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Sinha et al., Enhancing Audio-Language Models through Self-Supervised Post-Training with
    Text-Audio Pairs, 2024; Bagad et al., Test of Time, 2023.

    The module with the same options: :class:`contrastloss.TemporalCLIPLoss`.
    """
    named = {
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "same": same,
        "cross": cross,
        "return_stats": return_stats,
    }
    return evaluate("temporal_clip", (audio, text, audio_reversed, text_reversed), named, options)


def topk_cross_entropy(
    x: Tensor,
    target: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    steepness: float | Tensor = 10.0,
    network: str = "odd_even",
    distribution: str = "cauchy",
    art_lambda: float = 0.25,
    weights: Sequence[float] = (0.5, 0.0, 0.0, 0.0, 0.5),
    candidates: int | None = 16,
) -> Tensor:
    r"""Cross entropy of relaxed top-k accuracy, for several k at once.

    :math:`\ell = -\log \Bigl( w_1 \operatorname{softmax}(x)_y +
    \sum_{k > 1} w_k \sum_{r \le k} P_{yr} \Bigr)`

    where y is the target class and :math:`P_{yr}` the mass that a relaxed sorting network, in
    descending order, moves from the score of y to rank r. All top-k masses are computed in one
    sweep, without P, in O(n) memory per row. The input of the network is the score of y, followed
    by the scores of the other classes in descending order.

    Args:
        weights: :math:`w_1, w_2, \dots` of top-1, top-2, ...: probabilities >= 0 that sum to 1.
            Default: (0.5, 0, 0, 0, 0.5).
        candidates: number of scores to compare, at least 1: that of y and the largest scores of
            other classes. None for all, which suits a few dozen classes. Default: 16.
        steepness: steepness of the comparators, positive. Default: 10.
        network: ``'odd_even'`` or ``'bitonic'``. Default: ``'odd_even'``.
        distribution: as in :func:`contrastloss.sorting.sort`. Default: ``'cauchy'``.
        art_lambda: exponent in ``'logistic_phi'``. Default: 0.25.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.

    Shape:
        x: (..., C), scores.
        target: (...), classes, int64.
        Loss: (), or (...) for ``reduction='none'``.

    Source: Petersen et al., Differentiable Top-k Classification Learning, 2022, whose top-1 is a
    softmax too.

    The module with the same options: :class:`contrastloss.TopKCrossEntropyLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "steepness": steepness,
        "network": network,
        "distribution": distribution,
        "art_lambda": art_lambda,
        "weights": weights,
        "candidates": candidates,
    }
    return evaluate("topk_cross_entropy", (x, target), named, options)


@overload
def triplet(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[False] = False,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    margin: float = 0.05,
    mining: Literal["all", "hard", "semihard"] = "all",
    positives: int | None = None,
    k: int = 1,
) -> Tensor: ...
@overload
def triplet(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[True],
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    margin: float = 0.05,
    mining: Literal["all", "hard", "semihard"] = "all",
    positives: int | None = None,
    k: int = 1,
) -> tuple[Tensor, dict[str, Tensor]]: ...
def triplet(
    z: Tensor,
    labels: Tensor,
    *,
    negatives: Tensor | None = None,
    negatives_mask: Tensor | None = None,
    negatives_offsets: Tensor | None = None,
    negatives_ids: Tensor | None = None,
    memory: EmbeddingQueue | None = None,
    ids: Tensor | None = None,
    row_weight: Tensor | None = None,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    loss_weight: float = 1.0,
    backend: str | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    temperature: float | Tensor = 1.0,
    normalize: bool = True,
    validate: bool = False,
    group: Any = None,
    strategy: Literal["auto", "gather", "ring"] = "auto",
    equal_sizes: bool = False,
    ignore_index: int | None = -100,
    margin: float = 0.05,
    mining: Literal["all", "hard", "semihard"] = "all",
    positives: int | None = None,
    k: int = 1,
    return_stats: bool = False,
) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    r"""Triplet loss on cosine similarities, with batch-all, batch-hard or semi-hard mining.

    With :math:`p \ne a` a row with row a's label, n a row with another label, and
    :math:`s_{ij} = \cos(z_i, z_j)`,

    :math:`\ell_a = \sum_{(p, n)} [s_{an} - s_{ap} + m]_+`

    over these triplets:

    ``'all'``
        every p and every n (batch-all);
    ``'hard'``
        the least similar p and the most similar n (batch-hard);
    ``'semihard'``
        for every p, the ``k`` most similar n with
        :math:`s_{ap} - m \le s_{an} < s_{ap}`.

    ``reduction='mean'`` averages over the triplets with a nonzero term, as in
    pytorch-metric-learning; without any the loss is 0.

    ``'all'`` takes O(N) memory for any number of triplets, and O(N^2 (D + log P)) time for classes
    of P rows: of a row's scores in order, sums of its triplets follow from counts. Some rows of
    scores are held at a time, which torch computes, and again in the backward pass. Up to 32
    positives per row, or if ``positives`` is given, it takes one pass of an operator for every 8 of
    them, and so does ``'semihard'`` for each. (Of a soft margin, log(1 + e^u), there are no such
    sums: its time would be that of all triplets.)

    Args:
        margin: m. Default: 0.05.
        mining: ``'all'``, ``'hard'`` or ``'semihard'``. Default: ``'all'``.
        positives: for ``'all'`` and ``'semihard'``, the maximum number of positives per row, at
            least 1; the least similar ones are used. None uses all: this reads the size of the
            largest class, which synchronises a GPU; torch.compile leaves the loss out of its
            graphs, and torch.export refuses it. Default: None.
        k: for ``'semihard'``, the maximum number of negatives per positive, at least 1. Default: 1.
        temperature: divides the scores, positive. Default: 1.
        group: supported with ``mining='hard'`` only.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        z: (N, D).
        labels: (N,), integers.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue made with ``labels=True``; its columns are additional positives
        and negatives, without gradient.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``. Of V views, only
        stored and given columns are left out.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, 2015;
    Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017.

    The module with the same options: :class:`contrastloss.TripletLoss`.
    """
    named = {
        "negatives": negatives,
        "negatives_mask": negatives_mask,
        "negatives_offsets": negatives_offsets,
        "negatives_ids": negatives_ids,
        "memory": memory,
        "ids": ids,
        "row_weight": row_weight,
        "logit_scale": logit_scale,
        "logit_bias": logit_bias,
    }
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "reduction": reduction,
        "temperature": temperature,
        "normalize": normalize,
        "validate": validate,
        "group": group,
        "strategy": strategy,
        "equal_sizes": equal_sizes,
        "ignore_index": ignore_index,
        "margin": margin,
        "mining": mining,
        "positives": positives,
        "k": k,
        "return_stats": return_stats,
    }
    return evaluate("triplet", (z, labels), named, options)


def vicreg(
    x: Tensor,
    y: Tensor,
    *,
    loss_weight: float = 1.0,
    backend: str | None = None,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    gamma: float = 1.0,
    eps: float = 0.0001,
) -> Tensor:
    r"""VICReg: invariance between views, a minimum variance per feature, decorrelated features.

    :math:`\lambda\, \frac{1}{N D} \sum_{n d} (x_{nd} - y_{nd})^2 +
    \mu\, [v(x) + v(y)] + \nu\, [c(x) + c(y)]`

    :math:`v(z) = \frac1D \sum_d \Bigl[\gamma - \sqrt{\operatorname{Var}(z_d) + \epsilon}\Bigr]_+,
    \qquad c(z) = \frac1D \sum_{i \ne j} \operatorname{Cov}(z)_{ij}^2`

    with unbiased variances and covariances. This is the paper's Algorithm 1. Its equation for the
    invariance term does not divide by D (``invariance=25 * D``), and the released code halves the
    variance terms (``variance=12.5``). The D x D covariance matrix is not materialised.

    Args:
        invariance: lambda >= 0. Default: 25.
        variance: mu >= 0. Default: 25.
        covariance: nu >= 0. Default: 1.
        gamma: minimum standard deviation of a feature, positive. Default: 1.
        eps: added to variances, positive. Default: 1e-4.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        x, y: (N, D).
        Loss: (). For N = 0 it is 0. For N = 1 variances and covariances are 0.

    Source: Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning, 2022.

    The module with the same options: :class:`contrastloss.VICRegLoss`.
    """
    named: dict[str, Any] = {}
    options = {
        "loss_weight": loss_weight,
        "backend": backend,
        "invariance": invariance,
        "variance": variance,
        "covariance": covariance,
        "gamma": gamma,
        "eps": eps,
    }
    return evaluate("vicreg", (x, y), named, options)

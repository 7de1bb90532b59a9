"""Compressed gradients: unbiased quantizers and sparsifiers, signs, momentum correction, low rank."""

import math
from typing import Literal

from thinwire.compressors import DCT, Compressor, GSpar, Identity, OneBit, PlainSign, Sign, TernGrad, Threshold, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import (
    Accumulating,
    CompressedReduceScatter,
    Exchange,
    Gather,
    MajorityVote,
    PowerIteration,
    SharedScale,
    SignOf,
    VarianceScaled,
)
from thinwire.layout import Chunks, Granularity, PerRow, PerTensor, Whole
from thinwire.memory import EF21, ErrorFeedback, Momentum, MomentumCorrection
from thinwire.methods.base import GradientAveraging, Method
from thinwire.methods.catalog.parts import MEMORIES, ROUTES, Remember, Route, sparsifier
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.options import Density, Fraction
from thinwire.methods.warm_up import WarmUp

_MOMENTUM = Fraction(0.9)
_DECAY = Fraction(0.999)
_PER_MILLE, _PER_CENT = Density(0.001), Density(0.01)
_ROWS = PerRow()
_LADDER = (0.25, 0.0625, 0.015625, 0.004)
_UNITS = "the memory is in units of a gradient: what is left when the learning rate changes is sent at the new one"


@entry(
    name="ef-sgd",
    paper="Karimireddy et al. 2019",
    summary="top-k or random-k coordinates of the gradient, or signs of all of it, with error feedback",
    differs_from_paper=f"{_UNITS}; topk and ef-signsgd are the paper's form, with the learning rate inside",
)
def ef_sgd(
    select: Literal["top", "random", "all"] = "top",
    density: Density | None = None,
    k: float | None = None,
    values: Literal["exact", "signs"] = "exact",
    granularity: Granularity = Whole(),
    memory: Remember = "error-feedback",
    exchange: Route = "gather",
) -> Method:
    """Compressed gradients, with memory."""
    if select == "all" and (density is not None or k is not None):
        raise ConfigError("select=all sends the signs of all entries; leave out density and k")
    quantizer: Compressor = Sign() if values == "signs" else Identity()
    compressor = Sign() if select == "all" else sparsifier(select, density, k, quantizer)
    return GradientAveraging(
        memory=MEMORIES[memory], compressor=compressor, exchange=ROUTES[exchange], granularity=granularity
    )


@entry(
    name="aji-heafield",
    paper="Aji, Heafield 2017",
    summary="gradient entries above a threshold (1 % of them), estimated on a sample, with error feedback",
    differs_from_paper="synchronous, where the paper's workers are not; at least 4096 entries of a segment are sampled",
)
def aji_heafield(
    density: Density = _PER_CENT,
    sample: Density = _PER_MILLE,
    granularity: Granularity = Whole(),
    memory: Remember = "error-feedback",
    exchange: Route = "gather",
) -> Method:
    """Gradients above a threshold from a sample, with memory."""
    return GradientAveraging(
        memory=MEMORIES[memory], compressor=Threshold(density=density, sample=sample), exchange=ROUTES[exchange],
        granularity=granularity,
    )  # fmt: skip


@entry(
    name="dgc",
    paper="Lin et al. 2018",
    summary="top 0.1 % of accumulated velocities: momentum correction, factor masking, local clipping, warm-up",
    differs_from_paper="the ladder counts exchanges (20 a rung), where the paper counts epochs; clipping only if "
    "asked for; biases are compressed too; select=sample keeps what exceeds the quantile, without rounds of "
    "adaptation. Use it with an optimizer that has no momentum",
)
def dgc(
    density: Density = _PER_MILLE,
    momentum: Fraction = _MOMENTUM,
    nesterov: bool = False,
    masking: bool = True,
    clip: float | None = None,
    warmup: int = 20,
    select: Literal["exact", "sample"] = "exact",
    granularity: Granularity = PerTensor(),
    exchange: Route = "gather",
) -> Method:
    """Very few coordinates of accumulated velocities, after a ladder of more of them."""

    def selection(share: float) -> Compressor:
        return TopK(density=share) if select == "exact" else Threshold(density=share, sample=0.01)

    rungs = tuple(selection(share) for share in _LADDER if share > density)
    return GradientAveraging(
        memory=MomentumCorrection(momentum=momentum, nesterov=nesterov, factor_masking=masking),
        compressor=selection(density), exchange=ROUTES[exchange], granularity=granularity, clip_norm=clip,
        warm_up=WarmUp(rungs, warmup) if rungs and warmup else None,
    )  # fmt: skip


@entry(
    name="signsgd",
    paper="Bernstein et al. 2018",
    summary="signs of the gradient up, signs of the majority down: one bit an entry both ways",
    differs_from_paper="sign(0) and ties are +1, also of an entry whose gradient is always 0",
)
def signsgd(exchange: Literal["server", "gather"] = "server") -> Method:
    """One vote for each entry."""
    return GradientAveraging(compressor=PlainSign(), exchange=MajorityVote(exchange))


@entry(
    name="signum",
    paper="Bernstein et al. 2018",
    summary="signs of each worker's momentum up, signs of the majority down",
    differs_from_paper="sign(0) and ties are +1, also of an entry whose gradient is always 0",
)
def signum(momentum: Fraction = _MOMENTUM, exchange: Literal["server", "gather"] = "server") -> Method:
    """One vote for each entry, by the sign of a running mean."""
    return GradientAveraging(memory=Momentum(momentum), compressor=PlainSign(), exchange=MajorityVote(exchange))


@entry(
    name="terngrad",
    paper="Wen et al. 2017",
    summary="gradients clipped at 2.5 deviations, rounded at random to 3 values of the workers' largest scale",
    differs_from_paper="messages are gathered, or served in f32, where the paper's server sends sums of ternary "
    "numbers; clip=inf does not clip",
)
def terngrad(
    clip: float = 2.5,
    shared: bool = True,
    coding: Literal["packed", "elias", "entropy"] = "packed",
    granularity: Granularity = PerTensor(),
    exchange: Route = "gather",
) -> Method:
    """Three values an entry, against one scale for all workers."""
    route = ROUTES[exchange]
    return GradientAveraging(
        compressor=TernGrad(clip=None if math.isinf(clip) else clip, coding=coding),
        exchange=SharedScale(route) if shared else route, granularity=granularity,
    )  # fmt: skip


@entry(
    name="gspar",
    paper="Wangni et al. 2018",
    summary="gradient entries kept with probability min(1, lambda |g|); unbiased; steps shrink with the variance",
    differs_from_paper="steps are divided by the workers' mean of ||Q(g)||^2/||g||^2, or by 1 + variance where "
    "that is given; the mean is not sparsified again",
)
def gspar(
    density: Density | None = None,
    variance: float | None = None,
    step: Literal["scaled", "plain"] = "scaled",
    granularity: Granularity = Whole(),
    exchange: Route = "gather",
) -> Method:
    """Entries kept with probabilities that follow their magnitudes."""
    if density is None and variance is None:
        density = _PER_CENT
    route: Exchange = ROUTES[exchange]
    if step == "scaled":
        route = VarianceScaled(route, ratio=None if variance is None else 1.0 + variance)
    return GradientAveraging(
        compressor=GSpar(density=density, variance=variance), exchange=route, granularity=granularity
    )


@entry(
    name="1bit-sgd",
    paper="Seide et al. 2014",
    summary="one bit an entry and two means a row to the owners of shards, and back; error feedback both ways",
    differs_from_paper="an entry's row is the weights of one output; no double buffering, no AdaGrad (use the "
    "optimizer)",
)
def one_bit_sgd(
    granularity: Granularity = _ROWS,
    memory: Remember = "error-feedback",
    exchange: Literal["owners", "gather", "server"] = "owners",
) -> Method:
    """One bit an entry to the owners of shards and back, with memory both ways."""
    route = CompressedReduceScatter() if exchange == "owners" else ROUTES[exchange]
    return GradientAveraging(memory=MEMORIES[memory], compressor=OneBit(), exchange=route, granularity=granularity)


@entry(
    name="ef21",
    paper="Richtarik, Sokolov, Fatkhullin 2021",
    summary="top-k or random-k coordinates of how the gradient differs from its public estimate",
    differs_from_paper="the estimates begin at C(gradient), as in the paper's experiments; EF21+ is ef21-plus",
)
def ef21(
    select: Literal["top", "random"] = "top",
    density: Density | None = None,
    k: float | None = None,
    granularity: Granularity = Whole(),
    exchange: Route = "gather",
) -> Method:
    """Compressed changes of each worker's gradient."""
    return GradientAveraging(
        memory=EF21(), compressor=sparsifier(select, density, k, Identity()), exchange=Accumulating(ROUTES[exchange]),
        granularity=granularity,
    )  # fmt: skip


@entry(
    name="powersgd",
    paper="Vogels, Karimireddy, Jaggi 2019",
    summary="two factors of rank r of each matrix, all-reduced in turn, with error feedback; biases exact",
    differs_from_paper="a memory keeps what is left of the worker's own matrix; sent=mean, the paper's, has the "
    "same iterates but grows where data differ; momentum is the optimizer's, after decompression; both factors "
    "every step; "
    f"{_UNITS}",
)
def powersgd(
    rank: int = 2, warm: bool = True, memory: Remember = "error-feedback", sent: Literal["own", "mean"] = "own"
) -> Method:
    """Two thin factors of each matrix."""
    return GradientAveraging(
        memory=MEMORIES[memory], exchange=PowerIteration(rank=rank, warm_start=warm, counts_as_sent=sent)
    )


@entry(
    name="demo",
    paper="Peng, Quesnelle, Kingma 2024",
    summary="the 32 largest DCT coefficients of each 4096 entries of a momentum, from which they are taken out; "
    "steps are signs",
    differs_from_paper="the learning rate is the optimizer's (plain SGD) and enters after the momentum; a chunk "
    "is a run of the flat vector; coefficients are averaged over all workers, not over those that sent one",
)
def demo(k: int = 32, side: int = 64, decay: Fraction = _DECAY, signed: bool = True) -> Method:
    """The fast-moving frequencies of a momentum."""
    return GradientAveraging(
        memory=ErrorFeedback(decay=decay), compressor=DCT(values=TopK(k=k), side=side),
        exchange=SignOf(Gather()) if signed else Gather(), granularity=Chunks(side**2),
    )  # fmt: skip


ROWS: tuple[CatalogEntry, ...] = (
    ef_sgd,
    aji_heafield,
    dgc,
    signsgd,
    signum,
    terngrad,
    gspar,
    one_bit_sgd,
    ef21,
    powersgd,
    demo,
)

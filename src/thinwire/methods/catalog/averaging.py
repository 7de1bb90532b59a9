"""Averaging of gradients and displacements: the methods that everything else is compared with."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from thinwire.compressors import QSGD, Compressor, Identity, Sign
from thinwire.errors import ConfigError
from thinwire.exchanges import AllReduce
from thinwire.layout import Chunks, Granularity, PerTensor, Whole
from thinwire.methods.base import GradientAveraging, Method, ModelAveraging
from thinwire.methods.catalog.parts import (
    MEMORIES,
    NO_MOMENTUM,
    ROUTES,
    Remember,
    RobustRoute,
    Route,
    outer,
    quantizer,
    sparsifier,
)
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.options import Density, Fraction
from thinwire.methods.schedules import Every, RandomGaps, Schedule


@entry(name="sgd", paper="standard", summary="f32 gradients, summed every step: the baseline")
def sgd() -> Method:
    """Plain data-parallel SGD."""
    return GradientAveraging()


@entry(
    name="bf16-sgd",
    paper="standard",
    summary="bf16 gradients, summed every step: the baseline of half the bytes",
    differs_from_paper="as the bf16_compress_hook of DDP, but added up in f32 and rounded once, where a ring rounds at "
    "every worker",
)
def bf16_sgd() -> Method:
    """Data-parallel SGD with gradients of 16 bits."""
    return GradientAveraging(exchange=AllReduce("bf16"))


@entry(
    name="fp16-sgd",
    paper="standard",
    summary="f16 gradients, summed every step; entries above 65504 are refused, those below 6e-8 lost",
    differs_from_paper="as the fp16_compress_hook of DDP, but added up in f32 and rounded once, where a ring rounds at "
    "every worker; no loss scaling",
)
def fp16_sgd() -> Method:
    """Data-parallel SGD with gradients of 16 bits, more precise in a smaller range."""
    return GradientAveraging(exchange=AllReduce("f16"))


@entry(name="local-sgd", paper="Stich 2018", summary="f32 models, averaged after every H local steps")
def local_sgd(every: int = 8) -> Method:
    """Averaging of models every few steps."""
    return ModelAveraging(schedule=Every(every))


@entry(
    name="qsgd",
    paper="Alistarh et al. 2017",
    summary="gradients rounded at random to s levels in buckets; unbiased, no memory",
    differs_from_paper="b bits mean a sign and s = 2^(b-1) - 1 levels in fixed-width codes; a bucket is scaled by "
    "its maximum unless norm=l2",
)
def qsgd(
    bits: int | None = None,
    levels: int | None = None,
    norm: Literal["max", "l2"] = "max",
    granularity: Granularity = Chunks(512),
    exchange: RobustRoute = "gather",
) -> Method:
    """Stochastically rounded gradients."""
    if bits is not None and levels is not None:
        raise ConfigError(f"qsgd takes bits or levels, not both; bits={bits} means levels={QSGD.bits_to_levels(bits)}")
    s = levels if levels is not None else QSGD.bits_to_levels(4 if bits is None else bits)
    return GradientAveraging(compressor=QSGD(levels=s, norm=norm), exchange=ROUTES[exchange], granularity=granularity)


@entry(
    name="mem-sgd",
    paper="Stich, Cordonnier, Jaggi 2018",
    summary="top-k or random-k exact coordinates of lr * gradient + memory; k may be below 1",
    differs_from_paper="workers average their messages, where the paper's parallel form shares one model without "
    "locks; its step sizes and average: --lr-schedule inverse:shift=A --average quadratic:shift=A",
)
def mem_sgd(
    select: Literal["top", "random"] = "top",
    density: Density | None = None,
    k: float | None = None,
    memory: Remember = "error-feedback",
    exchange: Route = "gather",
) -> Method:
    """A few exact coordinates a step, with memory."""
    compressor = sparsifier(select, density, k, Identity())
    return ModelAveraging(memory=MEMORIES[memory], compressor=compressor, exchange=ROUTES[exchange])


@entry(
    name="ef-signsgd",
    paper="Karimireddy et al. 2019",
    summary="signs and the mean magnitude of each tensor, with error feedback",
)
def ef_signsgd(
    every: int = 1,
    granularity: Granularity = PerTensor(),
    memory: Remember = "error-feedback",
    exchange: RobustRoute = "gather",
    lr: float = 1.0,
    momentum: Fraction = NO_MOMENTUM,
) -> Method:
    """Signs scaled by the mean magnitude, with memory."""
    return ModelAveraging(
        schedule=Every(every), memory=MEMORIES[memory], compressor=Sign(),
        exchange=ROUTES[exchange], granularity=granularity, update=outer(lr, momentum, nesterov=True),
    )  # fmt: skip


def _of_top(values: Compressor) -> Callable[..., Method]:
    def build(
        density: Density | None = None,
        k: float | None = None,
        every: int = 1,
        granularity: Granularity = Whole(),
        memory: Remember = "error-feedback",
        exchange: Route = "gather",
    ) -> Method:
        return _qsparse("top", density, k, values, Every(every), granularity, memory, exchange)

    return build


topk = entry(
    name="topk",
    paper="Stich et al. 2018; Basu et al. 2019",
    summary="exact top-k coordinates of the displacement, with error feedback",
    differs_from_paper="k is global unless granularity=tensor, where Basu et al. take min(d_t, 1000) of each tensor",
)(_of_top(Identity()))

signtopk = entry(
    name="signtopk",
    paper="Basu et al. 2019",
    summary="signs of the top-k coordinates and one scale ||y||_1 / k, with error feedback, every H steps",
    differs_from_paper="k is global unless granularity=tensor",
)(_of_top(Sign()))


@entry(
    name="qsparse",
    paper="Basu et al. 2019",
    summary="top-k or random-k coordinates, quantized, with error feedback, every H steps (or random gaps up to H)",
    differs_from_paper="scaled by 1/(1 + beta) with both branches of beta; the server's broadcast is exact",
)
def qsparse(
    select: Literal["top", "random"] = "top",
    density: Density | None = None,
    k: float | None = None,
    values: Literal["levels", "signs"] = "levels",
    levels: int | None = None,
    norm: Literal["l2", "max"] = "l2",
    scaled: bool = True,
    every: int = 1,
    gaps: Literal["fixed", "random"] = "fixed",
    granularity: Granularity = Whole(),
    memory: Remember = "error-feedback",
    wipe: bool = False,
    exchange: Route = "server",
) -> Method:
    """Sparsified, quantized and infrequent; the memory may be wiped where the learning rate drops."""
    kept = quantizer(values, levels, norm, scaled)
    schedule = RandomGaps(every) if gaps == "random" else Every(every)
    method = _qsparse(select, density, k, kept, schedule, granularity, memory, exchange)
    return replace(method, reset_memory=wipe)


def _qsparse(
    select: str, density: float | None, k: float | None, values: Compressor, schedule: Schedule,
    granularity: Granularity, memory: str, exchange: str,
) -> Method:  # fmt: skip
    return ModelAveraging(
        schedule=schedule, memory=MEMORIES[memory], compressor=sparsifier(select, density, k, values),
        exchange=ROUTES[exchange], granularity=granularity,
    )  # fmt: skip


ROWS: tuple[CatalogEntry, ...] = (
    sgd,
    bf16_sgd,
    fp16_sgd,
    local_sgd,
    qsgd,
    mem_sgd,
    ef_signsgd,
    topk,
    signtopk,
    qsparse,
)

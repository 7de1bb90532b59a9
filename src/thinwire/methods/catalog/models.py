"""Infrequent averaging of models: local steps, elastic and outer optimizers."""

from typing import Literal

from thinwire.compressors import QSGD, Bins, NaturalDithering, TopK
from thinwire.exchanges import AllReduce, Gather
from thinwire.layout import Chunks, Granularity, PerTensor
from thinwire.memory import ErrorFeedback
from thinwire.methods.base import Method, ModelAveraging
from thinwire.methods.catalog.parts import NO_MIX, NO_MOMENTUM, ROUTES, Overlap, RobustRoute, outer
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.elastic import Elastic
from thinwire.methods.options import Density, Fraction
from thinwire.methods.schedules import Every, PostLocal

_BETA = Fraction(0.9)
_OUTER_MOMENTUM = Fraction(0.9)
_HALF = Fraction(0.5)
_DECAY = Fraction(0.95)
_ONE_IN_64 = Density(1 / 64)


@entry(
    name="post-local-sgd",
    paper="Lin, Stich, Patel, Jaggi 2018",
    summary="f32 models, averaged after every step up to step `switch`, then after every H local steps",
    differs_from_paper="the switch is a number of steps, where the paper takes the first drop of the learning "
    "rate; before it models are averaged instead of gradients, which is the same for SGD with momentum",
)
def post_local_sgd(switch: int = 100, every: int = 8) -> Method:
    """Local steps once the model has found its valley."""
    return ModelAveraging(schedule=PostLocal(switch=switch, steps=every))


@entry(
    name="sparse-averaging",
    paper="Jiang, Agrawal 2018",
    summary="f32 models, one of p consecutive slices averaged at a time, in turn",
    differs_from_paper="slices are equal parts of the flat vector; the paper leaves open how components are chosen",
)
def sparse_averaging(fragments: int = 8, every: int = 1) -> Method:
    """A slice of the model at a time."""
    return ModelAveraging(schedule=Every(every), fragments=fragments)


@entry(
    name="pqasgd",
    paper="Jiang, Agrawal 2018",
    summary="displacements of p steps, rounded at random to s levels in buckets; no memory",
    differs_from_paper="rounded as the gradients of qsgd are: b bits mean s = 2^(b-1) - 1 levels, and a bucket is "
    "scaled by its maximum unless norm=l2",
)
def pqasgd(
    every: int = 2, bits: int = 2, norm: Literal["max", "l2"] = "max", granularity: Granularity = Chunks(512),
    exchange: RobustRoute = "gather",
) -> Method:  # fmt: skip
    """Stochastically rounded displacements, without memory."""
    return ModelAveraging(
        schedule=Every(every), compressor=QSGD(levels=QSGD.bits_to_levels(bits), norm=norm),
        exchange=ROUTES[exchange], granularity=granularity,
    )  # fmt: skip


@entry(
    name="easgd",
    paper="Zhang, Choromanska, LeCun 2015",
    summary="f32 differences to the centre every tau steps; workers keep models of their own, tied to the centre "
    "(alpha = beta / P unless given)",
    differs_from_paper="local steps come before the elastic step, where the paper takes the gradient at the model "
    "before it",
)
def easgd(every: int = 4, beta: Fraction = _BETA, alpha: Fraction | None = None) -> Method:
    """Workers on springs around a centre."""
    return ModelAveraging(schedule=Every(every), update=Elastic(beta=beta, alpha=alpha))


@entry(
    name="diloco",
    paper="Douillard et al. 2023",
    summary="f32 displacements of H local steps, to outer Nesterov SGD; the optimizer of local steps is yours "
    "(AdamW in the paper); overlap=late applies a mean one period later, overlap=eager all but the worker's own "
    "part of it (Kale, Douillard, Donchev 2025); weights=norm and max_norm=10 are EDiT's penalty (Cheng et al. 2025)",
)
def diloco(
    every: int = 500, lr: float = 0.7, momentum: Fraction = _OUTER_MOMENTUM, nesterov: bool = True,
    delay: int = 0, mix: Fraction = NO_MIX, overlap: Overlap = "none",
    weights: Literal["alike", "norm"] = "alike", max_norm: float | None = None,
) -> Method:  # fmt: skip
    """An outer optimizer on what workers did in hundreds of steps."""
    is_plain = weights == "alike" and max_norm is None
    return ModelAveraging(
        schedule=Every(every), exchange=AllReduce() if is_plain else Gather(weights=weights, max_norm=max_norm),
        update=outer(lr, momentum, nesterov, mix, overlap), delay=delay,
    )  # fmt: skip


@entry(
    name="streaming-diloco",
    paper="Douillard et al. 2025",
    summary="displacements of one fragment at a time in 4 bits, applied `delay` steps later and mixed with the "
    "worker's own parameters",
    differs_from_paper="fragments are equal consecutive parts of the flat vector, one every `every` steps, where "
    "the paper takes groups of layers; 4-bit codes are zero and seven powers of two on each side, from the "
    "tensor's largest magnitude down, rounded without bias, where E3M0 has no zero and rounds to the nearest",
)
def streaming_diloco(
    every: int = 25,
    fragments: int = 4,
    delay: int = 5,
    mix: Fraction = _HALF,
    levels: int = 7,
    lr: float = 0.7,
    momentum: Fraction = _OUTER_MOMENTUM,
    nesterov: bool = True,
    granularity: Granularity = PerTensor(),
) -> Method:
    """One fragment at a time, in four bits, applied while training goes on."""
    return ModelAveraging(
        schedule=Every(every), compressor=NaturalDithering(levels=levels, norm="max"), exchange=Gather(),
        granularity=granularity, update=outer(lr, momentum, nesterov, mix), fragments=fragments, delay=delay,
    )  # fmt: skip


@entry(
    name="sparseloco",
    paper="Sarfi et al. 2025",
    summary="the largest entries of each chunk in 2 bits, with error feedback that fades, every H steps",
    differs_from_paper="chunks are of the flat vector (the code's are 64x64 blocks of matrices) and there is one "
    "table of 2-bit values for the message (the code has one for each tensor); the mean is over all workers, as "
    "in the paper's formula: the code has mean=contributors,clip=median",
)
def sparseloco(
    every: int = 30,
    density: Density = _ONE_IN_64,
    bits: int = 2,
    decay: Fraction = _DECAY,
    lr: float = 1.0,
    momentum: Fraction = NO_MOMENTUM,
    mean: Literal["all", "contributors"] = "all",
    clip: Literal["none", "median"] = "none",
    granularity: Granularity = Chunks(4096),
) -> Method:
    """The largest of each chunk in two bits, with a memory that fades."""
    return ModelAveraging(
        schedule=Every(every), memory=ErrorFeedback(decay=decay), compressor=TopK(density=density, values=Bins(bits)),
        exchange=Gather(mean=mean, clip=clip), granularity=granularity,
        update=outer(lr, momentum, nesterov=True),
    )  # fmt: skip


eamsgd = entry(
    name="eamsgd",
    paper="Zhang, Choromanska, LeCun 2015",
    summary="as easgd; the momentum inside the local steps is the optimizer's: sgd:momentum=0.99,nesterov=yes",
    differs_from_paper="torch's Nesterov momentum keeps the model at the point that looks ahead, and the elastic "
    "step acts there; with an optimizer without momentum it is easgd",
)(easgd.build)

ROWS: tuple[CatalogEntry, ...] = (
    post_local_sgd,
    sparse_averaging,
    pqasgd,
    easgd,
    eamsgd,
    diloco,
    streaming_diloco,
    sparseloco,
)

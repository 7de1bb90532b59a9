"""Every worker on its own clock, against a server that takes part as one more process."""

from typing import Literal

from thinwire.exchanges import AsynchronousServer
from thinwire.layout import Granularity, Whole
from thinwire.methods.base import Method, ModelAveraging
from thinwire.methods.catalog.parts import MEMORIES, Remember, quantizer, sparsifier
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.downpour import AveragedCentre, Downpour
from thinwire.methods.options import Density, Fraction
from thinwire.methods.schedules import Every, Staggered
from thinwire.methods.server_updates import ElasticFollow, Follow

_BETA = Fraction(0.9)
_MOMENTUM = Fraction(0.99)
_PER_MILLE = Fraction(0.001)
_EASGD = "Zhang, Choromanska, LeCun 2015, supplement"


@entry(
    name="local-sgd-async",
    paper="Basu et al. 2019, Alg. 2, without compression",
    summary="f32 displacements every H steps of its own clock, merged by a server as they come",
    differs_from_paper="one more process, the server; staleness bounds how far a worker may be ahead of the slowest",
)
def local_sgd_async(every: int = 8, staleness: int | None = None) -> Method:
    """Displacements in f32, merged as they come."""
    return ModelAveraging(schedule=Every(every), exchange=AsynchronousServer(staleness), update=Follow())


@entry(
    name="qsparse-async",
    paper="Basu et al. 2019, Alg. 2",
    summary="top-k or random-k coordinates, quantized, with error feedback, every H steps of its own clock",
    differs_from_paper="workers' clocks are free, where the paper's share one; the server's answer is its model in f32",
)
def qsparse_async(
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
    staleness: int | None = None,
) -> Method:
    """Sparsified, quantized and infrequent, on each worker's own clock."""
    kept = quantizer(values, levels, norm, scaled)
    return ModelAveraging(
        schedule=Staggered(every, gaps="random") if gaps == "random" else Every(every),
        memory=MEMORIES[memory], reset_memory=wipe, compressor=sparsifier(select, density, k, kept),
        exchange=AsynchronousServer(staleness), granularity=granularity, update=Follow(),
    )  # fmt: skip


@entry(
    name="easgd-async",
    paper="Zhang, Choromanska, LeCun 2015, Alg. 1 and 2",
    summary="parameters in f32 every H steps of its own clock; worker and centre move towards each other",
    differs_from_paper="alpha = beta / P unless given; the elastic step follows the local one; momentum within "
    "local steps (EAMSGD) is the optimizer's: --optimizer sgd:momentum=0.99,nesterov=yes",
)
def easgd_async(
    every: int = 16, beta: Fraction = _BETA, alpha: Fraction | None = None, staleness: int | None = None
) -> Method:
    """Elastic averaging with a centre that each worker visits when it likes."""
    update = ElasticFollow(beta=beta, alpha=alpha)
    return ModelAveraging(schedule=Every(every), exchange=AsynchronousServer(staleness), update=update)


@entry(
    name="downpour",
    paper="Dean et al. 2012; " + _EASGD,
    summary="f32 displacements of tau steps of its own clock, each of which a server takes up in full",
    differs_from_paper="the learning rate is one for all entries, as in the second paper, where the first takes "
    "Adagrad's at the server",
)
def downpour(every: int = 1, staleness: int | None = None) -> Method:
    """What workers do, summed as it comes."""
    return ModelAveraging(schedule=Every(every), exchange=AsynchronousServer(staleness), update=Downpour())


@entry(
    name="mdownpour",
    paper=_EASGD,
    summary="as downpour after every step; the server's steps have Nesterov momentum",
    differs_from_paper="written as torch's SGD with nesterov: the server's model is the point that looks ahead; the "
    "learning rate that a gradient is multiplied by is the worker's",
)
def mdownpour(momentum: Fraction = _MOMENTUM, staleness: int | None = None) -> Method:
    """Gradients as they come, to a server that has the momentum."""
    return ModelAveraging(exchange=AsynchronousServer(staleness), update=Downpour(momentum=momentum))


@entry(
    name="adownpour",
    paper=_EASGD,
    summary="as downpour; what is evaluated is the mean of the server's models so far",
)
def adownpour(every: int = 1, staleness: int | None = None) -> Method:
    """A centre averaged over time."""
    update = AveragedCentre(Downpour())
    return ModelAveraging(schedule=Every(every), exchange=AsynchronousServer(staleness), update=update)


@entry(
    name="mvadownpour",
    paper=_EASGD,
    summary="as downpour; what is evaluated is a moving average of the server's models",
)
def mvadownpour(every: int = 1, rate: Fraction = _PER_MILLE, staleness: int | None = None) -> Method:
    """A centre averaged over the last 1 / rate messages."""
    update = AveragedCentre(Downpour(), rate=rate)
    return ModelAveraging(schedule=Every(every), exchange=AsynchronousServer(staleness), update=update)


ROWS: tuple[CatalogEntry, ...] = (
    local_sgd_async,
    qsparse_async,
    easgd_async,
    downpour,
    mdownpour,
    adownpour,
    mvadownpour,
)

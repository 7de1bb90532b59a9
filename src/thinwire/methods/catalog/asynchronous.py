"""Every worker on its own clock, against a server that takes part as one more process."""

from typing import Literal

from thinwire.exchanges import AsynchronousServer
from thinwire.layout import Granularity, Whole
from thinwire.methods.base import Method, ModelAveraging
from thinwire.methods.catalog.parts import MEMORIES, Remember, quantizer, sparsifier
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.options import Density, Fraction
from thinwire.methods.schedules import Every, Staggered
from thinwire.methods.server_updates import ElasticFollow, Follow

_BETA = Fraction(0.9)


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


ROWS: tuple[CatalogEntry, ...] = (local_sgd_async, qsparse_async, easgd_async)

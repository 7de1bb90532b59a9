"""Gossip with gradient tracking: workers with different data come to one optimum at a constant learning rate."""

from typing import Literal

from thinwire.exchanges import Gossip
from thinwire.methods.base import Method, ModelAveraging
from thinwire.methods.catalog.gossip import FIXED, Shape
from thinwire.methods.catalog.parts import difference
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.consensus import Consensus
from thinwire.methods.options import Density, Fraction
from thinwire.methods.tracking import Tracking

_MOMENTUM = Fraction(0.9)
_DIFFERS = (
    "model and tracked gradient leave together after the optimizer's step, so that the first tracked gradient is sent "
    "as well (the paper begins with the second); what is known of models at first are the common initial parameters"
)


@entry(
    name="beer",
    paper="Zhao, Li, Li, Richtarik, Chi 2022",
    summary="as choco, and beside it the compressed difference of a tracked gradient, by which the optimizer steps in "
    "place of the worker's own: for workers with different data",
    differs_from_paper=_DIFFERS,
)
def beer(
    select: Literal["top", "random", "all"] = "top",
    density: Density | None = None,
    k: float | None = None,
    values: Literal["exact", "signs"] = "exact",
    levels: int | None = None,
    gamma: float = 0.1,
    graph: Shape = "ring",
) -> Method:
    """Compressed gossip of models and of tracked gradients."""
    return ModelAveraging(
        compressor=difference(select, density, k, values, levels), exchange=Gossip(graph=FIXED[graph]),
        update=Consensus(gamma=gamma), delay=1, tracking=Tracking(),
    )  # fmt: skip


@entry(
    name="motef",
    paper="Islamov, Gao, Stich 2024",
    summary="as beer, of a running mean of gradients: for small batches",
    differs_from_paper=f"momentum is 1 - lambda; {_DIFFERS}",
)
def motef(
    select: Literal["top", "random", "all"] = "top",
    density: Density | None = None,
    k: float | None = None,
    values: Literal["exact", "signs"] = "exact",
    levels: int | None = None,
    momentum: Fraction = _MOMENTUM,
    gamma: float = 0.1,
    graph: Shape = "ring",
) -> Method:
    """Compressed gossip of models and of tracked momenta."""
    return ModelAveraging(
        compressor=difference(select, density, k, values, levels), exchange=Gossip(graph=FIXED[graph]),
        update=Consensus(gamma=gamma), delay=1, tracking=Tracking(momentum=momentum),
    )  # fmt: skip


ROWS: tuple[CatalogEntry, ...] = (beer, motef)

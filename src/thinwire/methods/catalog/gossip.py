"""Gossip with local steps: events that decide who speaks, and outer optimizers of neighbours."""

from typing import Literal, TypeAlias

from thinwire.compressors import Identity, Sign
from thinwire.exchanges import Gossip
from thinwire.exchanges.changing_graphs import ChangingGraph, OnePeerExponential, RandomPairs
from thinwire.exchanges.graphs import Complete, Graph, Ring, Torus
from thinwire.memory import Trigger
from thinwire.methods.base import Method, ModelAveraging
from thinwire.methods.catalog.parts import sparsifier
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.consensus import Consensus
from thinwire.methods.neighbours import OuterGossip
from thinwire.methods.options import Density, Fraction
from thinwire.methods.schedules import Every

Shape: TypeAlias = Literal["ring", "torus", "complete"]
AnyShape: TypeAlias = Literal["ring", "torus", "complete", "pairs", "exponential"]
FIXED: dict[str, Graph] = {"ring": Ring(), "torus": Torus(), "complete": Complete()}
GRAPHS: dict[str, Graph | ChangingGraph] = {**FIXED, "pairs": RandomPairs(), "exponential": OnePeerExponential()}
_HALF, _NO_GROWTH = Fraction(0.5), Fraction(0.0)


@entry(
    name="sparq",
    paper="Singh, Data, George, Diggavi 2020",
    summary="as choco after every H local steps, and only from workers that have moved by more than a threshold: "
    "||x - xhat||^2 > level t^growth lr^2; else an empty message",
    differs_from_paper="compresses, then mixes, and starts as choco does; the threshold grows by a power of the "
    "step, as in the theorems, where the experiments raise it in stages",
)
def sparq(
    density: Density | None = None,
    k: float | None = None,
    values: Literal["signs", "exact"] = "signs",
    every: int = 5,
    level: float = 2.0,
    growth: Fraction = _NO_GROWTH,
    gamma: float = 0.1,
    graph: Shape = "ring",
) -> Method:
    """Compressed differences to the neighbours, of those who have something to say."""
    density = Density(0.1) if density is None and k is None else density
    return ModelAveraging(
        schedule=Every(every), compressor=sparsifier("top", density, k, Sign() if values == "signs" else Identity()),
        exchange=Gossip(graph=FIXED[graph]), update=Consensus(gamma=gamma), trigger=Trigger(level=level, growth=growth),
    )  # fmt: skip


@entry(
    name="noloco",
    paper="Kolehmainen et al. 2025",
    summary="f32 slow weights and displacements of H local steps, summed to one vector, to one other worker drawn anew "
    "each round; a Nesterov step that draws the two together",
    differs_from_paper="lr times the displacement plus gamma times the slow weights are sent as one vector, which has "
    "the same step and half the bytes; of an odd number of workers one rests; the optimizer of local steps is yours "
    "(Adam in the paper), and layers are not routed at random through pipelines",
)
def noloco(
    every: int = 50, lr: float = 0.7, momentum: Fraction = _HALF, gamma: float = 0.7, graph: AnyShape = "pairs"
) -> Method:
    """An outer optimizer without any collective."""
    update = OuterGossip(lr=lr, momentum=momentum, gamma=gamma)
    return ModelAveraging(schedule=Every(every), exchange=Gossip(graph=GRAPHS[graph]), update=update)


ROWS: tuple[CatalogEntry, ...] = (sparq, noloco)

"""Other routes: gossip, trees, owners of shards, islands, a server that compresses what it sends."""

from typing import Literal

from thinwire.compressors import Identity, SharedSeedRandK, Sign, TopK
from thinwire.exchanges import AllReduce, Gossip, Hierarchical, ParameterServer, SparseReduceScatter, Tree
from thinwire.memory import ErrorFeedback
from thinwire.methods.base import GradientAveraging, Method, ModelAveraging
from thinwire.methods.catalog.gossip import FIXED, GRAPHS, AnyShape, Shape
from thinwire.methods.catalog.parts import difference, sparsifier
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.consensus import Consensus
from thinwire.methods.neighbours import Mix
from thinwire.methods.options import Density
from thinwire.methods.schedules import Every

_ONE_PERCENT = Density(0.01)


@entry(
    name="d-psgd",
    paper="Lian et al. 2017",
    summary="f32 models to the neighbours in a graph, or to one worker at a time in a graph that changes; each takes "
    "the weighted mean",
    differs_from_paper="mixes after the gradient step, where the paper evaluates the gradient before and adds it "
    "after mixing",
)
def d_psgd(graph: AnyShape = "ring", every: int = 1) -> Method:
    """Exact models, averaged with those of the neighbours."""
    exchange = Gossip(graph=GRAPHS[graph])
    update = Consensus(gamma=1.0) if exchange.is_fixed else Mix()
    return ModelAveraging(schedule=Every(every), exchange=exchange, update=update)


@entry(
    name="choco",
    paper="Koloskova, Stich, Jaggi 2019",
    summary="compressed difference to what the neighbours know of the worker, to the neighbours in a graph",
    differs_from_paper="compresses, then mixes, where the authors' code mixes first; what is known at first are "
    "the common initial parameters, where the paper has 0",
)
def choco(
    select: Literal["top", "random", "all"] = "top",
    density: Density | None = None,
    k: float | None = None,
    values: Literal["exact", "signs"] = "exact",
    levels: int | None = None,
    gamma: float | None = None,
    graph: Shape = "ring",
    every: int = 1,
) -> Method:
    """Compressed differences to the neighbours, which keep track of each other."""
    compressor = difference(select, density, k, values, levels)
    return ModelAveraging(
        schedule=Every(every), compressor=compressor, exchange=Gossip(graph=FIXED[graph]),
        update=Consensus(gamma=0.1 if gamma is None else gamma),
    )  # fmt: skip


@entry(
    name="double-squeeze",
    paper="Tang et al. 2019",
    summary="top-k coordinates of the gradient up and of the mean down, with error feedback at both ends",
    differs_from_paper="the memories hold gradients, so that a change of the learning rate weighs what they left "
    "out anew",
)
def double_squeeze(
    values: Literal["exact", "signs"] = "exact", density: Density | None = None, k: float | None = None
) -> Method:
    """Compressed gradients up and a compressed mean down, with a memory at both ends."""
    compressor = sparsifier("top", density, k, Sign() if values == "signs" else Identity())
    return GradientAveraging(
        memory=ErrorFeedback(), compressor=compressor, exchange=ParameterServer(downlink=compressor)
    )  # fmt: skip


@entry(
    name="gtopk",
    paper="Shi et al. 2019",
    summary="top-k coordinates up a tree that keeps the top-k of every sum, with memory at every node",
    differs_from_paper="in units of the parameters; what a merge evicts waits at that node, where the paper "
    "returns it to the workers that sent it",
)
def gtopk(density: Density | None = None, k: float | None = None, every: int = 1, arity: int = 2) -> Method:
    """Top-k coordinates, of which a tree keeps the top-k at every merge."""
    compressor = sparsifier("top", density, k, Identity())
    return ModelAveraging(
        schedule=Every(every), memory=ErrorFeedback(), compressor=compressor,
        exchange=Tree(arity=arity, merge=compressor),
    )  # fmt: skip


@entry(
    name="ok-topk",
    paper="Li, Hoefler 2022",
    summary="top-k coordinates to the owners of P regions; the top-k of each region's sum to all",
    differs_from_paper="exact selection, in each region its share of k, where the paper tracks one threshold for "
    "all; what an owner leaves out it keeps itself; exact=yes sends all sums (SparCML), balanced=yes moves the "
    "regions then",
)
def ok_topk(density: Density = _ONE_PERCENT, every: int = 1, exact: bool = False, balanced: bool = False) -> Method:
    """Top-k coordinates to the owners of regions, and the top-k of their sums back."""
    compressor = TopK(density=density)
    return ModelAveraging(
        schedule=Every(every), memory=ErrorFeedback(), compressor=compressor,
        exchange=SparseReduceScatter(select=None if exact or balanced else compressor, balanced=balanced),
    )  # fmt: skip


@entry(
    name="shared-randk",
    paper="Konecny, Richtarik 2018; Stich et al. 2018",
    summary="values of random coordinates, the same on all workers, all-reduced; no indices, no fill-in",
    differs_from_paper="with error feedback, where the first paper scales by d/k",
)
def shared_randk(density: Density | None = None, k: float | None = None, every: int = 1) -> Method:
    """The same random coordinates on all workers, all-reduced."""
    density = Density(0.01) if density is None and k is None else density
    return ModelAveraging(
        schedule=Every(every), memory=ErrorFeedback(), compressor=SharedSeedRandK(density=density, k=k, shared=True),
        exchange=AllReduce(),
    )  # fmt: skip


@entry(
    name="islands",
    paper="standard",
    summary="f32 displacements inside islands of workers; top-k coordinates of their sums between islands",
)
def islands(island: int = 2, density: Density | None = None, k: float | None = None, every: int = 1) -> Method:
    """Exact sums inside islands, top-k between them."""
    return ModelAveraging(
        schedule=Every(every), memory=ErrorFeedback(), compressor=sparsifier("top", density, k, Identity()),
        exchange=Hierarchical(island),
    )  # fmt: skip


ROWS: tuple[CatalogEntry, ...] = (d_psgd, choco, double_squeeze, gtopk, ok_topk, shared_randk, islands)

"""Messages that are changes of an estimate, which all workers add up."""

from typing import Literal

from thinwire.compressors import Identity
from thinwire.exchanges import Accumulating, BetterEstimate, ParameterServer
from thinwire.layout import Chunks, Granularity, Whole
from thinwire.memory import EF21, Change, CorrectedChange, ErrorControl, EstimatedMomentum, Shift
from thinwire.methods.base import GradientAveraging, Method
from thinwire.methods.catalog.parts import ROUTES, Route, sparsifier, unbiased
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.options import Density, Fraction
from thinwire.methods.warm_up import WarmUp

_MOMENTUM = Fraction(0.9)
_FIRST_EXACT = WarmUp((Identity(),), 1)
_PER_CENT = Density(0.01)
_ONE_GRADIENT = (
    "the difference is of two minibatch gradients, each at its own point: a training loop has one gradient a step, "
    "where the paper takes both points on the same samples (or full gradients, with which it is the same)"
)


@entry(
    name="diana",
    paper="Mishchenko et al. 2019",
    summary="how the gradient differs from a shift that is learnt from these messages, rounded at random",
    differs_from_paper="shifts learn at 1 / (1 + omega) of the worst case, where the paper has a constant of its norm "
    "and block; momentum and regularizer are the optimizer's",
)
def diana(
    levels: int | None = None,
    norm: Literal["max", "l2"] = "max",
    density: Density | None = None,
    k: int | None = None,
    rate: Fraction | None = None,
    granularity: Granularity = Chunks(512),
    exchange: Route = "gather",
) -> Method:
    """Unbiased messages whose variance goes to 0."""
    return GradientAveraging(
        memory=Shift(rate), compressor=unbiased(density, k, levels, norm),
        exchange=Accumulating(ROUTES[exchange], rate=rate), granularity=granularity,
    )  # fmt: skip


@entry(
    name="ef21-plus",
    paper="Richtarik, Sokolov, Fatkhullin 2021",
    summary="top-k or random-k coordinates of the gradient, or of how it differs from its estimate, whichever brings "
    "the estimate nearer; who averages keeps an estimate of each worker",
    differs_from_paper="the paper's C is deterministic; a random one draws the same coordinates for both",
)
def ef21_plus(
    select: Literal["top", "random"] = "top",
    density: Density | None = None,
    k: float | None = None,
    granularity: Granularity = Whole(),
    exchange: Route = "gather",
) -> Method:
    """Each worker's estimate, changed or replaced."""
    return GradientAveraging(
        compressor=sparsifier(select, density, k, Identity()), exchange=BetterEstimate(exchange),
        granularity=granularity,
    )  # fmt: skip


@entry(
    name="ef21-sgdm",
    paper="Fatkhullin, Tyurin, Richtarik 2023",
    summary="top-k or random-k coordinates of how a running mean of gradients differs from its public estimate",
    differs_from_paper="the running mean begins at the first gradient, the estimate at C of it",
)
def ef21_sgdm(
    select: Literal["top", "random"] = "top",
    density: Density | None = None,
    k: float | None = None,
    momentum: Fraction = _MOMENTUM,
    granularity: Granularity = Whole(),
    exchange: Route = "gather",
) -> Method:
    """Compressed changes of each worker's momentum."""
    return GradientAveraging(
        memory=EstimatedMomentum(EF21(), momentum), compressor=sparsifier(select, density, k, Identity()),
        exchange=Accumulating(ROUTES[exchange]), granularity=granularity,
    )  # fmt: skip


@entry(
    name="ef21-bc",
    paper="Fatkhullin et al. 2021",
    summary="EF21 up; down, of how the mean estimate differs from what all know of it, coordinates chosen alike",
    differs_from_paper="the estimates begin at C(gradient) up and C of their mean down",
)
def ef21_bc(
    select: Literal["top", "random"] = "top",
    density: Density | None = None,
    k: float | None = None,
    granularity: Granularity = Whole(),
) -> Method:
    """Compressed changes in both directions."""
    compressor = sparsifier(select, density, k, Identity())
    return GradientAveraging(
        memory=EF21(), compressor=compressor, exchange=Accumulating(ParameterServer(downlink=compressor)),
        granularity=granularity,
    )  # fmt: skip


@entry(
    name="econtrol",
    paper="Gao, Islamov, Stich 2023",
    summary="coordinates of how the gradient differs from its estimate, and of a part of all that was missing so far",
    differs_from_paper="the feedback is the compressor's gamma unless it is given, where the theorems take a fraction "
    "of it; the first gradient is sent as it is",
)
def econtrol(
    select: Literal["top", "random"] = "top",
    density: Density | None = None,
    k: float | None = None,
    feedback: Fraction | None = None,
    granularity: Granularity = Whole(),
    exchange: Route = "gather",
) -> Method:
    """An estimate with controlled error feedback."""
    return GradientAveraging(
        memory=ErrorControl(feedback), compressor=sparsifier(select, density, k, Identity()),
        exchange=Accumulating(ROUTES[exchange]), granularity=granularity, warm_up=_FIRST_EXACT,
    )  # fmt: skip


@entry(
    name="marina",
    paper="Gorbunov et al. 2021",
    summary="random coordinates of how the gradient has changed; with a probability all workers send all of it",
    differs_from_paper=_ONE_GRADIENT,
)
def marina(
    density: Density | None = None,
    k: int | None = None,
    levels: int | None = None,
    restart: Fraction | None = None,
    granularity: Granularity = Whole(),
    exchange: Route = "gather",
) -> Method:
    """Changes that add up, begun anew now and then."""
    density = _PER_CENT if density is None and k is None and levels is None else density
    return GradientAveraging(
        memory=Change(), compressor=unbiased(density, k, levels), warm_up=_FIRST_EXACT,
        exchange=Accumulating(ROUTES[exchange], restart=restart), granularity=granularity,
    )  # fmt: skip


@entry(
    name="dasha",
    paper="Tyurin, Richtarik 2022",
    summary="random coordinates of how the gradient has changed, less a part of what the estimate is off",
    differs_from_paper=f"its form with gradients; {_ONE_GRADIENT}",
)
def dasha(
    density: Density | None = None,
    k: int | None = None,
    levels: int | None = None,
    rate: Fraction | None = None,
    granularity: Granularity = Whole(),
    exchange: Route = "gather",
) -> Method:
    """Changes that add up and correct themselves."""
    density = _PER_CENT if density is None and k is None and levels is None else density
    return GradientAveraging(
        memory=CorrectedChange(rate), compressor=unbiased(density, k, levels), warm_up=_FIRST_EXACT,
        exchange=Accumulating(ROUTES[exchange]), granularity=granularity,
    )  # fmt: skip


ROWS: tuple[CatalogEntry, ...] = (diana, ef21_plus, ef21_sgdm, ef21_bc, econtrol, marina, dasha)

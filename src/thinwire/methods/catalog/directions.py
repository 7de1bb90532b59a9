"""Optimizers that compress what they exchange: the momentum."""

from typing import Literal, TypeAlias

from thinwire.compressors import Identity, PlainSign, Sign
from thinwire.exchanges import (
    CompressedReduceScatter,
    Directed,
    Direction,
    Exchange,
    MajorityVote,
    OrthonormalLines,
    PowerIteration,
)
from thinwire.layout import Granularity, PerTensor
from thinwire.memory import LionMomentum, MomentumFeedback
from thinwire.methods.base import GradientAveraging, Method, ModelAveraging
from thinwire.methods.catalog.parts import MEMORIES, ROUTES, Remember
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.directions import FrozenAdam
from thinwire.methods.frozen_lamb import FrozenLamb
from thinwire.methods.options import Density, Fraction
from thinwire.methods.schedules import DoublingGaps, DoublingSteps
from thinwire.methods.warm_up import WarmUp
from thinwire.methods.zero_one_adam import ZeroOneAdam

OneBitRoute: TypeAlias = Literal["owners", "gather", "server"]
_BETA1, _BETA2, _LION_BETA2 = Fraction(0.9), Fraction(0.999), Fraction(0.99)
_MU, _QUARTER = Fraction(0.95), Density(0.25)
_TENSORS = PerTensor()
_EPS = 1e-8


@entry(
    name="1bit-adam",
    paper="Tang et al. 2021",
    summary="Adam on f32 gradients, then signs of the momentum to the owners of shards and back, with error feedback "
    "both ways and the variance as it was",
    differs_from_paper="the learning rate is the optimizer's (plain SGD, whose weight decay is decoupled); a sign "
    "stands for the mean magnitude of its tensor, where the published code takes the root mean square; entries whose "
    "gradient was 0 in the warm-up do not move, where the code wants a mask; correct=yes has Adam's bias correction",
)
def one_bit_adam(
    warmup: int = 100,
    beta1: Fraction = _BETA1,
    beta2: Fraction = _BETA2,
    eps: float = _EPS,
    correct: bool = False,
    granularity: Granularity = _TENSORS,
    memory: Remember = "error-feedback",
    exchange: OneBitRoute = "owners",
) -> Method:
    """Signs of a momentum that all share, over a variance that was learnt before."""
    adam = FrozenAdam(beta1=beta1, beta2=beta2, eps=eps, freeze=warmup, corrects_bias=correct)
    return _one_bit(adam, warmup, granularity, memory, exchange)


@entry(
    name="01-adam",
    paper="Lu et al. 2022",
    summary="signs of the sum of each worker's local Adam momenta to the owners of shards and back, after gaps that "
    "double, with error feedback both ways; f32 gradients at ever fewer steps, from which the variance is learnt",
    differs_from_paper="the learning rate is the optimizer's (plain SGD, without weight decay); gaps between exchanges "
    "double after a number of steps, as in the published code, and not as the learning rate falls; an entry whose "
    "variance is 0 does not move; a sign stands for the mean magnitude of its tensor; Algorithm 1 from memory",
)
def zero_one_adam(
    warmup: int = 100,
    kappa: int = 16,
    period: int = 32678,
    most: int = 16,
    beta1: Fraction = _BETA1,
    beta2: Fraction = _BETA2,
    eps: float = _EPS,
    granularity: Granularity = _TENSORS,
    memory: Remember = "error-feedback",
    exchange: OneBitRoute = "owners",
) -> Method:
    """Signs of momenta that are each worker's own between exchanges, over a variance that all share."""
    variance = DoublingGaps(kappa)
    return ModelAveraging(
        schedule=DoublingSteps(switch=warmup, period=period, most=most), memory=MEMORIES[memory], compressor=Sign(),
        exchange=_one_bit_route(exchange), granularity=granularity,
        update=ZeroOneAdam(beta1=beta1, beta2=beta2, eps=eps, variance=variance, freeze=warmup),
    )  # fmt: skip


@entry(
    name="1bit-lamb",
    paper="Li et al. 2021",
    summary="LAMB on f32 gradients, then signs of the momentum both ways with error feedback; the ratio of a layer is "
    "the mean one of the warm-up, times how its variance has changed since",
    differs_from_paper="the learning rate is the optimizer's (plain SGD, whose weight decay is decoupled and not in "
    "the ratio); every tensor has a mean magnitude of its own, where the paper makes momenta alike before one; entries "
    "whose gradient was 0 in the warm-up do not move",
)
def one_bit_lamb(
    warmup: int = 100,
    beta1: Fraction = _BETA1,
    beta2: Fraction = _BETA2,
    eps: float = _EPS,
    granularity: Granularity = _TENSORS,
    memory: Remember = "error-feedback",
    exchange: OneBitRoute = "owners",
) -> Method:
    """Signs of a momentum that all share, with a step for each layer in proportion to its weights."""
    lamb = FrozenLamb(beta1=beta1, beta2=beta2, eps=eps, freeze=warmup)
    return _one_bit(lamb, warmup, granularity, memory, exchange)


def _one_bit(
    direction: Direction, warmup: int, granularity: Granularity, memory: Remember, route: OneBitRoute
) -> Method:
    return GradientAveraging(
        memory=MEMORIES[memory], compressor=Sign(), granularity=granularity,
        exchange=Directed(direction=direction, exchange=_one_bit_route(route)),
        warm_up=WarmUp((Identity(),), warmup),
    )  # fmt: skip


def _one_bit_route(route: OneBitRoute) -> Exchange:
    return CompressedReduceScatter() if route == "owners" else ROUTES[route]


@entry(
    name="signed-lion",
    paper="Liu et al. 2024",
    summary="signs of each worker's Lion step up; signs of the majority down, or the mean of all signs",
    differs_from_paper="the learning rate is the optimizer's (plain SGD, whose weight decay is decoupled); sign(0) and "
    "ties are +1; a mean of signs that a server sends is in f32",
)
def signed_lion(
    beta1: Fraction = _BETA1,
    beta2: Fraction = _LION_BETA2,
    step: Literal["majority", "mean"] = "majority",
    exchange: Literal["server", "gather"] = "server",
) -> Method:
    """One vote for each entry, by the sign of a running mean in which the newest gradient counts more."""
    route = MajorityVote(exchange) if step == "majority" else ROUTES[exchange]
    return GradientAveraging(memory=LionMomentum(beta1, beta2), compressor=PlainSign(), exchange=route)


@entry(
    name="dion",
    paper="Ahn, Xu, Abreu, Langford 2025",
    summary="two factors of rank r of each momentum matrix, all-reduced in turn; the step has orthonormal columns of "
    "the common part, which fades from the momentum while the rest waits in it",
    differs_from_paper="the learning rate is the optimizer's (plain SGD, whose weight decay is decoupled); biases are "
    "exact and step by the sign of their momentum, where the paper gives them and embeddings to Lion or AdamW; what "
    "fades is of each worker's own momentum; a rank is a number, at most that by which a matrix still gains",
)
def dion(rank: int = 16, momentum: Fraction = _MU, warm: bool = True) -> Method:
    """Orthonormal steps along the few directions that momenta have in common."""
    return GradientAveraging(
        memory=MomentumFeedback(momentum),
        exchange=PowerIteration(rank=rank, warm_start=warm, result="orthonormal"),
    )


@entry(
    name="dion2",
    paper="Ahn, Amsel, Langford 2025",
    summary="a quarter of the rows (or columns) of each momentum matrix, drawn alike on all workers; the step is "
    "orthonormal in them, and they fade from the momentum",
    differs_from_paper="the learning rate is the optimizer's (plain SGD, whose weight decay is decoupled); lines are "
    "drawn at random, which the paper tries too, since those of the largest momenta are others on each worker; biases "
    "are exact and step by the sign of their momentum",
)
def dion2(share: Density = _QUARTER, momentum: Fraction = _MU) -> Method:
    """Orthonormal steps in a few lines of each matrix."""
    return GradientAveraging(memory=MomentumFeedback(momentum), exchange=OrthonormalLines(share))


ROWS: tuple[CatalogEntry, ...] = (one_bit_adam, zero_one_adam, one_bit_lamb, signed_lion, dion, dion2)

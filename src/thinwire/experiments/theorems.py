"""What the theorems say of a method: constants of its operator, local steps, step sizes, bounds."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

from thinwire.compressors import Identity, Traits, segment_traits
from thinwire.errors import ConfigError
from thinwire.exchanges import Gossip
from thinwire.exchanges.graphs import Graph, beta, mixing_matrix, spectral_gap
from thinwire.layout import Layout
from thinwire.memory import ErrorFeedback
from thinwire.methods import Consensus, Elastic, Method, ModelAveraging, NeighbourUpdate, check_method
from thinwire.theory import (
    LOCAL_SGD,
    QSPARSE_LOCAL_SGD,
    choco_consensus_step,
    choco_shift,
    local_memory_bound,
    local_sgd_shift,
    max_local_steps,
    qsparse_shift,
)
from thinwire.wire import max_num_bytes

_WINDOW = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TheoryProblem:
    """What the theorems are asked about.

    Args:
        layout: of the model.
        workers: P.
        steps: T.
        batch_size: examples per worker and step.
        lr: the largest learning rate.
        gradient_norm: G, the largest root mean square of a worker's gradient norm.
        kappa: condition number L / mu of a strongly convex objective.

    Raises:
        ConfigError: a number out of range.
    """

    layout: Layout
    workers: int
    steps: int
    batch_size: int
    lr: float
    gradient_norm: float
    kappa: float

    def __post_init__(self) -> None:
        if min(self.workers, self.steps, self.batch_size) < 1:
            raise ConfigError(
                f"{self.workers} workers, {self.steps} steps and batches of {self.batch_size} were given; each is 1 or "
                "more"
            )
        if not (self.lr > 0.0 and self.gradient_norm > 0.0 and self.kappa >= 1.0):
            raise ConfigError(
                f"a learning rate of {self.lr}, gradients of norm {self.gradient_norm} and kappa = {self.kappa} were "
                "given; the first two are above 0, kappa is at least 1"
            )


@dataclass(frozen=True, slots=True)
class Fact:
    """One number with what it means and where it is from.

    Args:
        quantity: what it is.
        value: the number.
        certainty: ``exact``, ``bound`` (proven), or ``order`` (proven up to a constant, taken as 1).
        source: theorem or equation.
    """

    quantity: str
    value: float
    certainty: str
    source: str


def facts(method: Method, problem: TheoryProblem) -> list[Fact]:
    """Everything that is known of a method on a problem; what does not apply to it is left out.

    Raises:
        ConfigError: a method that does not fit the model.

    Example:
        >>> import torch
        >>> from thinwire.methods import parse_method
        >>> layout = Layout(("w",), (torch.Size([1000]),))
        >>> problem = TheoryProblem(
        ...     layout=layout, workers=4, steps=10**6, batch_size=25, lr=0.1, gradient_norm=1.0, kappa=10.0)
        >>> [(fact.quantity, round(fact.value, 3)) for fact in facts(parse_method("topk:k=10"), problem)[:2]]
        [('contraction gamma', 0.01), ('largest gap H between exchanges', 1)]
    """
    segments = check_method(method, problem.layout)
    traits = segment_traits(method.compressor, segments)
    gap = max_gap(method)
    found = [*_of_the_operator(traits), Fact("largest gap H between exchanges", gap, "exact", "the schedule")]
    bits = 8.0 * max_num_bytes(method.compressor.outline(segments)) / segments.numel
    found.append(Fact("bits per parameter and message, at most", bits, "bound", "the wire format, headers included"))
    gamma = 1.0 if isinstance(method.compressor, Identity) else traits.gamma
    if isinstance(method, ModelAveraging) and isinstance(method.update, Consensus):
        return [*found, *_of_gossip(method, gamma, problem)]
    if isinstance(method, ModelAveraging) and isinstance(method.update, NeighbourUpdate):
        return found
    if isinstance(method, ModelAveraging) and isinstance(method.update, Elastic):
        return found  # stable or not by the curvature: thinwire.theory.elastic_is_stable
    return [*found, *_of_local_steps(method, gamma, gap, problem)]


def max_gap(method: Method) -> int:
    """The most steps between two exchanges of a worker."""
    if not isinstance(method, ModelAveraging):
        return 1
    due = [0, *(step for step in range(1, _WINDOW) if method.schedule.due(step, 0))]
    return max((after - before for before, after in itertools.pairwise(due)), default=_WINDOW)


def _of_the_operator(traits: Traits) -> list[Fact]:
    if traits.unbiased:
        return [Fact("relative variance omega", traits.error, "bound", "E||C(x) - x||^2 <= omega ||x||^2")]
    if math.isfinite(traits.error) and traits.error < 1.0:
        return [Fact("contraction gamma", traits.gamma, "bound", "E||C(x) - x||^2 <= (1 - gamma) ||x||^2")]
    return []


def _of_local_steps(method: Method, gamma: float, gap: int, problem: TheoryProblem) -> list[Fact]:
    """Under a contraction with error feedback, or exact messages."""
    remembers = isinstance(method.memory, ErrorFeedback)
    if not 0.0 < gamma <= 1.0 or not (remembers or isinstance(method.compressor, Identity)):
        return []
    asynchronous = isinstance(method, ModelAveraging) and not method.schedule.workers_agree
    common: dict[str, Any] = {
        "steps": problem.steps, "workers": problem.workers, "batch_size": problem.batch_size, "gamma": gamma,
        "asynchronous": asynchronous,
    }  # fmt: skip
    source = f"Basu et al. 2019, corollaries, {'asynchronous' if asynchronous else 'synchronous'}"
    found = [
        Fact(f"local steps that are free, {kind}", max_local_steps(**common, convex=convex), "order", source)
        for convex, kind in ((False, "smooth"), (True, "strongly convex"))
    ]
    if isinstance(method.compressor, Identity):
        shift, numerator, theorem = local_sgd_shift(problem.kappa, gap), LOCAL_SGD, "Stich 2018, Theorem 2.2"
    else:
        shift, numerator = qsparse_shift(problem.kappa, gap, gamma), QSPARSE_LOCAL_SGD
        theorem = "Basu et al. 2019, Theorem 2"
    found.append(Fact(f"shift a of eta_t = {numerator:g} / (mu (a + t)), above", shift, "bound", theorem))
    if remembers:
        lr = problem.lr if isinstance(method, ModelAveraging) else 1.0
        bound = local_memory_bound(gamma=gamma, max_gap=gap, lr=lr, gradient_norm=problem.gradient_norm)
        found.append(
            Fact("norm of the memory, at most", math.sqrt(bound), "bound", "Basu et al. 2019, Lemma 4, corrected")
        )
    return found


def _of_gossip(method: ModelAveraging, gamma: float, problem: TheoryProblem) -> list[Fact]:
    graph = method.exchange.graph if isinstance(method.exchange, Gossip) else None
    if not isinstance(graph, Graph) or problem.workers < 2:
        return []
    matrix = mixing_matrix(graph, problem.workers)
    delta = spectral_gap(matrix)
    found = [Fact("spectral gap delta of the graph", delta, "exact", "1 - |lambda_2(W)|")]
    if delta > 0.0 and 0.0 < gamma <= 1.0 and method.tracking is None:
        step, shift = choco_consensus_step(delta, beta(matrix), gamma), choco_shift(delta, gamma, problem.kappa)
        source = "Koloskova et al. 2019, Theorem"
        found.append(Fact("consensus step gamma that is proven", step, "bound", f"{source} 2"))
        found.append(Fact("shift a of eta_t = 4 / (mu (a + t)), at least", shift, "bound", f"{source} 4"))
    return found

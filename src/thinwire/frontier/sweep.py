"""The frontier: every operator on one input, at given budgets, for one message, several clients and many steps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from thinwire.config import to_json
from thinwire.errors import ConfigError
from thinwire.frontier.compositions import composed
from thinwire.frontier.configurations import Configuration
from thinwire.frontier.finalists import NUM_CHOOSING, interval
from thinwire.frontier.inputs import InputVectors
from thinwire.frontier.points import KINDS, Kind, Point, pareto
from thinwire.frontier.problems import Measured, Problem, running_sum_error
from thinwire.frontier.search import Search

BUDGETS = (0.1, 0.5, 1.0, 2.0, 4.0)
LEAST_BITS, MOST_BITS = 0.01, 8.0
NUM_STEPS = 100
_NUM_LEADERS = 4  # operators at each budget whose running sum is measured
_SLACK = 1.02
_NUM_OF_CLIENTS = 2  # draws of several clients, whose mean is a mean over draws already


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierRow:
    """The best member of an operator at a budget.

    Args:
        input: name of the input.
        budget: the most bits an entry.
        kind: among which members it is the best.
        clients: how many clients' messages are averaged.
        operator: name of the outermost compressor.
        configuration: all of it, for a reader.
        json: all of it, for :func:`thinwire.config.from_json`.
        chunk: entries of the chunks it is applied to; the whole vector if none.
        bits: true bits of a message for each entry.
        error: of the mean of the clients' messages, on draws that had no part in the choice.
        error_low: lower end of its 95 % interval; the error itself where there were too few draws.
        error_high: the upper end.
        unbiased: so its traits say.
        contraction: its error is proven to be below 1.
        running_sum: error of the sum over 100 steps, with memory for contractions, else without; of the four best
            operators at each budget, single clients.
    """

    input: str
    budget: float
    kind: Kind
    clients: int
    operator: str
    configuration: str
    json: Any
    chunk: int | None
    bits: float
    error: float
    error_low: float
    error_high: float
    unbiased: bool
    contraction: bool
    running_sum: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values under the names of the fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """What was measured on an input.

    Args:
        input: its name.
        numel: its length.
        points: every configuration between 0.01 and 8 bits an entry, single messages.
        rows: the best of each operator at each budget.
    """

    input: str
    numel: int
    points: tuple[Point, ...]
    rows: tuple[FrontierRow, ...]

    def pareto(self, kind: Kind = "any") -> list[Point]:
        """The points of that kind which no other beats in bits and in error."""
        return pareto(point for point in self.points if point.is_of(kind))


def frontier(
    data: InputVectors, *, budgets: Sequence[float] = BUDGETS, clients: Sequence[int] = (1, 8, 32), draws: int = 2,
    num_steps: int = NUM_STEPS, watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Frontier:  # fmt: skip
    """Measure every operator on an input.

    Single messages are searched as by :func:`thinwire.frontier.best_operator`, but for the climbs from the best of all.
    Of each operator the members on its own fronts, of any kind and unbiased, are then measured for several clients, and
    the four best at a budget over ``num_steps`` steps (0: not at all). What is chosen is measured again on fresh draws.

    Raises:
        ConfigError: no budgets or clients, or out of range.
    """
    if not budgets or not clients or min(budgets) <= 0.0:
        raise ConfigError(f"budgets {list(budgets)} and clients {list(clients)} were given; at least one each, above 0")
    search = Search(Problem([data.clients(1)], draws), watch=lambda done, total: watch("families", done, total))
    best: list[tuple[float, Kind, int, Point]] = []
    for number, budget in enumerate(budgets):
        for kind in KINDS:
            composed(search, budget, kind)
            found = search.best_of_operators(budget, kind)
            best += [(budget, kind, 1, point) for point in found.values()]
        watch("budgets", number + 1, len(budgets))
    for count in (count for count in clients if count != 1):
        best += _of_clients(data, search, budgets, count, watch)
    wanted = list(dict.fromkeys(point for budget in budgets for point in _leaders(best, budget)))
    sums: dict[Configuration, float] = {}
    steps = [data.step(number) for number in range(num_steps)]
    for number, point in enumerate(wanted if steps else ()):
        sums[point.configuration] = running_sum_error(point.configuration, steps, memory=point.contraction)
        watch("running sums", number + 1, len(wanted))
    draws_again = {count: NUM_CHOOSING if count == 1 else _NUM_OF_CLIENTS for count in clients}
    again = {count: Problem([data.clients(count)], number, "rows") for count, number in draws_again.items()}
    rows = tuple(
        FrontierRow(
            input=data.name, budget=budget, kind=kind, clients=count, operator=point.operator,
            configuration=str(point.configuration), json=to_json(point.configuration.compressor),
            chunk=point.configuration.chunk, bits=point.bits, error=measured.error,
            error_low=interval(measured)[0], error_high=interval(measured)[1], unbiased=point.unbiased,
            contraction=point.contraction, running_sum=sums.get(point.configuration) if count == 1 else None,
        )
        for budget, kind, count, point in best
        if count in clients
        and (measured := again[count].measure(point.configuration)) is not None
        and (measured.is_typical or not point.unbiased)
    )  # fmt: skip
    points = tuple(point for point in search.points if LEAST_BITS <= point.bits <= MOST_BITS)
    return Frontier(data.name, data.numel, points, rows)


def _of_clients(
    data: InputVectors, search: Search, budgets: Sequence[float], count: int, watch: Callable[[str, int, int], None]
) -> list[tuple[float, Kind, int, Point]]:
    problem = Problem([data.clients(count)], draws=1)
    operators: dict[str, list[Point]] = {}
    for point in search.points:
        if point.bits <= max(budgets):
            operators.setdefault(point.operator, []).append(point)
    fronts = {
        name: list(dict.fromkeys(one for kind in KINDS for one in _thinned(pareto(p for p in own if p.is_of(kind)))))
        for name, own in operators.items()
    }
    known: dict[Configuration, Measured] = {}
    for number, own in enumerate(fronts.values()):
        for point in own:
            measured = problem.measure(point.configuration)
            if measured is not None:
                known[point.configuration] = measured
        watch(f"{count} clients", number + 1, len(fronts))
    best = []
    for budget in budgets:
        for kind in KINDS:
            for own in fronts.values():
                # Clients' vectors are not the signal, so a message that fitted exactly may be a little longer.
                legal = [
                    replace(point, bits=found.bits, error=found.error) for point in own
                    if point.is_of(kind) and (found := known.get(point.configuration)) and found.bits <= _SLACK * budget
                ]  # fmt: skip
                if legal:
                    point = min(legal, key=lambda one: (one.error, one.bits))
                    best.append((budget, kind, count, point))
    return best


def _leaders(best: list[tuple[float, Kind, int, Point]], budget: float) -> list[Point]:
    """The best operators for single messages at a budget."""
    own = [point for at, kind, count, point in best if (at, kind, count) == (budget, "any", 1)]
    return sorted(own, key=lambda point: (point.error, point.bits))[:_NUM_LEADERS]


def _thinned(front: list[Point]) -> list[Point]:
    """Of each half of an octave of bits the last point: the refinement leaves many that are nearly equal."""
    return list({round(2.0 * math.log2(point.bits)): point for point in front}.values())

"""Two tables of well-known operators: their error as they are published, and at a fixed number of bits."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from thinwire.compressors import QSGD, Compressor, Sign, TopK
from thinwire.compressors.drive import DRIVE
from thinwire.compressors.eden import EDEN
from thinwire.compressors.gspar import GSpar
from thinwire.compressors.half import Half
from thinwire.compressors.k_level import KLevel
from thinwire.compressors.rotate import Rotate
from thinwire.compressors.seeded_rand_k import SharedSeedRandK
from thinwire.compressors.tern_grad import TernGrad
from thinwire.errors import ConfigError
from thinwire.frontier.configurations import Configuration
from thinwire.frontier.inputs import InputVectors
from thinwire.frontier.ladders import KNOBS, Knob, OperatorFamily
from thinwire.frontier.problems import Problem
from thinwire.frontier.search import Search

REFERENCE: dict[str, Configuration] = {
    "pi_sb": Configuration(KLevel(levels=2)),
    "pi_srk k=2": Configuration(Rotate(values=KLevel(levels=2))),
    "EDEN 1 bit": Configuration(EDEN(1.0)),
    "DRIVE, contraction": Configuration(DRIVE(scale="contraction")),
    "sign, mean magnitude": Configuration(Sign()),
    "TernGrad, no clip": Configuration(TernGrad(clip=None, coding="entropy")),
    "QSGD s=1, max norm, bucket 512": Configuration(QSGD(levels=1, norm="max", coding="entropy"), 512),
    "pi_svk k=sqrt(d)+1": Configuration(KLevel(levels=129, span="norm", coding="entropy")),
    "pi_sk k=4": Configuration(KLevel(levels=4)),
    "pi_srk k=4": Configuration(Rotate(values=KLevel(levels=4))),
    "EDEN 2 bits": Configuration(EDEN(2.0)),
    "QSGD s=sqrt(d), l2, Elias": Configuration(QSGD(levels=128, coding="elias")),
    "pi_srk k=16": Configuration(Rotate(values=KLevel(levels=16))),
    "QSGD s=7, max norm, bucket 512": Configuration(QSGD(levels=7, norm="max"), 512),
    "EDEN 4 bits": Configuration(EDEN(4.0)),
    "top-1%": Configuration(TopK(density=0.01)),
    "top-10%": Configuration(TopK(density=0.1)),
    "sign top-1%": Configuration(TopK(density=0.01, values=Sign())),
    "sign top-10%": Configuration(TopK(density=0.1, values=Sign())),
    "GSpar 1%": Configuration(GSpar(density=0.01)),
    "rand-1%, shared seed": Configuration(SharedSeedRandK(density=0.01, unbiased=True)),
    "GSpar 10%": Configuration(GSpar(density=0.1)),
    "rand-10%, shared seed": Configuration(SharedSeedRandK(density=0.1, unbiased=True)),
}
"""Operators as they are published, for vectors of 16,384 entries."""

_QUANTIZERS = tuple(
    QSGD(levels=levels, norm="max", scaled=scaled, coding="entropy")
    for levels in (1, 2, 3, 5, 7, 11, 15, 22, 31)
    for scaled in (True, False)
)
BUDGETED: dict[str, tuple[Callable[[float], Compressor], ...]] = {
    "rand-k, shared seed": (lambda density: SharedSeedRandK(density=density, unbiased=True),),
    "GSpar": (lambda density: GSpar(density=density),),
    "EDEN": (lambda bits: EDEN(bits),),
    "top-k f32": (lambda density: TopK(density=density),),
    "top-k bf16": (lambda density: TopK(density=density, values=Half()),),
    "sign top-k": (lambda density: TopK(density=density, values=Sign()), lambda density: Sign()),
    "QSGD top-k": tuple(
        lambda density, values=values: TopK(density=density, values=values) for values in _QUANTIZERS  # type: ignore[misc]
    ),
    "EDEN, contraction": (lambda bits: EDEN(bits, scale="contraction"),),
}  # fmt: skip
"""Operators whose density or bits are chosen so that the message fits a budget."""
_TIMES_MORE = 4
BUDGETED_SEED = 11
"""Of the inputs on which that comparison is known; Student-t draws differ much from each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An operator on an input.

    Args:
        name: as in the table.
        input: name of the input.
        budget: the most bits an entry, where there is one.
        configuration: what was measured.
        bits: of its message for each entry, frame and all.
        error: mean over draws; where a density or bits were chosen, over others than those that chose.
    """

    name: str
    input: str
    budget: float | None
    configuration: str
    bits: float
    error: float

    def to_json(self) -> dict[str, str | float | None]:
        """Plain values under the names of the fields."""
        return asdict(self)


def reference_table(inputs: Sequence[InputVectors], draws: int = 16) -> list[Line]:
    """Each operator of ``REFERENCE`` on each input."""
    lines = []
    problems = {data.name: Problem([data.clients(1)], draws) for data in inputs}
    for name, configuration in REFERENCE.items():
        for data in inputs:
            measured = problems[data.name].measure(configuration)
            if measured is not None:
                lines.append(
                    Line(
                        name=name, input=data.name, budget=None, configuration=str(configuration),
                        bits=measured.bits, error=measured.error,
                    )
                )  # fmt: skip
    return lines


def budget_table(
    inputs: Sequence[InputVectors], budgets: Sequence[float] = (0.1, 0.5, 1.0, 2.0),
    names: Sequence[str] = tuple(BUDGETED), *, draws: int = 16, free_bytes: int = 0,
) -> list[Line]:  # fmt: skip
    """Each operator of ``BUDGETED`` at each budget on each input.

    Args:
        inputs: what is compressed.
        budgets: bits an entry.
        names: which operators of ``BUDGETED``.
        draws: with which densities and bits are chosen; errors are means over four times as many others.
        free_bytes: of a message, which are not counted. A formula for the entries alone leaves out the frame, lengths
            and scales: 20 bytes or so, which is 16 % of 0.1 bits for each of 16,384 entries.
    """
    lines = []
    for data in inputs:
        problem = Problem([data.clients(1)], draws)
        again = Problem([data.clients(1)], _TIMES_MORE * draws, "rows")
        for name in names:
            makers = BUDGETED[name]
            knob = KNOBS["bits" if name.startswith("EDEN") else "density"]
            search = Search(problem, [_family(name, knob, maker) for maker in makers])
            for budget in budgets:
                point = search.best(budget + 8.0 * free_bytes / data.numel)
                measured = None if point is None else again.measure(point.configuration)
                if point is not None and measured is not None:
                    lines.append(
                        Line(
                            name=name, input=data.name, budget=budget, configuration=str(point.configuration),
                            bits=point.bits, error=measured.error,
                        )
                    )  # fmt: skip
    return lines


def _family(name: str, knobs: tuple[float, ...], maker: Callable[[float], Compressor]) -> OperatorFamily:
    def make(knob: Knob) -> Configuration | None:
        try:
            return None if knob is None else Configuration(maker(knob))
        except ConfigError:
            return None  # out of the operator's range

    return OperatorFamily(name, knobs, True, make)

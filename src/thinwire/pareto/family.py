"""The configurations that are made of a sparsifier, a quantizer and local steps; and the parts of any method."""

import itertools
from dataclasses import dataclass

import torch

from thinwire.errors import ConfigError
from thinwire.exchanges import OrthonormalLines, PowerIteration
from thinwire.layout import Layout
from thinwire.methods import Method, num_exchanges, parse_method
from thinwire.pareto.parts import Part
from thinwire.payloads import DCT, Concat, Dense, LowRank, Payload, Rotated, SeededSparse, Sparse, Sum

DENSE = ("sgd", "bf16-sgd")
"""What all are compared with, in 32 and in 16 bits."""
MOST_BITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The grid of a combination and of what it is made of.

    Signs (1 bit) keep what they leave out in a memory, as all sparsifiers do; levels alone are unbiased and have none,
    as in their papers. All compressed messages are gathered, so that what crosses a link differs by the messages only.

    Args:
        densities: kept shares as a method string has them, such as ``1%``.
        bits: of a value that is sent, the sign among them; 1 means signs and a scale.
        periods: local steps between exchanges, at least 2.

    Raises:
        ConfigError: a value out of range, or given twice.

    Example:
        >>> family = Family(densities=("1%",), bits=(4,), periods=(8,))
        >>> family.methods()[2:6]
        ('qsgd:bits=4', 'topk:density=1%', 'local-sgd:every=8', 'qsparse:density=1%,levels=7,norm=max,exchange=gather')
    """

    densities: tuple[str, ...] = ("1%", "10%")
    bits: tuple[int, ...] = (1, 4)
    periods: tuple[int, ...] = (4, 16)

    def __post_init__(self) -> None:
        if not all(1 <= each <= MOST_BITS for each in self.bits):
            raise ConfigError(f"--bits {_listed(self.bits)} was given; a value that is sent has 1 to {MOST_BITS} bits")
        if not all(each >= 2 for each in self.periods):
            raise ConfigError(
                f"--every {_listed(self.periods)} was given; a period has at least 2 steps: every configuration is "
                "tried without local steps too"
            )
        for name, values in (("--density", self.densities), ("--bits", self.bits), ("--every", self.periods)):
            if len(set(values)) < len(values):
                raise ConfigError(f"{name} {_listed(values)} has a value twice; each is tried once")

    def methods(self) -> tuple[str, ...]:
        """Dense, the parts alone, in pairs, and all three, as method strings."""
        bits, densities, periods = self.bits, self.densities, self.periods
        product = itertools.product
        return (
            *DENSE,
            *(_quantized(each) for each in bits),
            *(f"topk:density={density}" for density in densities),
            *(f"local-sgd:every={every}" for every in periods),
            *(_both(density, each) for density, each in product(densities, bits)),
            *(_quantized(each, every) for each, every in product(bits, periods)),
            *(f"topk:density={density},every={every}" for density, every in product(densities, periods)),
            *(_both(density, each, every) for density, each, every in product(densities, bits, periods)),
        )


def parts_of(method: str) -> tuple[Part, ...]:
    """Which parts a method is made of, by what it sends and when.

    Raises:
        ConfigError: no such method.

    Example:
        >>> parts_of("sgd"), parts_of("signtopk:density=1%,every=8"), parts_of("powersgd")
        ((), ('quantize', 'sparsify', 'local steps'), ('low rank',))
    """
    made = parse_method(method)
    layout = Layout(("matrix",), (torch.Size([256, 256]),))
    payload = made.compressor.outline(made.granularity.segments(layout))
    found = _parts_of_payload(payload) | _parts_of_program(made)
    order: tuple[Part, ...] = ("quantize", "sparsify", "low rank", "local steps")
    return tuple(part for part in order if part in found)


_NUM_STEPS = 1_000
"""Over which local steps are looked for; schedules that begin without them have some by then."""


def _parts_of_program(method: Method) -> set[Part]:
    found: set[Part] = set()
    if num_exchanges(method, 0, _NUM_STEPS) < _NUM_STEPS:
        found.add("local steps")
    if isinstance(method.exchange, PowerIteration):
        found.add("low rank")
    if isinstance(method.exchange, OrthonormalLines):
        found.add("sparsify")
    return found


def _parts_of_payload(payload: Payload) -> set[Part]:
    match payload:
        case Dense(values):
            return set() if values.dtype == torch.float32 else {"quantize"}
        case Sparse(values=values) | SeededSparse(values=values):
            return {"sparsify", *_parts_of_payload(values)}
        case Concat(parts) | Sum(parts):
            return set().union(*map(_parts_of_payload, parts))
        case LowRank():
            return {"low rank"}
        case Rotated(inner=values) | DCT(inner=values):
            return _parts_of_payload(values)
    return {"quantize"}  # levels, signs, grids, codebooks, powers of two


def _quantized(bits: int, every: int = 1) -> str:
    if bits == 1:
        return "ef-signsgd" + (f":every={every}" if every > 1 else "")
    return f"pqasgd:every={every},bits={bits}" if every > 1 else f"qsgd:bits={bits}"


def _both(density: str, bits: int, every: int = 1) -> str:
    period = f",every={every}" if every > 1 else ""
    if bits == 1:
        return f"signtopk:density={density}{period}"
    return f"qsparse:density={density},levels={2 ** (bits - 1) - 1},norm=max{period},exchange=gather"


def _listed(values: tuple[object, ...]) -> str:
    return ",".join(map(str, values))

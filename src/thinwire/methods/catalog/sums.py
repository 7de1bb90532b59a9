"""Messages whose sum is a message: integers, codes of one table, values at one support."""

from typing import Literal

from thinwire.compressors import TopK
from thinwire.exchanges import IntegerSum, LeaderSupport, TableSum
from thinwire.layout import Granularity, PerTensor, Whole
from thinwire.memory import LowPass
from thinwire.methods.base import GradientAveraging, Method
from thinwire.methods.catalog.parts import MEMORIES, Remember
from thinwire.methods.catalog.row import CatalogEntry, entry
from thinwire.methods.options import Density, Fraction

_BETA_OF_STEPS, _BETA_OF_FILTER = Fraction(0.9), Fraction(0.1)
_TAIL = Density(1 / 32)


@entry(
    name="intsgd",
    paper="Mishchenko et al. 2021",
    summary="gradients over a common adaptive unit, rounded at random to integers that are all-reduced as integers",
    differs_from_paper="the unit follows the mean gradients, which under plain SGD are the paper's steps over learning "
    "rates; one unit a tensor unless granularity=whole",
)
def intsgd(
    format: Literal["int8", "int16", "int32"] = "int8",
    beta: Fraction = _BETA_OF_STEPS,
    granularity: Granularity = PerTensor(),
) -> Method:
    """Integers, whose sums never overflow."""
    return GradientAveraging(exchange=IntegerSum(format, beta), granularity=granularity)


@entry(
    name="thc",
    paper="Li et al. 2024",
    summary="codes of 4 bits of rotated gradients in a common table, whose integers a server adds without decoding",
    differs_from_paper="the server is a worker, and no switch; blocks of powers of two in place of padding; all "
    "workers' messages are waited for",
)
def thc(bits: int = 4, tail: Density = _TAIL, memory: Remember = "error-feedback") -> Method:
    """Homomorphic compression by a table."""
    return GradientAveraging(memory=MEMORIES[memory], exchange=TableSum(bits=bits, tail=tail))


@entry(
    name="scalecom",
    paper="Chen et al. 2020",
    summary="values at one worker's top-k indices, in turns, all-reduced; a memory with a low-pass filter",
    differs_from_paper="top-k is exact, where the paper takes the largest of each chunk; no warm-up; the filter is on "
    "from the first step",
)
def scalecom(
    density: Density | None = None,
    k: int | None = None,
    beta: Fraction = _BETA_OF_FILTER,
    granularity: Granularity = Whole(),
) -> Method:
    """One support for all workers, chosen by each in its turn."""
    density = Density(0.01) if density is None and k is None else density
    return GradientAveraging(
        memory=LowPass(beta), compressor=TopK(density=density, k=k), exchange=LeaderSupport(), granularity=granularity
    )


ROWS: tuple[CatalogEntry, ...] = (intsgd, thc, scalecom)

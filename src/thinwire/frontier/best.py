"""The operator to use for given vectors and a given number of bits, or a given error."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from thinwire.compressors import Compressor
from thinwire.errors import ConfigError
from thinwire.frontier.configurations import Configuration
from thinwire.frontier.problems import Problem
from thinwire.frontier.search import KINDS, Kind, Point, Search
from thinwire.layout import Granularity


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The operator that was chosen, and what is known of it on the vectors that were given.

    Args:
        compressor: ready to be used in a method.
        granularity: how to cut the vector for it.
        bits_per_entry: of its message, frame and all; mean over the vectors.
        error: ``||C(x) - x||^2 / ||x||^2``, mean over draws and vectors.
        unbiased: so it is proven.
        contraction: its error is proven to be below 1 for every vector of that length.
        num_measured: configurations that were compared.
    """

    compressor: Compressor
    granularity: Granularity
    bits_per_entry: float
    error: float
    unbiased: bool
    contraction: bool
    num_measured: int

    def __str__(self) -> str:
        what = Configuration(self.compressor, getattr(self.granularity, "length", None))
        proven = [name for name, holds in (("unbiased", self.unbiased), ("contraction", self.contraction)) if holds]
        kind = " and ".join(proven) or "neither unbiased nor a proven contraction: not for error feedback"
        return f"{what}: {self.bits_per_entry:.4g} bits an entry, error {self.error:.4g} ({kind})"


def best_operator(
    vectors: Tensor | Sequence[Tensor], *, bits_per_entry: float | None = None, error: float | None = None,
    kind: Kind = "any", draws: int = 4,
) -> Choice:  # fmt: skip
    """The operator of least error whose message takes at most ``bits_per_entry``; or of fewest bits for ``error``.

    Every registered compressor is tried, along its parameters, with the quantizers that are worth nesting in it, and
    the best are refined until the budget is used up. So the choice is at least as good as each of them alone, on these
    vectors and up to the refinement. The same vectors give the same choice. Takes some thousands of compressions of
    ``draws`` copies of each vector: seconds for 16,384 entries, in proportion for longer ones; give a part of them.

    Args:
        vectors: f32 ``[d]``, one or several, such as recorded gradients; bits and errors are means over them.
        bits_per_entry: the budget: 8 times the encoded bytes, over d.
        error: the most ``||C(x) - x||^2 / ||x||^2``.
        kind: ``"unbiased"`` (for use without memory), ``"contraction"`` (proven safe under error feedback) or
            ``"any"``: the least error of one message, of an operator that may be neither; see ``contraction`` of the
            result before it is given a memory.
        draws: independent draws of each operator's randomness over which the error is averaged.

    Raises:
        ConfigError: both or neither of budget and error; vectors that are empty, zero or not finite; nothing is
            within the budget.
    """
    given = [vectors] if isinstance(vectors, Tensor) else list(vectors)
    if (bits_per_entry is None) == (error is None):
        raise ConfigError(f"give either bits_per_entry or error, not {'neither' if error is None else 'both'}")
    limit = bits_per_entry if bits_per_entry is not None else error
    if limit is None or not 0.0 < limit < float("inf"):
        raise ConfigError(f"bits_per_entry = {bits_per_entry}, error = {error} was given; give a number above 0")
    if kind not in KINDS:
        raise ConfigError(f"kind {kind!r} is not known; it is one of {', '.join(KINDS)}")
    search = Search(Problem([vector.unsqueeze(0) for vector in given], draws))
    found = search.best(limit, kind) if error is None else search.cheapest(limit, kind)
    if found is None:
        asked = f"{limit:g} bits an entry" if error is None else f"an error of {limit:g}"
        raise ConfigError(f"no operator of kind {kind!r} reaches {asked} on these vectors; allow more")
    return choice_of(found, search)


def choice_of(point: Point, search: Search) -> Choice:
    """A point of a search as a choice."""
    return Choice(
        compressor=point.configuration.compressor, granularity=point.configuration.granularity,
        bits_per_entry=point.bits, error=point.error, unbiased=point.unbiased, contraction=point.contraction,
        num_measured=search.problem.num_measured,
    )  # fmt: skip

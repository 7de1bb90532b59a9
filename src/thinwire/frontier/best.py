"""The operator to use for given vectors and a given number of bits, or a given error."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from thinwire.compressors import Compressor
from thinwire.errors import ConfigError
from thinwire.frontier.climb import Aim
from thinwire.frontier.configurations import Configuration
from thinwire.frontier.finalists import Confirmed, confirmed, refined
from thinwire.frontier.points import KINDS, Kind
from thinwire.frontier.problems import Problem
from thinwire.frontier.search import Search
from thinwire.layout import Granularity


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The operator that was chosen, and what is known of it on the vectors that were given.

    Args:
        compressor: ready to be used in a method.
        granularity: into which segments to split the vector for it.
        bits_per_entry: of its message, frame and all; mean over draws and vectors.
        error: ``||C(x) - x||^2 / ||x||^2``, mean over vectors and over 64 draws that had no part in the choice.
        error_low: lower end of the 95 % interval of that mean.
        error_high: its upper end.
        unbiased: so its traits say.
        contraction: its error is proven to be below 1 for every vector of that length.
        num_measured: configurations that were compared.
    """

    compressor: Compressor
    granularity: Granularity
    bits_per_entry: float
    error: float
    error_low: float
    error_high: float
    unbiased: bool
    contraction: bool
    num_measured: int

    def __str__(self) -> str:
        what = Configuration(self.compressor, getattr(self.granularity, "length", None))
        proven = [name for name, holds in (("unbiased", self.unbiased), ("contraction", self.contraction)) if holds]
        kind = " and ".join(proven) or "neither unbiased nor a proven contraction: not for error feedback"
        within = "" if self.error_low == self.error_high else f" ({self.error_low:.4g} to {self.error_high:.4g})"
        return f"{what}: {self.bits_per_entry:.4g} bits an entry, error {self.error:.4g}{within} ({kind})"


def best_operator(
    vectors: Tensor | Sequence[Tensor], *, bits_per_entry: float | None = None, error: float | None = None,
    kind: Kind = "any", draws: int = 4,
) -> Choice:  # fmt: skip
    """The operator of least error whose message takes at most ``bits_per_entry``; or of fewest bits for ``error``.

    Every registered compressor is tried, along its parameters, with the quantizers that are worth nesting in it; so are
    sums of two messages, the second about what the first leaves out. The best are refined, all their numbers together,
    until the budget is used up. The best dozen of that are compared on fresh draws, and the numbers of the choice are
    measured on others again. It is a search, not a proof: it finds what is as good as each operator alone on these
    vectors, up to the refinement, and among compositions the best that it meets. The same vectors give the same choice.
    Takes some thousands of compressions of ``draws`` copies of each vector: about a minute for 16,384 entries, in
    proportion for longer ones; give a part of them.

    Args:
        vectors: f32 ``[d]``, one or several, such as recorded gradients; bits and errors are means over them.
        bits_per_entry: the budget: 8 times the encoded bytes, over d.
        error: the most ``||C(x) - x||^2 / ||x||^2``.
        kind: ``"unbiased"`` (for use without memory), ``"contraction"`` (proven safe under error feedback) or
            ``"any"``: the least error of one message, of an operator that may be neither; see ``contraction`` of the
            result before it is given a memory.
        draws: independent draws of each operator's randomness with which is searched.

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
    aim = Aim(limit, of_bits=error is None, kind=kind)
    found = confirmed(search, aim, given) if refined(search, aim) is not None else None
    if found is None:
        asked = f"{limit:g} bits an entry" if error is None else f"an error of {limit:g}"
        raise ConfigError(f"no operator of kind {kind!r} reaches {asked} on these vectors; allow more")
    return _choice(found, search)


def _choice(found: Confirmed, search: Search) -> Choice:
    point = found.point
    return Choice(
        compressor=point.configuration.compressor, granularity=point.configuration.granularity,
        bits_per_entry=point.bits, error=point.error, error_low=found.low, error_high=found.high,
        unbiased=point.unbiased, contraction=point.contraction, num_measured=search.problem.num_measured,
    )  # fmt: skip

"""What can be timed, in families that share their preparation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from thinwire.bench.entropy import entropy_bits, log2_binomial
from thinwire.bench.inputs import BenchInput
from thinwire.bench.timing import Case
from thinwire.payloads import Payload, Sparse
from thinwire.wire import encoded_num_bytes

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One thing to time; the fields are those of :class:`thinwire.bench.rows.BenchRow`."""

    step: str
    variant: str = ""
    density: float | None = None

    @property
    def name(self) -> str:
        """What a reader is shown."""
        density = "" if self.density is None else f"{100 * self.density:g} %"
        return " ".join(part for part in (self.step, density, self.variant) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a message, apart from time; the fields are those of :class:`thinwire.bench.rows.BenchRow`."""

    bits_per_entry: float | None = None
    entropy_bits: float | None = None
    bits_per_index: float | None = None
    index_bound_bits: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A case on data, and what is known of its messages; ``facts`` is called after the case has run."""

    case: Case
    facts: Callable[[], Facts] = Facts


class Turns(Generic[T]):
    """Several data for a case, one after the other."""

    def __init__(self, items: Sequence[T]) -> None:
        self._items = items
        self.current = items[0]

    def refill(self, turn: int) -> None:
        """Take that turn's."""
        self.current = self._items[turn % len(self._items)]


Maker: TypeAlias = Callable[[Member], Prepared]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFamily:
    """Members that share what ``open`` prepares on an input; it is let go before the next family is opened."""

    members: tuple[Member, ...]
    open: Callable[[BenchInput], Maker]


def single(member: Member, prepare: Callable[[BenchInput], Prepared]) -> BenchFamily:
    """A family of one."""
    return BenchFamily(members=(member,), open=lambda data: lambda _: prepare(data))


def facts_of(payload: Payload) -> Facts:
    """The bits of the message that the payload is encoded to.

    The positions of a sparse payload take what its message is longer than that of its values.

    Example:
        >>> import torch
        >>> from thinwire.payloads import Dense
        >>> facts_of(Sparse(1000, torch.tensor([1, 7]), Dense(torch.zeros(2)))).index_bound_bits
        9.465...
    """
    numel = max(1, payload.numel)
    coded = entropy_bits(payload)
    per_index = bound = None
    if isinstance(payload, Sparse) and payload.indices.numel():
        count = payload.indices.numel()
        per_index = 8 * (encoded_num_bytes(payload) - encoded_num_bytes(payload.values)) / count
        bound = log2_binomial(payload.numel, count) / count
    return Facts(
        bits_per_entry=8 * encoded_num_bytes(payload) / numel,
        entropy_bits=None if coded is None else coded / numel,
        bits_per_index=per_index,
        index_bound_bits=bound,
    )

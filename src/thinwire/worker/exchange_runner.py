"""How a participant exchanges its channels, in whatever order: each exchange is run, accepted, reported and counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from thinwire.config import as_written_today
from thinwire.errors import ConfigError
from thinwire.memory import Handed
from thinwire.methods import Method
from thinwire.staging import Verdict
from thinwire.steps import Steps
from thinwire.worker.channel import Channel, Outcome
from thinwire.worker.layer_report import ExchangeWatcher
from thinwire.worker.moment import Moment


@dataclass(slots=True, eq=False)
class ExchangeRunner:
    """Runs exchanges for one participant, and says who that is.

    Args:
        method: what is exchanged and how.
        rank: this participant.
        size: number of them.
        seed: of the method's randomness.
        watcher: looks at exchanges that it chooses, as a :class:`LayerReport` does.
    """

    method: Method
    rank: int
    size: int
    seed: int
    watcher: ExchangeWatcher | None = None
    num_steps: int = field(init=False, default=0)
    """Training steps that counted."""
    num_exchanges: int = field(init=False, default=0)
    """Exchanges that counted, of any channel."""
    message_bytes: int = field(init=False, default=0)
    """Bytes handed to the exchange so far, encoded."""
    counts_union: bool = field(init=False, default=False)
    """Whether :attr:`union_density` is counted, in a pass over every mean."""
    lr: float = field(init=False, default=0.0)
    """The optimizer's learning rate, the largest of its groups."""
    union_density: float | None = field(init=False, default=None)
    """The share of entries that are not 0 in the last mean."""
    weight: float = field(init=False, default=1.0)
    """By what means are multiplied: where the sum counts as that of another number than came."""

    def run(
        self, channel: Channel, x: Handed, finite: bool | Verdict, number: int, turn: int, *, forgets: bool = False
    ) -> Steps[Outcome]:  # fmt: skip
        """Exchange ``x``; nothing is remembered before :meth:`accept`.

        Args:
            channel: whose vector it is.
            x: the vector.
            finite: whether all of it is.
            number: addresses the randomness of this exchange.
            turn: how often the channel was exchanged before, which a warm-up and a report go by.
            forgets: whether the caller keeps the vector, so that the memory can be made again where it is needed.
        """
        is_watched = self.watcher is not None and self.watcher.is_due(turn, self.rank)
        compressor = channel.method.compressor_at(turn)
        forgets = forgets and not is_watched and channel.can_forget(compressor)
        moment = Moment(turn, self.num_steps, self.lr)
        outcome = yield from channel.run(x, compressor, finite, number, is_watched, forgets, moment)
        return replace(outcome, aggregate=outcome.aggregate.scaled(self.weight)) if self.weight != 1.0 else outcome

    def count(self, outcome: Outcome) -> None:
        """The bytes of this exchange were handed over and are of use."""
        self.message_bytes += outcome.aggregate.message_bytes

    def accept(self, channel: Channel, outcome: Outcome, step: int) -> None:
        """Remember what an exchange with a finite aggregate left, and report on it as of ``step``."""
        channel.accept(outcome)
        self.num_exchanges += 1
        if self.counts_union:
            self.union_density = outcome.aggregate.num_nonzero() / max(channel.layout.numel, 1)
        if self.watcher is not None:
            self.watcher.take(channel, outcome, step)

    def identity(self) -> dict[str, Any]:
        """What a state is refused by if it differs."""
        return {"method": repr(self.method), "rank": self.rank, "size": self.size, "seed": self.seed}


def check_same(saved: Mapping[str, Any], own: Mapping[str, Any], whose: str) -> None:
    """Raise :class:`ConfigError` unless the saved counters have each of these values of one's own."""
    for name, mine in own.items():
        was = saved[name]
        if (as_written_today(was) if isinstance(was, str) else was) != mine:
            raise ConfigError(f"the saved state is of {name} {was}, but this {whose} has {name} {mine}")

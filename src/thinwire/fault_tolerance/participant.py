"""One participant: what it has handed in, what of it counted, and what becomes of it when it comes back to others.

A message counts where all have voted for the mean that they got. Whoever has not voted has sent nothing that counts.
Who has voted and does not hear all votes is in doubt: another one may have heard them. It then rolls back, and learns
at the next meeting: the others know of each participant the last exchange in which its message counted.
"""

import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from thinwire.errors import ConfigError, ProtocolError
from thinwire.fault_tolerance.common import Applied, Common
from thinwire.fault_tolerance.standing import Standing
from thinwire.worker import Worker
from thinwire.worker.averaging import Proposal
from thinwire.worker.parameters import local_part, plain_name
from thinwire.worker.rounds import Rounds, checksum_of_mean
from thinwire.worker.trained import checksum

MOST_DOUBTS = 8
"""Each keeps what the memory would hold; more than one comes of failures between two votes, again and again."""

_VOTE = struct.Struct("<QIId")

Fate = Literal["new", "kept", "counted", "undone", "stale"]
"""What became of a participant's last message, in the eyes of those whose common point it takes over.

``new``: there was none; ``kept``: as it knows; ``counted``: it was in doubt, and counted; ``undone``: it counted here,
and does not there; ``stale``: others have heard later ones of it than it remembers.
"""


@dataclass(frozen=True, slots=True)
class Doubt:
    """An exchange that this participant has voted for, and of which it does not know whether it counted.

    Args:
        attempt: its name.
        size: of the quorum.
        place: of the channel.
        memory: what the memory holds if it did, by parameter name.
    """

    attempt: str
    size: int
    place: int
    memory: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """The last exchange that counted here.

    Args:
        attempt: its name; empty before the first.
        before: that of the one before it.
        take_back: what lets be sent again what was sent, should it turn out not to have counted; None if nothing can.
    """

    attempt: str = ""
    before: str = ""
    take_back: Callable[[], None] | None = None


class Participant:
    """A worker among those that come and go.

    Args:
        name: the same when it comes back.
        worker: its model, optimizer and memory.

    Raises:
        ConfigError: see :class:`thinwire.worker.rounds.Rounds`.
    """

    def __init__(self, name: str, worker: Worker) -> None:
        self.name = name
        self.worker = worker
        self.rounds = Rounds(worker)
        worker.agreement.has_begun = True  # compared whenever a quorum meets
        self.has_begun = False
        """Whether it has what all have in common."""
        self.is_done = False
        """Whether it has trained to its end."""
        self.applied: dict[str, Applied] = {}
        self.doubts: list[Doubt] = []
        self.last = Counted()

    @property
    def has_drifted(self) -> bool:
        """Whether its model has moved from the common point since its last exchange that counted."""
        shared = self.worker.shared_parameters()
        own = self.worker.parameters()
        return any(
            not torch.equal(local_part(own[name].detach()), value.to(own[name].dtype)) for name, value in shared.items()
        )

    def standing(self, number: str, terms: str, is_due: bool) -> Standing:
        """What it says of itself when a quorum meets."""
        return Standing(
            self.name, number, terms, self.has_begun, self.worker.num_exchanges, self.rounds.checksum(),
            checksum(self._rest()), is_due, self.is_done,
        )  # fmt: skip

    def common(self) -> Common:
        """What it tells those that heal."""
        state = self.rounds.common_state()
        return Common(state["counters"], state["tensors"], self._rest(), self.applied)

    def take(self, common: Common) -> Fate:
        """Stand where the others do; residual, optimizer and what was not exchanged yet stay its own.

        Raises:
            ConfigError: they train something else; nothing has changed.

        Warns:
            UserWarning: something that this participant owed is lost.
        """
        known = common.applied.get(self.name, Applied("", 0.0))
        fate = self._fate(known.attempt)
        self.worker.exchanged.end_waits()
        self._settle(fate, known)
        state = {"counters": common.counters, "tensors": common.tensors}
        # What counted was of one channel, whose drift is gone by now.
        keeps_drift = fate in ("kept", "undone") or (fate == "counted" and len(self.worker.channels) > 1)
        self.rounds.take_common(state, keeps_drift=keeps_drift)
        if fate == "new":
            self._take_rest(common.rest)
        self.applied = dict(common.applied)
        self.last = Counted(known.attempt) if fate != "kept" else self.last
        self.doubts = []
        self.has_begun = True
        self.worker.accept_values()
        return fate

    def vote(self, proposal: Proposal) -> Tensor:
        """What is compared before an exchange counts: its number, mean, common point; and the norm of what is owed."""
        after = self.rounds.memory_after(proposal).values()
        norm = float(torch.stack([each.float().norm() for each in after]).norm()) if after else 0.0
        vote = _VOTE.pack(
            self.worker.num_exchanges, checksum_of_mean(proposal), self.rounds.checksum(), norm / self.worker.size
        )
        return torch.frombuffer(bytearray(vote), dtype=torch.uint8)

    def doubt(self, proposal: Proposal, attempt: str) -> None:
        """It is about to vote."""
        if len(self.doubts) == MOST_DOUBTS:
            self.doubts.pop(0)
        self.doubts.append(Doubt(attempt, self.worker.size, proposal.place, self.rounds.memory_after(proposal)))

    def accept(
        self, proposal: Proposal, attempt: str, voters: Sequence[str], norms: Sequence[float], *, at_once: bool
    ) -> None:
        """All have voted for the same: it counts."""
        self.last = Counted(attempt, self.last.attempt, self.rounds.taking_back(proposal))
        self.doubts = []
        self.rounds.accept(proposal, at_once=at_once)
        self.applied |= {name: Applied(attempt, norm) for name, norm in zip(voters, norms, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """All of it but model and optimizer: plain values and tensors by name."""
        return {
            "name": self.name,
            "worker": self.worker.state_dict(),
            "applied": {name: [each.attempt, each.norm] for name, each in self.applied.items()},
            "last": [self.last.attempt, self.last.before],
            "doubts": [
                {"attempt": each.attempt, "size": each.size, "place": each.place, "memory": dict(each.memory)}
                for each in self.doubts
            ],
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Be who :meth:`state_dict` was taken of, whatever number of participants there was.

        Raises:
            ConfigError: it is of another name, method, seed or model; all is as before, a residual up to rounding.
        """
        if saved["name"] != self.name:
            raise ConfigError(
                f"the saved state is of participant {saved['name']!r}, and this is {self.name!r}; each has its own"
            )
        counters, place = saved["worker"]["counters"], (self.worker.rank, self.worker.size)
        self.rounds.resize(counters["rank"], counters["size"])
        try:
            self.worker.load_state_dict(saved["worker"])
        except ConfigError:
            self.rounds.resize(*place)
            raise
        self.applied = {name: Applied(attempt, norm) for name, (attempt, norm) in saved["applied"].items()}
        self.last = Counted(*saved["last"])
        self.doubts = [Doubt(each["attempt"], each["size"], each["place"], each["memory"]) for each in saved["doubts"]]
        self.has_begun = True

    def _fate(self, attempt: str) -> Fate:
        """What became of the last message, of which the others know the name of the exchange in which it counted."""
        if not self.has_begun:
            return "new"
        if any(attempt == doubt.attempt for doubt in self.doubts):
            return "counted"
        if attempt == self.last.attempt:
            return "kept"
        return "undone" if attempt == self.last.before and self.last.take_back is not None else "stale"

    @torch.no_grad()
    def _settle(self, fate: Fate, known: Applied) -> None:
        """Let the memory be what it must be by the others' account."""
        if fate == "new" and known.norm:
            warnings.warn(
                f"participant {self.name!r} came back without its state file: what it owed the common model is lost, "
                f"a residual of norm {known.norm:.3g} (over the number of participants); give state_file=",
                stacklevel=2,
            )
        elif fate == "counted":
            (doubt,) = (each for each in self.doubts if each.attempt == known.attempt)
            rank, size = self.worker.rank, self.worker.size
            self.rounds.resize(0, doubt.size)
            self.rounds.take_memory(doubt.memory)
            self.rounds.drop_drift(doubt.place)
            self.rounds.resize(rank, size)
        elif fate == "undone":
            assert self.last.take_back is not None
            self.last.take_back()
        elif fate == "stale":
            norm = self.worker.memory_norm() / self.worker.size
            self.worker.exchanged.reset_memory()
            warnings.warn(
                f"participant {self.name!r} began from a state before its last exchange that counted: what it owed "
                f"then (norm {norm:.3g}) and since (norm {known.norm:.3g}) is left out, as some may have been sent",
                stacklevel=2,
            )

    def _rest(self) -> dict[str, Tensor]:
        """Frozen parameters and buffers."""
        exchanged = self.worker.parameters()
        model = self.worker.model
        named = {plain_name(name): each for name, each in (*model.named_parameters(), *model.named_buffers())}
        return {name: local_part(each.detach()) for name, each in named.items() if name not in exchanged}

    @torch.no_grad()
    def _take_rest(self, rest: Mapping[str, Tensor]) -> None:
        own = self._rest()
        if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in rest.items()}:
            raise ConfigError("the others' model has other buffers or frozen parameters; all must train the same model")
        for name, each in own.items():
            each.copy_(rest[name])


def read_votes(votes: Sequence[Tensor]) -> tuple[bool, list[float]]:
    """Whether all have voted for the same, and the norm of what each owes.

    Raises:
        ProtocolError: something that is no vote.
    """
    if any(vote.numel() != _VOTE.size for vote in votes):
        raise ProtocolError("a participant voted in another form; all must run one version of thinwire")
    read = [_VOTE.unpack(vote.numpy().tobytes()) for vote in votes]
    return len({each[:3] for each in read}) == 1, [float(each[3]) for each in read]

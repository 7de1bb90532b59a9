"""The members of one quorum that have met: links between them, what they have concluded, and attempts to exchange."""

import secrets
from dataclasses import dataclass, field, replace
from datetime import timedelta

from torch import Tensor

from thinwire.distributed.link_options import LinkOptions
from thinwire.distributed.transport import Transport
from thinwire.errors import ConfigError, WorkerError
from thinwire.fault_tolerance.common import Common, max_num_bytes
from thinwire.fault_tolerance.healing import hand_over
from thinwire.fault_tolerance.membership import Membership, Quorum
from thinwire.fault_tolerance.participant import Fate, Participant
from thinwire.fault_tolerance.standing import Conclusion, Standing, conclude
from thinwire.steps import bytes_of, text_of


@dataclass(slots=True, eq=False)
class Crew:
    """Made by :func:`gather_crew`.

    Args:
        quorum: whose members they are.
        transport: between them.
        conclusion: of their meeting.
        fate: what became of this participant's last message, if it has healed.
    """

    quorum: Quorum
    transport: Transport
    conclusion: Conclusion
    fate: Fate | None
    _num_attempts: int = field(init=False, default=0)

    def next_attempt(self) -> str:
        """Its name, the same on all members, and on no others at any time."""
        self._num_attempts += 1
        return f"{self.conclusion.name}-{self._num_attempts}"

    def share(self, message: Tensor) -> list[Tensor]:
        """Everybody's bytes."""
        return self.transport.share_bytes(message)


def gather_crew(
    membership: Membership, quorum: Quorum, participant: Participant, options: LinkOptions, terms: str, is_due: bool
) -> Crew:
    """Links between the members of a quorum, who then compare where they stand; those that differ heal.

    Args:
        membership: lets them meet.
        quorum: who they are.
        participant: this one.
        options: of the links; the timeout is that of the meeting too.
        terms: what must be the same on all.
        is_due: whether this one has something to exchange.

    Raises:
        WorkerError: a member is gone, or must leave.
        ConfigError: this one must leave.
    """
    assert options.timeout is not None
    meeting = membership.meet(quorum, options.timeout)
    try:
        transport = Transport(options=options, meeting=meeting)
    except BaseException as error:
        meeting.withdraw()
        if isinstance(error, ConfigError) and participant.has_begun:
            # One has just come that cannot take part; it ends, and those that have trained go on.
            raise WorkerError(str(error)) from error
        raise
    meeting.close()
    try:
        conclusion = _conclude(transport, participant, terms, is_due)
        fate = _heal(transport, participant, conclusion)
        participant.rounds.resize(quorum.rank, quorum.size)
        participant.has_begun = True
    except BaseException as error:
        transport.abort_for(error)
        transport.drop()
        raise
    return Crew(quorum, transport, conclusion, fate)


def _conclude(transport: Transport, participant: Participant, terms: str, is_due: bool) -> Conclusion:
    own = participant.standing(secrets.token_hex(8), terms, is_due)
    said = transport.share_bytes(bytes_of(own.to_text()))
    standings = [Standing.of_text(text_of(each)) for each in said]
    found = conclude(standings, needs_all=participant.rounds.precedes_step)
    if transport.rank in found.refused:
        raise ConfigError(f"this participant cannot take part: {found.refused[transport.rank]}")
    for rank, why in found.refused.items():
        raise WorkerError(f"participant {standings[rank].name!r} cannot take part: {why}")
    return found


def _heal(transport: Transport, participant: Participant, conclusion: Conclusion) -> Fate | None:
    """Take over what is common, if this one must; give it, or wait for those that take it."""
    if not conclusion.healing:
        return None
    own = participant.common()
    given = own.to_bytes() if transport.rank == conclusion.leader else None
    received = hand_over(transport, conclusion.leader, conclusion.healing, given, max_num_bytes(own))
    return None if received is None else participant.take(Common.of_bytes(received))


def link_options(options: LinkOptions | None, timeout: timedelta, host: str) -> LinkOptions:
    """The options, with a timeout, and the address on the way to the lighthouse, unless they name others.

    Raises:
        ConfigError: they ask for NCCL, which has a group that nobody may leave.
    """
    given = options or LinkOptions()
    if given.transport != "links":
        raise ConfigError(
            f'LinkOptions(transport="{given.transport}") was given where participants come and go, which only links '
            "can bear; leave it out"
        )
    return replace(given, timeout=given.timeout or timeout, interface=given.interface or host)

"""Exchanges until one counts: a quorum, links, an attempt, votes; and the same again after whatever fails."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from thinwire.distributed.link_options import LinkOptions
from thinwire.errors import ConfigError, ProtocolError, WireError, WorkerError
from thinwire.fault_tolerance.crew import Crew, gather_crew
from thinwire.fault_tolerance.left_out import LeftOut
from thinwire.fault_tolerance.membership import Membership, Quorum
from thinwire.fault_tolerance.participant import Participant, read_votes
from thinwire.fault_tolerance.state_file import StateFile
from thinwire.network import Traffic

FAILURES = (WorkerError, ProtocolError, WireError)
"""What fails an attempt, and not the training."""

_PAUSE_S = 0.1
"""Before another quorum is asked for, where the last one was too small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """What became of the exchanges of a participant.

    Args:
        num_commits: how many counted with its message in them.
        num_missed: how many counted without it since it came.
        num_failed: attempts that did not count here.
        num_heals: how often it took over the common point of others.
        names: who is in the quorum, in rank order.
        last_failure: why the last failed attempt did not count.
    """

    num_commits: int = 0
    num_missed: int = 0
    num_failed: int = 0
    num_heals: int = 0
    names: tuple[str, ...] = ()
    last_failure: str = ""

    @property
    def share(self) -> float:
        """Of the exchanges that counted since it came, how many had its message in them; 1 before the first."""
        total = self.num_commits + self.num_missed
        return self.num_commits / total if total else 1.0


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session goes on.

    Args:
        links: with timeout and interface.
        terms: what must be the same on all.
        min_size: with fewer participants nothing counts.
        limit_s: how long nothing may count before the training ends with an error.
    """

    links: LinkOptions
    terms: str
    min_size: int
    limit_s: float


class Session:
    """The exchanges of one participant.

    Args:
        participant: whose.
        membership: says who takes part.
        options: how it goes on.
        state_file: what is written before every vote, if it is.
    """

    def __init__(
        self, participant: Participant, membership: Membership, options: SessionOptions, state_file: StateFile | None
    ) -> None:
        self.participant = participant
        self.participation = Participation()
        self._membership = membership
        self._options = options
        self._state_file = state_file
        self._crew: Crew | None = None
        self._num_failures = 0
        self._left = Traffic()
        self._known: set[str] = set()
        self._left_out = LeftOut()
        self._is_over = False
        self.observe: Callable[[str, str], None] = lambda stage, detail: None
        """Is told which stage is reached: ``healed``, with what became of this participant's last message; ``begun``,
        ``proposed``, ``voted`` and ``counted``, with the name of the attempt; ``failed``, with the reason."""

    @property
    def traffic(self) -> Traffic:
        """What went over this participant's links for exchanges."""
        return self._left if self._crew is None else self._left + self._crew.transport.traffic

    def exchange(
        self, *, is_due: bool, at_once: bool = False, skips: bool = False, limit_s: float | None = None
    ) -> bool:  # fmt: skip
        """Until an exchange counts, or a meeting after which this participant has nothing to wait for.

        Args:
            is_due: whether this participant has something to exchange; if not it only joins.
            at_once: whether what comes back is applied now although the method applies it later.
            skips: whether gradients whose mean is not finite are no error, and nothing counts.
            limit_s: how long nothing may count; the session's by default.

        Returns:
            Whether an exchange has counted here.

        Raises:
            ConfigError: this participant cannot take part, or the state file cannot be written.
            NumericsError: NaN or inf in the model of some participant.
            WorkerError: nothing counted for too long.
        """
        if self._is_over:
            raise ConfigError("this handle is closed, or has ended with an error; make a new one")
        deadline = time.monotonic() + (self._options.limit_s if limit_s is None else limit_s)
        if is_due:
            self._left_out.asks()
        try:
            while True:
                quorum = self._quorum(deadline)
                try:
                    counted = self._try(quorum, is_due, at_once, skips)
                    self._num_failures = 0
                    if counted is not None or not is_due:
                        return bool(counted)
                except FAILURES as error:
                    self._fail(error)
                    if time.monotonic() > deadline:
                        raise self._given_up(error) from error
        except BaseException as error:
            self.abort(error)
            raise

    def finish(self) -> None:
        """Training has come to its end here. Stay until it has for all that are there: they may need this participant.

        Who was late for the last exchange finds the others still there, and ends with the same common point. Those that
        have taken part and are not there are waited for as long as one that is connected and says nothing.
        """
        assert self._options.links.timeout is not None
        self.participant.is_done = True
        deadline = time.monotonic() + self._options.links.timeout.total_seconds()
        while not self._is_over:
            self._num_failures += 1  # so that all meet
            try:
                self.exchange(is_due=False, limit_s=max(deadline - time.monotonic(), 0.0))
            except WorkerError:
                return  # those that are left are too few for anything to count
            assert self._crew is not None
            found = self._crew.conclusion
            is_all = len(found.done) == self._crew.quorum.size
            is_missed = bool(self._known.difference(self._crew.quorum.names)) and time.monotonic() < deadline
            if found.goes_on or (is_all and not is_missed):
                return
            time.sleep(_PAUSE_S)

    def forget(self) -> None:
        """A state was loaded: at the next exchange all compare where they stand."""
        self._let_go(WorkerError("a state was loaded"))
        self._num_failures += 1  # so that all make new links

    def close(self) -> None:
        """Leave; what was sent still arrives."""
        if self._crew is not None:
            self._left += self._crew.transport.traffic
            self._crew.transport.close()
            self._crew = None
        self._end()

    def abort(self, error: BaseException) -> None:
        """Leave because of an error, of which the others hear; they do not wait for this participant any more."""
        self._let_go(error)
        self._end()

    def _end(self) -> None:
        if not self._is_over:
            self._membership.close()
        self._is_over = True

    def _quorum(self, deadline: float) -> Quorum:
        """The next one that is large enough."""
        assert self._options.links.timeout is not None
        while True:
            # A lighthouse that died meanwhile, and is back, never answers: it is asked anew.
            limit_s = min(max(deadline - time.monotonic(), 1.0), self._options.links.timeout.total_seconds())
            try:
                found = self._membership.quorum(self.participant.worker.num_exchanges, self._num_failures, limit_s)
                if found.size >= self._options.min_size:
                    return found
                error = WorkerError(f"the quorum is {', '.join(found.names)}")
                time.sleep(_PAUSE_S)
            except WorkerError as raised:
                error = raised
            if time.monotonic() > deadline:
                raise self._given_up(error) from error

    def _given_up(self, error: BaseException) -> WorkerError:
        return WorkerError(
            f"nothing has counted for {self._options.limit_s:.0f} s: {error}. Fewer than {self._options.min_size} "
            "participants are there, or the lighthouse is not; quorum_timeout= says how long to wait"
        )

    def _try(self, quorum: Quorum, is_due: bool, at_once: bool, skips: bool) -> bool | None:
        """One attempt of a quorum, whether it counted; None if its members have only met and do not exchange yet."""
        crew = self._crew
        if crew is None or crew.quorum != quorum:
            crew = self._meet(quorum, is_due)
            found = crew.conclusion
            if found.done and is_due and self.participant.rounds.precedes_step and quorum.rank in found.healing:
                return False  # the others have made this step, and all further ones
            if not found.is_due:
                return None
        return self._attempt(crew, at_once, skips)

    def _meet(self, quorum: Quorum, is_due: bool) -> Crew:
        if self._crew is not None:
            self._left += self._crew.transport.traffic
            self._crew.transport.drop()
            self._crew = None
        participant, before = self.participant, self.participant.worker.num_exchanges
        had_begun = participant.has_begun
        crew = gather_crew(self._membership, quorum, participant, self._options.links, self._options.terms, is_due)
        self._crew = crew
        self.participation = replace(self.participation, names=quorum.names)
        self._known |= {*quorum.names}
        if crew.fate is not None:
            self.observe("healed", crew.fate)
            counted = int(crew.fate == "counted")
            missed = participant.worker.num_exchanges - before - counted if had_begun else 0
            if missed > 0 and self._num_failures == 0:
                self._left_out.misses(quorum.names)
            known = self.participation
            self.participation = replace(
                known,
                num_heals=known.num_heals + 1,
                num_missed=known.num_missed + max(missed, 0),
                num_commits=known.num_commits + counted,
            )
        return crew

    def _attempt(self, crew: Crew, at_once: bool, skips: bool) -> bool:
        """Exchange, vote, and let it count if all have voted for the same; whether there was anything to vote for."""
        participant, attempt = self.participant, crew.next_attempt()
        self.observe("begun", attempt)
        proposal = crew.transport.run(participant.rounds.propose(skips=skips))
        if not proposal.is_finite:
            return False  # nobody remembers anything of it
        self.observe("proposed", attempt)
        vote = participant.vote(proposal)
        participant.doubt(proposal, attempt)
        if self._state_file is not None:
            self._state_file.write(participant)
        all_agree, norms = read_votes(crew.share(vote))
        self.observe("voted", attempt)
        if not all_agree:
            participant.doubts.pop()  # nobody lets it count
            raise WorkerError("participants got different means, or had come apart before; those that differ heal")
        participant.accept(proposal, attempt, crew.quorum.names, norms, at_once=at_once)
        self.participation = replace(self.participation, num_commits=self.participation.num_commits + 1)
        self._left_out.counts()
        self.observe("counted", attempt)
        return True

    def _fail(self, error: BaseException) -> None:
        self._num_failures += 1
        known = self.participation
        self.participation = replace(known, num_failed=known.num_failed + 1, last_failure=str(error))
        self._let_go(error)
        self.observe("failed", str(error))

    def _let_go(self, error: BaseException) -> None:
        """Others that wait for this participant hear at once that it has given up."""
        crew, self._crew = self._crew, None
        if crew is not None:
            self._left += crew.transport.traffic
            crew.transport.abort_for(error)
            crew.transport.drop()

"""What becomes of a message in doubt, whoever let it count: nothing that is owed is lost, and nothing counts twice.

Participants of a simulation, which hear each other's votes or do not; the account is kept beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from fault_threads import loss_of, network, sgd, vector
from torch import Tensor

from thinwire import Simulation, Worker, parse_method
from thinwire.errors import ProtocolError
from thinwire.fault_tolerance.common import Common
from thinwire.fault_tolerance.participant import Participant, read_votes
from thinwire.worker.averaging import Proposal

METHODS = ("signtopk:density=20%,every=2", "local-sgd:every=2", "qsparse:density=30%,every=2,exchange=gather")


@dataclass
class Account:
    """Participants, and what each has handed in (over the number of them) by the name of the attempt."""

    method: str
    size: int
    members: list[Participant] = field(default_factory=list)
    handed: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    counted: set[tuple[int, str]] = field(default_factory=set)
    num_attempts: int = 0

    def __post_init__(self) -> None:
        for number in range(self.size):
            model = network()
            worker = Worker(parse_method(self.method), model, sgd(model), rank=0, size=1, seed=0)
            self.members.append(Participant(f"p{number}", worker))
            self.members[-1].has_begun = True
        self.begin = vector(self.members[0].worker.shared_parameters()).double()

    def train(self, number: int) -> None:
        """To the next exchange."""
        member, is_due = self.members[number], False
        while not is_due:
            member.worker.optimizer.zero_grad()
            loss_of(member.worker.model, number, member.worker.num_steps + 100 * self.num_attempts).backward()
            member.worker.optimizer.step()
            is_due = member.rounds.count_step()

    def attempt(self, numbers: Sequence[int]) -> tuple[str, list[Proposal]]:
        """All of them vote; nobody lets it count yet."""
        self.num_attempts += 1
        name = f"attempt-{self.num_attempts}"
        for rank, number in enumerate(numbers):
            member = self.members[number]
            member.rounds.resize(rank, len(numbers))
            drift = vector(member.worker.shared_parameters()) - vector(member.worker.parameters())
            self.handed[number, name] = drift.double() / len(numbers)
        proposals = Simulation(len(numbers)).run([self.members[number].rounds.propose() for number in numbers])
        for number, proposal in zip(numbers, proposals, strict=True):
            self.members[number].doubt(proposal, name)
        return name, proposals

    def count(self, numbers: Sequence[int], name: str, proposals: list[Proposal], on: Sequence[int]) -> None:
        """Some of those who voted hear all votes."""
        voters = [f"p{number}" for number in numbers]
        all_agree, norms = read_votes(
            [self.members[number].vote(each) for number, each in zip(numbers, proposals, strict=True)]
        )
        assert all_agree
        for number, proposal in zip(numbers, proposals, strict=True):
            if number in on:
                self.members[number].accept(proposal, name, voters, norms, at_once=False)

    def exchange(self, numbers: Sequence[int], on: Sequence[int] | None = None) -> str:
        name, proposals = self.attempt(numbers)
        self.count(numbers, name, proposals, numbers if on is None else on)
        return name

    def heal(self, number: int, leader: int) -> str:
        return self.members[number].take(Common.of_bytes(self.members[leader].common().to_bytes()))

    def violation(self, lineage: Sequence[tuple[int, str]]) -> float:
        """Of the account, if these have counted and everybody stands at one point."""
        points = [vector(member.worker.shared_parameters()) for member in self.members]
        assert all(torch.equal(point, points[0]) for point in points)
        owed = torch.zeros_like(self.begin)
        for member in self.members:
            if memory := member.rounds.memory():
                owed += vector(memory).double() / member.worker.size
        handed = sum((self.handed[each] for each in lineage), torch.zeros_like(self.begin))
        return float((self.begin - points[0].double() - handed + owed).abs().max())


@pytest.fixture(params=METHODS)
def account(request: pytest.FixtureRequest) -> Account:
    made = Account(request.param, 3)
    for number in range(3):
        made.train(number)
    made.exchange([0, 1, 2])
    for number in range(3):
        made.train(number)
    return made


FIRST = [(number, "attempt-1") for number in range(3)]


def of(name: str, *numbers: int) -> list[tuple[int, str]]:
    return [(number, name) for number in numbers]


def test_what_counted_elsewhere_is_adopted(account: Account) -> None:
    name = account.exchange([0, 1, 2], on=[0])
    assert [account.heal(number, 0) for number in (1, 2)] == ["counted", "counted"]
    assert account.violation(FIRST + of(name, 0, 1, 2)) < 1e-6
    assert not any(member.has_drifted for member in account.members)


def test_what_counted_nowhere_is_sent_with_the_next(account: Account) -> None:
    account.exchange([0, 1, 2], on=[])
    again = account.exchange([0, 1])
    assert account.heal(2, 0) == "kept"
    assert account.violation(FIRST + of(again, 0, 1)) < 1e-6
    drift = account.members[2].worker
    assert account.members[2].has_drifted
    assert drift.num_unshared_steps
    third = account.exchange([0, 1, 2])
    assert account.violation(FIRST + of(again, 0, 1) + of(third, 0, 1, 2)) < 1e-6


def test_of_several_in_doubt_the_one_that_counted_is_adopted(account: Account) -> None:
    first = account.exchange([0, 1, 2], on=[0])
    account.exchange([1, 2], on=[])
    assert [account.heal(number, 0) for number in (1, 2)] == ["counted", "counted"]
    assert account.violation(FIRST + of(first, 0, 1, 2)) < 1e-6


def test_what_counted_on_one_alone_and_was_overtaken_is_owed_again(account: Account) -> None:
    overtaken = account.exchange([0, 1, 2], on=[0])
    second = account.exchange([1, 2])
    account.train(1)
    account.train(2)
    third = account.exchange([1, 2])
    assert account.heal(0, 1) == "undone"
    lineage = FIRST + of(second, 1, 2) + of(third, 1, 2)
    if account.members[0].rounds.memory():
        # The drift of the message that was taken back is owed together with what else was in it.
        lineage += of(overtaken, 0)
    assert account.violation(lineage) < 1e-6
    fourth = account.exchange([0, 1, 2])
    assert account.violation(lineage + of(fourth, 0, 1, 2)) < 1e-6


def test_who_restarts_from_its_file_knows_as_much(account: Account) -> None:
    for on, fate in (([0, 1], "counted"), ([], "kept")):
        saved = account.members[2]
        name, proposals = account.attempt([0, 1, 2])
        state = saved.state_dict()
        account.count([0, 1, 2], name, proposals, on)
        model = network()
        twin = Participant("p2", Worker(parse_method(account.method), model, sgd(model), rank=0, size=1, seed=0))
        twin.load_state_dict(state)
        twin.worker.exchanged.write({name: each.detach() for name, each in saved.worker.parameters().items()})
        account.members[2] = twin
        if not on:
            name = account.exchange([0, 1])
        assert account.heal(2, 0) == fate
        if fate == "counted":
            assert account.violation(FIRST + of(name, 0, 1, 2)) < 1e-6
            before = FIRST + of(name, 0, 1, 2)
            for number in range(3):
                account.train(number)
        else:
            assert account.violation(before + of(name, 0, 1)) < 1e-6


def test_who_knows_less_than_the_others_do_owes_nothing_and_says_so(account: Account) -> None:
    saved = account.members[2].state_dict()
    kept = {"worker": {**saved["worker"], "tensors": {n: t.clone() for n, t in saved["worker"]["tensors"].items()}}}
    for _ in range(2):
        account.exchange([0, 1, 2])
        for number in range(3):
            account.train(number)
    account.members[2].load_state_dict({**saved, **kept})
    with pytest.warns(UserWarning, match="began from a state before its last exchange that counted"):
        assert account.heal(2, 0) == "stale"
    assert account.members[2].worker.memory_norm() == 0.0
    assert not account.members[2].has_drifted


def test_votes_differ_where_anything_does_and_no_vote_is_no_vote(account: Account) -> None:
    _, proposals = account.attempt([0, 1, 2])
    votes = [member.vote(each) for member, each in zip(account.members, proposals, strict=True)]
    assert read_votes(votes)[0]
    reference = account.members[1].worker.channels[0].update["reference"]
    reference[0] += 1.0
    assert not read_votes([votes[0], account.members[1].vote(proposals[1])])[0]
    with pytest.raises(ProtocolError, match="voted in another form"):
        read_votes([votes[0], votes[1][:-1]])


def test_of_a_model_in_fragments_only_the_one_that_counted_has_handed_in_its_drift() -> None:
    account = Account("sparse-averaging:fragments=2,every=2", 2)
    for number in range(2):
        account.train(number)
    member = account.members[1]
    first, second = member.worker.channels
    before = second.update["reference"] - second.local()
    account.exchange([0, 1], on=[0])
    assert account.heal(1, 0) == "counted"
    first, second = member.worker.channels
    assert torch.equal(first.local(), first.update["reference"])
    assert before.any()
    assert float((second.update["reference"] - second.local() - before).abs().max()) < 1e-6
    assert member.worker.num_unshared_steps

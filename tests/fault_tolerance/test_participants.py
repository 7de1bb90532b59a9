"""Participants under a lighthouse: they train as simulated, come, go, and stand where those stand that have trained."""

import functools
import os
import threading
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_threads import (
    DEADLINE_S,
    Lighthouse,
    Member,
    Until,
    begin,
    beside,
    close_all,
    loss_of,
    network,
    sgd,
    together,
    train_all,
    values,
    vector,
)

import thinwire
from thinwire.errors import ConfigError, NumericsError, WorkerError
from thinwire.fault_tolerance.state_file import StateFile

METHODS = [
    "local-sgd:every=3",
    "diloco:every=3",
    "streaming-diloco:every=2,fragments=3,delay=1",
    "qsparse:density=20%,every=3,exchange=gather",
    "sparseloco:every=3",
    "signtopk:density=20%,every=3,residual_dtype=bf16",
    "sgd",
    "qsgd:bits=4",
    "ef-sgd:density=20%",
    "terngrad",
    "signsgd:exchange=gather",
]
SIGNS = "signtopk:density=20%,every=3"
BOTH = pytest.mark.parametrize("method", [SIGNS, "ef-sgd:density=20%"])
"""Of models and of gradients."""
STEPS = 12


@pytest.fixture
def lighthouse() -> Iterator[Lighthouse]:
    made = Lighthouse(min_replicas=1)
    yield made
    made.close()


@pytest.fixture
def of_three() -> Iterator[Lighthouse]:
    made = Lighthouse(min_replicas=3)
    yield made
    made.close()


def simulated(method: str, size: int, steps: int) -> tuple[torch.Tensor, int]:
    workers = []
    for rank in range(size):
        model = network()
        product = thinwire.parse_method(method)
        workers.append(thinwire.Worker(product, model, sgd(model), rank=rank, size=size, seed=0))
    simulation = thinwire.Simulation(size)
    for step in range(steps):
        for rank, worker in enumerate(workers):
            worker.optimizer.zero_grad()
            loss_of(worker.model, rank, step).backward()
        simulation.run([worker.step() for worker in workers])
    simulation.run([worker.finish() for worker in workers])
    return vector(workers[0].shared_parameters()), workers[0].message_bytes


@pytest.mark.parametrize("method", METHODS)
def test_without_faults_it_is_the_simulation_bit_for_bit(method: str, of_three: Lighthouse) -> None:
    members = begin(of_three, 3, method, min_size=3)
    train_all(members, STEPS - 1)  # the last exchange of some methods is that of flush
    values(together([member.handle.flush for member in members]))
    found = [member.shared() for member in members]
    expected, message_bytes = simulated(method, 3, STEPS - 1)
    assert all(torch.equal(each, expected) for each in found)
    assert members[0].handle.message_bytes == message_bytes
    assert {each.handle.participation.names for each in members} == {("member-0", "member-1", "member-2")}
    assert [(each.handle.participation.num_failed, each.handle.participation.share) for each in members] == [
        (0, 1.0)
    ] * 3
    close_all(members)


def test_all_that_are_new_begin_with_the_first_ones_model_and_buffers(of_three: Lighthouse) -> None:
    seeds = [5, 6, 7]
    members = values(
        together([functools.partial(Member, of_three, n, SIGNS, seed=seeds[n], min_size=3) for n in range(3)])
    )
    for member in members:
        assert torch.equal(vector(dict(member.model.named_parameters())), vector(dict(network(5).named_parameters())))
    close_all(members)


@BOTH
def test_who_comes_later_stands_where_the_others_stand_and_a_new_model_is_never_taken_over(
    method: str, lighthouse: Lighthouse, tmp_path: Path
) -> None:
    old = begin(lighthouse, 2, method, min_size=2)
    train_all(old, 6)
    before = old[0].shared()
    # Its name is the first in order, so that it is participant 0 from then on.

    def join() -> Member:
        new = Member(lighthouse, 9, method, seed=77, name="a-new-one", min_size=2)
        new.train_until_joined(3)
        return new

    new, *_ = values(together([join, *(functools.partial(member.train_until_joined, 3) for member in old)]))
    assert new.handle.num_steps == old[0].handle.num_steps > 6
    assert new.handle.participation.names == ("a-new-one", "member-0", "member-1")
    assert torch.equal(new.shared(), old[0].shared())
    assert torch.equal(new.shared(), old[1].shared())
    assert not torch.equal(new.shared(), before)
    assert (new.shared() - before).norm() < 0.5 * (vector(dict(network(77).named_parameters())) - before).norm()
    if not new.handle.session.participant.rounds.precedes_step:
        assert float(new.handle.worker.memory_norm()) == 0.0  # what the others owe is not its own
    train_all([new, *old], new.handle.num_steps + 3)
    assert torch.equal(new.shared(), old[0].shared())
    close_all([new, *old])


@BOTH
def test_who_leaves_is_not_waited_for_and_residuals_are_conserved(method: str, lighthouse: Lighthouse) -> None:
    members = begin(lighthouse, 3, method, min_size=2)
    steps = members[0].handle.num_steps
    train_all(members, steps + 6)
    owed = [vector(member.handle.session.participant.rounds.memory()).double() / 3 for member in members]
    members[2].handle.close()
    resized: list[Any] = [None, None]

    def observe(place: int, stage: str, detail: str) -> None:
        if stage == "begun" and resized[place] is None:
            memory = members[place].handle.session.participant.rounds.memory()
            resized[place] = vector(memory).double() / members[place].handle.worker.size

    for place in range(2):
        members[place].handle.session.observe = functools.partial(observe, place)
    train_all(members[:2], steps + 12)
    assert members[0].handle.worker.size == 2
    for before, after in zip(owed, resized, strict=False):
        assert float((before - after).abs().max()) < 1e-6
    assert torch.equal(members[0].shared(), members[1].shared())
    close_all(members[:2])


@BOTH
def test_a_checkpoint_of_a_while_ago_is_healed_and_what_it_owed_is_told(method: str, lighthouse: Lighthouse) -> None:
    members = begin(lighthouse, 2, method, min_size=2)
    train_all(members, 6)
    kept = members[1].handle.state_dict()
    saved = {
        **kept,
        "worker": {name: torch.utils._pytree.tree_map(_cloned, part) for name, part in kept["worker"].items()},
    }
    weights = {name: each.clone() for name, each in members[1].model.state_dict().items()}
    train_all(members, 12)
    members[1].model.load_state_dict(weights)
    members[1].handle.load_state_dict(saved)
    assert members[1].handle.num_steps == 6
    with pytest.warns(UserWarning, match="began from a state before its last exchange that counted"):
        values(together([lambda: members[0].train(15), lambda: members[1].train(15)]))
    assert members[1].handle.num_steps == 15
    assert torch.equal(members[0].shared(), members[1].shared())
    close_all(members)


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


@BOTH
def test_a_state_file_brings_back_all_of_a_run_and_the_bits_of_one_that_was_not_interrupted(
    method: str, lighthouse: Lighthouse, tmp_path: Path
) -> None:
    """Killed between the vote and the count, as far as the files know: the exchange is made again, of the same."""
    paths = [tmp_path / f"{number}.pt" for number in range(2)]

    def make(number: int) -> Member:
        return Member(lighthouse, number, method, min_size=2, state_file=paths[number])

    members = values(together([functools.partial(make, n) for n in range(2)]))
    train_all(members, 9)
    expected = [member.shared() for member in members]
    close_all(members)

    def come_back(number: int) -> Member:
        member = make(number)
        member.train_and_stay(9)  # a drift was in the file; a gradient is made again
        return member

    again = values(together([functools.partial(come_back, n) for n in range(2)]))
    assert [member.handle.num_steps for member in again] == [9, 9]
    assert all(torch.equal(each, member.shared()) for each, member in zip(expected, again, strict=True))
    close_all(again)
    with pytest.raises(ConfigError, match="of participant 'member-0', and this is 'member-7'"):
        Member(lighthouse, 7, method, state_file=paths[0])
    with pytest.raises(ConfigError, match="the saved state is of method"):
        Member(lighthouse, 0, "local-sgd:every=3", state_file=paths[0])
    paths[0].write_bytes(b"no state")
    with pytest.raises(ConfigError, match="cannot be read as a participant's state"):
        Member(lighthouse, 0, method, state_file=paths[0])


@BOTH
def test_a_state_that_is_refused_changes_nothing(method: str, lighthouse: Lighthouse) -> None:
    members = begin(lighthouse, 2, method, min_size=2)
    train_all(members, members[0].handle.num_steps + 6)
    rounds, saved = members[1].handle.session.participant.rounds, members[1].handle.state_dict()
    owed, shared = vector(rounds.memory()), members[1].shared()
    worker = saved["worker"]
    name = min(worker["tensors"])
    other = {
        "counters": {**worker["counters"], "rank": 4, "size": 5},
        "tensors": {**worker["tensors"], name: torch.zeros(1)},
    }
    with pytest.raises(ConfigError, match="of another model"):
        members[1].handle.load_state_dict({**saved, "worker": other})
    assert (members[1].handle.worker.rank, members[1].handle.worker.size) == (1, 2)
    torch.testing.assert_close(vector(rounds.memory()), owed, rtol=1e-6, atol=0.0)
    assert torch.equal(members[1].shared(), shared)
    train_all(members, members[0].handle.num_steps + 3)
    assert torch.equal(members[0].shared(), members[1].shared())
    close_all(members)


def joined(member: Member, size: int = 2) -> Member:
    member.train_until_joined(size)
    return member


@BOTH
def test_a_residual_that_is_lost_is_told_with_its_norm(method: str, lighthouse: Lighthouse) -> None:
    members = begin(lighthouse, 2, method, min_size=1)
    steps = members[0].handle.num_steps
    train_all(members, steps + 6)
    norm = members[1].handle.worker.memory_norm() / 2
    members[1].handle.session.abort(WorkerError("as if it had been killed"))
    members[0].train(steps + 9)
    assert members[0].handle.participation.names == ("member-0",)
    with pytest.warns(UserWarning, match=rf"came back without its state file.*norm {norm:.3g} "):
        _, new = values(
            together(
                [lambda: members[0].train_until_joined(2), lambda: joined(Member(lighthouse, 1, method, min_size=1))]
            )
        )
    close_all([members[0], new])


REFUSED = [
    ("easgd", "take a method with one mean for all"),
    ("choco", "take a method with one mean for all"),
    ("qsparse-async:every=2", "take a method with one mean for all"),
    ("signsgd", "a worker has a part of its own to play"),
    ("ef21", "a worker has a part of its own to play"),
    ("qsparse:density=20%,every=3", "a worker has a part of its own to play.*exchange=gather"),
    ("gtopk:density=10%,every=2", "a worker has a part of its own to play.*exchange=gather"),
    ("ok-topk:density=10%,every=2", "a worker has a part of its own to play"),
]


@pytest.mark.parametrize(("method", "message"), REFUSED, ids=[name for name, _ in REFUSED])
def test_what_belongs_to_one_place_among_workers_is_refused_by_name(method: str, message: str) -> None:
    model = network()
    with pytest.raises(ConfigError, match=message):
        thinwire.fault_tolerant(sgd(model), model, method, name="a", lighthouse="http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lighthouse": None}, "no lighthouse was given; start one"),
        ({"lighthouse": "127.0.0.1:1"}, "such as http://host:29510"),
        ({"name": "a b"}, "the name 'a b' was given"),
        ({"min_size": 0}, "at least 1"),
        ({"links": thinwire.LinkOptions(transport="nccl")}, "which only links can bear"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_begun(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHFT_LIGHTHOUSE", raising=False)
    model = network()
    with pytest.raises(ConfigError, match=message):
        thinwire.fault_tolerant(
            sgd(model), model, SIGNS, **{"name": "a", "lighthouse": "http://127.0.0.1:1", **options}
        )


def test_who_trains_something_else_must_leave_and_the_others_go_on(lighthouse: Lighthouse) -> None:
    members = begin(lighthouse, 2, SIGNS, min_size=2)
    stranger = beside(members, 3, lambda: Member(lighthouse, 5, "local-sgd:every=3"))
    assert isinstance(stranger, ConfigError)
    assert "this participant cannot take part: it has" in str(stranger)
    twin = beside(members, 3, lambda: Member(lighthouse, 0, SIGNS))
    assert isinstance(twin, ConfigError)
    assert "another participant has its name 'member-0'" in str(twin)
    assert torch.equal(members[0].shared(), members[1].shared())
    close_all(members)


def test_an_optimizer_has_one_handle(lighthouse: Lighthouse) -> None:
    member = Member(lighthouse, 0, SIGNS)
    with pytest.raises(ConfigError, match="has a handle already"):
        thinwire.fault_tolerant(member.optimizer, member.model, SIGNS, name="b", lighthouse=lighthouse.address)
    member.handle.close()


def test_where_too_few_are_there_nothing_counts(lighthouse: Lighthouse) -> None:
    with pytest.raises(WorkerError, match=r"nothing has counted for 2 s: .*Fewer than 2 participants"):
        Member(lighthouse, 0, SIGNS, min_size=2, quorum_timeout=timedelta(seconds=1.5))


@BOTH
def test_who_has_come_apart_without_an_error_heals_before_anything_counts(method: str, of_three: Lighthouse) -> None:
    members = begin(of_three, 3, method, min_size=3)
    train_all(members, 6)
    next(iter(members[1].handle.shared_parameters().values())).view(-1)[0] += 1e-3  # as faulty memory would
    members[1].handle.worker.accept_values()
    train_all(members, 9)
    found = [member.shared() for member in members]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    known = [member.handle.participation for member in members]
    assert [each.num_failed for each in known] == [1, 1, 1]
    assert [each.num_heals for each in known] == [0, 1, 0]
    assert "come apart" in known[0].last_failure
    close_all(members)


@BOTH
def test_nan_is_every_participants_error(method: str, lighthouse: Lighthouse) -> None:
    members = begin(lighthouse, 2, method, min_size=2)
    train_all(members, 3)
    next(members[1].model.parameters()).register_hook(lambda grad: grad * torch.nan)
    found = together([functools.partial(member.train, 6) for member in members])
    assert all(isinstance(each, NumericsError) for each in found), found
    with pytest.raises(ConfigError, match="has ended with an error; make a new one"):
        members[0].train(9)


def test_hundreds_of_quorums_leave_no_file_and_no_thread(lighthouse: Lighthouse) -> None:
    members = begin(lighthouse, 2, "local-sgd:every=1", min_size=2)

    def meet_again(member: Member, times: int) -> None:
        for _ in range(times):
            member.handle.session.forget()
            member.train(member.handle.num_steps + 1)

    counts = []
    for times in (10, 200):
        values(together([functools.partial(meet_again, member, times) for member in members]))
        counts.append((threading.active_count(), len(os.listdir("/proc/self/fd"))))
    assert counts[1][0] <= counts[0][0]
    assert counts[1][1] <= counts[0][1] + 4
    assert members[0].handle.participation.num_commits == 210
    close_all(members)


def test_frozen_parameters_and_buffers_come_from_those_that_have_trained(lighthouse: Lighthouse) -> None:
    def make(number: int, seed: int) -> tuple[Any, torch.nn.Module]:
        model = torch.nn.Sequential(network(seed, frozen=True), torch.nn.BatchNorm1d(1))
        model[1].running_mean.fill_(float(seed))  # type: ignore[operator]
        handle = thinwire.fault_tolerant(
            sgd(model), model, "local-sgd:every=1", name=f"m{number}", lighthouse=lighthouse.address, min_size=2
        )
        return handle, model

    found = values(together([functools.partial(make, n, 3 + n) for n in range(2)]))
    for _, model in found:
        assert torch.equal(model[0][0].weight, network(3)[0].weight)  # type: ignore[index]
        assert float(model[1].running_mean) == 3.0
    values(together([handle.close for handle, _ in found]))


def test_a_file_that_cannot_be_written_ends_only_its_participant(lighthouse: Lighthouse, tmp_path: Path) -> None:
    (tmp_path / "no-folder").write_text("")
    members = begin(lighthouse, 2, SIGNS, min_size=1)
    step = members[0].handle.num_steps + 3
    members[1].handle.session._state_file = StateFile(tmp_path / "no-folder" / "state.pt")
    found = together([functools.partial(member.train, step) for member in members])
    assert isinstance(found[1], ConfigError)
    assert found[0] is None
    members[0].handle.close()


def test_a_step_that_overflowed_on_one_is_made_on_none(of_three: Lighthouse) -> None:
    """Under a loss scale: nothing counts, nothing is remembered, and all go on together."""
    members = begin(of_three, 3, "ef-sgd:density=20%", min_size=3)
    train_all(members, 4)

    def overflow(member: Member) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
        before, steps = member.shared(), member.handle.num_steps
        member.optimizer.zero_grad()
        scaler.scale(loss_of(member.model, member.number, steps)).backward()
        grad = next(member.model.parameters()).grad
        assert grad is not None
        if member.number == 0:
            grad[0] = torch.inf
        scaler.step(member.optimizer)
        scaler.update()
        assert torch.equal(member.shared(), before)
        assert member.handle.num_steps == steps

    values(together([functools.partial(overflow, member) for member in members]))
    train_all(members, 8)
    assert torch.equal(members[0].shared(), members[1].shared())
    assert torch.equal(members[0].shared(), members[2].shared())
    assert members[0].handle.participation.num_failed == 0
    close_all(members)


def test_who_comes_takes_over_the_optimizer_that_all_have(lighthouse: Lighthouse) -> None:
    """Under gradient averaging: its momentum too, so that all step alike from then on."""
    old = begin(lighthouse, 2, "sgd", min_size=1)
    train_all(old, old[0].handle.num_steps + 5)
    new, *_ = values(
        together(
            [
                lambda: joined(Member(lighthouse, 7, "sgd", seed=9), 3),
                *(functools.partial(each.train_until_joined, 3) for each in old),
            ]
        )
    )
    train_all([new, *old], new.handle.num_steps + 4)
    kept = [
        torch.cat([each["momentum_buffer"].reshape(-1) for each in member.optimizer.state.values()])
        for member in (new, *old)
    ]
    assert all(torch.equal(each, kept[0]) for each in kept)
    assert torch.equal(new.shared(), old[0].shared())
    close_all([new, *old])


@BOTH
def test_who_is_late_for_the_last_exchange_finds_the_others_still_there(method: str, lighthouse: Lighthouse) -> None:
    """Two of three are enough, but one is not: alone it could not end where they have ended."""
    members = begin(lighthouse, 3, method, min_size=2)
    end = (members[0].handle.num_steps // 3 + 4) * 3
    have_met = threading.Event()

    def train_to_the_end(member: Member, waits: bool) -> None:
        with member.handle:
            if waits:
                have_met.wait(DEADLINE_S)
            member.train(end)
            if not waits and member.handle.participation.names == ("member-0", "member-1"):
                have_met.set()

    values(together([functools.partial(train_to_the_end, each, each is members[2]) for each in members]))
    assert have_met.is_set()
    assert members[2].handle.participation.num_heals >= 1
    assert torch.equal(members[0].shared(), members[1].shared())
    assert torch.equal(members[0].shared(), members[2].shared())
    assert {member.handle.num_steps for member in members} == {members[0].handle.num_steps}


@pytest.mark.parametrize("calls", ["with a closure", "without"])
def test_the_mean_is_clipped_and_a_closure_makes_the_gradients_that_are_exchanged(
    calls: str, of_three: Lighthouse
) -> None:
    """As the simulated workers whose mean is clipped before the optimizer's own step."""
    members = begin(of_three, 3, "sgd", min_size=3, clip_grad_norm=0.05)

    def train(member: Member) -> None:
        def closure() -> torch.Tensor:
            member.optimizer.zero_grad()
            loss = loss_of(member.model, member.number, member.handle.num_steps)
            loss.backward()
            return loss

        while member.handle.num_steps < 6:
            if calls == "without":
                closure()
                member.optimizer.step()
            else:
                member.optimizer.step(closure)  # type: ignore[arg-type]

    values(together([functools.partial(train, member) for member in members]))
    expected = network()
    optimizer = sgd(expected)
    for step in range(6):
        optimizer.zero_grad()
        sum(loss_of(expected, number, step) / 3 for number in range(3)).backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(expected.parameters(), 0.05)
        optimizer.step()
    for member in members:
        torch.testing.assert_close(member.shared(), vector(dict(expected.named_parameters())), rtol=1e-5, atol=1e-6)
    close_all(members)


def test_who_is_left_out_again_and_again_though_nothing_fails_is_told_so_once(lighthouse: Lighthouse) -> None:
    members = begin(lighthouse, 3, "local-sgd:every=1", min_size=2)
    late, others = members[2], members[:2]

    def one_step(until: Until) -> None:
        late.train(late.handle.num_steps + 1)
        until.end()  # then the others exchange without it, while it trains for longer than the lighthouse waits

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for number in range(5):
            until, before = Until(others, 1), late.handle.participation.num_missed
            beside = [functools.partial(each.train_beside, until) for each in others]
            values(together([*beside, functools.partial(one_step, until)]))
            assert late.handle.participation.num_missed > before or number == 0
            said = [str(each.message) for each in told if "--join_timeout_ms" in str(each.message)]
            assert len(said) == (number >= 3)
    assert "exchanges counted without this participant in 3 of its last" in said[0]
    assert "though nothing failed" in said[0]
    close_all(members)

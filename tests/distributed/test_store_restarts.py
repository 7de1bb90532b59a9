"""A worker that dies and is started again neither loses nor repeats what it handed in."""

import contextlib
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from method_cases import Crew, bits, flat, shared
from store_crews import QUICK, Script, Trainee, Watched, check_conserved, together, trainees

from thinwire.distributed.store_rounds import objects
from thinwire.errors import ConfigError, StoreError
from thinwire.methods import Method, parse_method
from thinwire.stores import FolderStore

NAME, EVERY, NUM_ROUNDS = "signtopk:density=20%,every=2", 2, 6


def method() -> Method:
    return parse_method(NAME)


class Killed(BaseException):
    """As if the process had ended here."""


class Deadly(Watched):
    """Ends its worker when it hands in a message: before it is there, or after."""

    def __init__(self, path: Path, round_number: int, *, is_there: bool) -> None:
        super().__init__(FolderStore(path))
        self.name, self.is_there = f"test/rounds/{round_number:08d}/rank-1", is_there

    def put(self, name: str, contents: bytes | memoryview) -> None:
        if name != self.name or self.is_there:
            super().put(name, contents)
        if name == self.name:
            raise Killed


def die_and_come_back(trainee: Trainee, again: Callable[[], Trainee]) -> Trainee:
    with pytest.raises(Killed):
        trainee.train(NUM_ROUNDS * EVERY)
    return again().train(NUM_ROUNDS * EVERY)


@pytest.mark.parametrize("is_there", [False, True])
def test_with_a_state_file_it_is_as_if_it_had_not_died(is_there: bool, tmp_path: Path) -> None:
    """It has nothing else: its model is a new one."""
    path, options = tmp_path / "store", {"state_file": tmp_path / "state"}
    others = [Trainee(method(), rank, 3, FolderStore(path), Script(3)) for rank in (0, 2)]
    dying = Trainee(method(), 1, 3, Deadly(path, 3, is_there=is_there), Script(3), **options)

    def again() -> Trainee:
        found = Trainee(method(), 1, 3, FolderStore(path), Script(3), **options)
        assert found.handle.num_steps == 4 * EVERY
        assert found.handle.num_rounds == 4
        return found

    calls: list[Callable[[], Any]] = [partial(each.train, NUM_ROUNDS * EVERY) for each in others]
    *_, back = together(*calls, lambda: die_and_come_back(dying, again))
    simulated = Crew(method(), 3).run(NUM_ROUNDS * EVERY)
    for each in (*others, back):
        assert bits(each.point) == bits(shared(simulated.workers[each.rank]))
        assert bits(flat(each.model)) == bits(flat(simulated.models[each.rank]))
    assert back.handle.message_bytes == simulated.workers[1].message_bytes
    assert back.handle.participation == {0: 1.0, 1: 1.0, 2: 1.0}
    check_conserved([others[0], back, others[1]], {1: dying.moved + back.moved})


def test_with_a_state_file_the_momentum_goes_on(tmp_path: Path) -> None:
    """Who dies and comes back ends with the bits of a worker that did not."""
    script, ends = Script(2), []
    for name in ("killed", "whole"):
        path, options = tmp_path / name, {"momentum": 0.9, "state_file": tmp_path / f"state-{name}"}
        other = Trainee(method(), 0, 2, FolderStore(path), script, momentum=0.9)
        store = Deadly(path, 3, is_there=True) if name == "killed" else FolderStore(path)
        trainee = Trainee(method(), 1, 2, store, script, **options)

        def train(first: Trainee = trainee, path: Path = path, options: dict[str, Any] = options) -> Trainee:
            with contextlib.suppress(Killed):
                return first.train(NUM_ROUNDS * EVERY)
            return Trainee(method(), 1, 2, FolderStore(path), script, **options).train(NUM_ROUNDS * EVERY)

        ends.append([bits(flat(each.model)) for each in together(partial(other.train, NUM_ROUNDS * EVERY), train)])
    assert ends[0] == ends[1]


def test_a_message_that_came_too_late_is_handed_in_again(tmp_path: Path) -> None:
    """It died before its message was there, and the others went on meanwhile."""
    path, options = tmp_path / "store", {"state_file": tmp_path / "state"}
    script = Script(3, {1: (0, 2), 2: (0, 2), 3: (0, 2)})
    store = Watched(FolderStore(path))
    others = [Trainee(method(), rank, 3, store, script) for rank in (0, 2)]
    dying = Trainee(method(), 1, 3, Deadly(path, 1, is_there=False), script, **options)

    def late() -> Trainee:
        with pytest.raises(Killed):
            dying.train(NUM_ROUNDS * EVERY)
        assert store.when("rounds/00000003/closed").wait(30)
        back = Trainee(method(), 1, 3, FolderStore(path), script, **options)
        assert back.handle.num_rounds == 5, "it has taken part in the round that was open"
        return back.train(3 * EVERY)

    calls: list[Callable[[], Any]] = [partial(each.train, NUM_ROUNDS * EVERY) for each in others]
    *_, back = together(*calls, late)
    assert back.handle.participation[1] == pytest.approx(3 / 6)
    assert {bits(each.point) for each in others} == {bits(back.point)}
    check_conserved([others[0], back, others[1]], {1: dying.moved + back.moved})


def test_a_message_of_long_ago_counted_once(tmp_path: Path) -> None:
    """It died when its message was there, and comes back when all messages of that round are deleted."""
    path, settings = tmp_path / "store", replace(QUICK, keep_rounds=1, snapshot_every=2)
    script = Script(3, dict.fromkeys(range(4, 9), (0, 2)))
    options = {"settings": settings}
    store = Watched(FolderStore(path))
    others = [Trainee(method(), rank, 3, store, script, **options) for rank in (0, 2)]
    dying = Trainee(method(), 1, 3, Deadly(path, 3, is_there=True), script, state_file=tmp_path / "state", **options)

    def die() -> None:
        with pytest.raises(Killed):
            dying.train(9 * EVERY)

    together(*[partial(each.train, 9 * EVERY) for each in others], die)
    assert not [name for name in store.names("test/rounds/00000003") if "rank" in name]
    back = Trainee(method(), 1, 3, FolderStore(path), script, state_file=tmp_path / "state", **options)
    assert back.handle.num_rounds == 9
    assert back.handle.report.num_restarts == 1
    assert bits(back.point) == bits(others[0].point)
    assert back.handle.message_bytes > 0
    check_conserved([others[0], back, others[1]], {1: dying.moved})


def test_from_an_older_state_it_trains_again_and_finds_its_own_messages(tmp_path: Path) -> None:
    """Without a state file: who trains as before makes the same messages."""
    path = tmp_path / "store"
    others = [Trainee(method(), rank, 3, FolderStore(path), Script(3)) for rank in (0, 2)]
    dying = Trainee(method(), 1, 3, Deadly(path, 4, is_there=True), Script(3))

    def die() -> Trainee:
        dying.train(2 * EVERY + 1)
        state = {"model": dying.model.state_dict(), "handle": dying.handle.state_dict()}
        torch.save(state, tmp_path / "checkpoint")
        return die_and_come_back(dying, again)

    def again() -> Trainee:
        found = Trainee(method(), 1, 3, FolderStore(path), Script(3))
        state = torch.load(tmp_path / "checkpoint", weights_only=True)
        found.model.load_state_dict(state["model"])
        found.handle.load_state_dict(state["handle"])
        assert found.handle.num_rounds == 2
        return found

    calls: list[Callable[[], Any]] = [partial(each.train, NUM_ROUNDS * EVERY) for each in others]
    *_, back = together(*calls, die)
    simulated = Crew(method(), 3).run(NUM_ROUNDS * EVERY)
    for each in (*others, back):
        assert bits(flat(each.model)) == bits(flat(simulated.models[each.rank]))
    assert back.handle.report.num_unknown == 0
    assert back.handle.message_bytes == simulated.workers[1].message_bytes


def test_a_message_that_it_would_not_make_again_is_told(tmp_path: Path) -> None:
    dying = Trainee(method(), 1, 2, Deadly(tmp_path, 0, is_there=True), Script(2))
    other = Trainee(method(), 0, 2, FolderStore(tmp_path), Script(2))

    def again() -> Trainee:
        back = Trainee(method(), 1, 2, FolderStore(tmp_path), Script(2))
        back.step()
        with torch.no_grad():
            next(back.model.parameters())[0, 0] += 1.0
        return back.train(EVERY)

    def die() -> Trainee:
        with pytest.raises(Killed):
            dying.train(EVERY)
        return again()

    with pytest.warns(UserWarning, match="in round 0 another message of worker 1 counted"):
        _, back = together(lambda: other.train(EVERY), die)
    assert back.handle.report.num_unknown == 1
    assert bits(back.point) == bits(other.point)


def test_what_was_not_handed_in_is_told_and_may_be_flushed(tmp_path: Path) -> None:
    crew = trainees(method(), 2, tmp_path)
    together(*(partial(each.train, EVERY + 1) for each in crew))
    with pytest.warns(UserWarning, match="of worker 0 since 1 local step is in no common model"):
        crew[0].handle.close()
    crew = trainees(method(), 2, tmp_path / "other")

    def train(each: Trainee) -> None:
        with each.handle:
            each.train(EVERY + 1)

    together(*(partial(train, each) for each in crew))
    assert {each.handle.num_rounds for each in crew} == {2}
    check_conserved(crew)
    simulated = Crew(method(), 2).run(EVERY + 1)
    simulated.simulation.run([worker.finish() for worker in simulated.workers])
    assert bits(crew[1].point) == bits(shared(simulated.workers[1]))
    crew[0].step()
    assert not crew[0].optimizer._optimizer_step_post_hooks.keys() - {min(crew[0].optimizer._optimizer_step_post_hooks)}


def test_evaluation_sees_what_is_common(tmp_path: Path) -> None:
    crew = trainees(method(), 2, tmp_path)
    together(*(partial(each.train, EVERY + 1) for each in crew))
    own = flat(crew[0].model).clone()
    with crew[0].handle.shared_model() as model:
        assert bits(flat(model)) == bits(crew[1].point)
    assert bits(flat(crew[0].model)) == bits(own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        crew[0].handle.close()


def test_states_of_something_else_are_refused(tmp_path: Path) -> None:
    options = {"state_file": tmp_path / "state"}
    trainee = Trainee(method(), 0, 1, FolderStore(tmp_path), Script(1), **options).train(3 * EVERY)
    early = Trainee(method(), 0, 1, FolderStore(tmp_path / "a"), Script(1)).train(EVERY).handle.state_dict()
    back = Trainee(method(), 0, 1, FolderStore(tmp_path), Script(1), **options)
    assert back.handle.num_rounds == trainee.handle.num_rounds == 3
    with pytest.raises(ConfigError, match="state is of round 1, and this worker has gone on from its state file"):
        back.handle.load_state_dict(early)
    with pytest.raises(ConfigError, match="of the run 'test', not of 'other'"):
        Trainee(method(), 0, 1, FolderStore(tmp_path), Script(1), run="other", **options)
    with pytest.raises(ConfigError, match="of the run 'test'"):
        Trainee(method(), 0, 1, FolderStore(tmp_path), Script(1), run="other").handle.load_state_dict(early)
    (tmp_path / "state").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="is no state file"):
        Trainee(method(), 0, 1, FolderStore(tmp_path), Script(1), **options)


def test_a_message_that_is_gone_is_told(tmp_path: Path) -> None:
    crew = trainees(method(), 2, tmp_path)
    together(*(partial(each.train, 2 * EVERY) for each in crew))
    FolderStore(tmp_path).delete("test/rounds/00000001/rank-0")
    new = Trainee(method(), 1, 2, FolderStore(tmp_path), Script(2)).train(2 * EVERY - 1)
    with pytest.raises(StoreError, match="messages of round 1 are deleted, and there is no snapshot"):
        new.step()


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL as soon as its message is there: nothing of what follows has happened."""
    command = [sys.executable, str(Path(__file__).with_name("store_mains.py")), str(tmp_path), "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = Trainee(method(), 0, 2, FolderStore(tmp_path / "store"), Script(2))

    def die_and_come_back() -> None:
        killed = subprocess.run([*command, "3"], env=environment, check=False)
        assert killed.returncode == -signal.SIGKILL
        subprocess.run([*command, ""], env=environment, check=True)

    together(partial(other.train, NUM_ROUNDS * EVERY), die_and_come_back)
    simulated = Crew(method(), 2).run(NUM_ROUNDS * EVERY)
    found = torch.load(tmp_path / "result-1", weights_only=True)
    assert bits(found["model"]) == bits(flat(simulated.models[1]))
    assert bits(flat(other.model)) == bits(flat(simulated.models[0]))
    assert found["message_bytes"] == simulated.workers[1].message_bytes


class Failing(Watched):
    """Does not answer, once a message is there, until it is told to."""

    is_down = False

    def names(self, under: str) -> list[str]:
        if self.is_down:
            raise StoreError("down")
        return super().names(under)


def test_after_an_error_of_the_store_the_round_is_finished_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_PAUSES_S", (0.0, 0.0))
    store = Failing(FolderStore(tmp_path))
    crew = [Trainee(method(), 0, 2, store, Script(2)), Trainee(method(), 1, 2, FolderStore(tmp_path), Script(2))]

    def fail() -> None:
        crew[0].train(2 * EVERY - 1)
        store.is_down = True
        with pytest.raises(StoreError, match="down"):
            crew[0].step()
        with pytest.raises(StoreError, match="down"):
            crew[0].step()
        assert crew[0].handle.num_steps == 2 * EVERY, "no step is made on a round that is not over"
        store.is_down = False
        crew[0].handle.catch_up()
        assert crew[0].handle.num_rounds == 2
        crew[0].train(4 * EVERY)

    together(fail, lambda: crew[1].train(4 * EVERY))
    simulated = Crew(method(), 2).run(4 * EVERY)
    for each, worker in zip(crew, simulated.workers, strict=True):
        assert bits(flat(each.model)) == bits(flat(worker.model))
        assert each.handle.message_bytes == worker.message_bytes
        assert each.handle.report.num_unknown == 0


def test_a_store_that_fails_for_a_moment_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_PAUSES_S", (0.0, 0.0))
    failures = iter(range(1000))

    class Moody(Watched):
        def get(self, name: str, max_num_bytes: int) -> bytes | None:
            if next(failures) % 3 != 2:
                raise StoreError("in a moment")
            return super().get(name, max_num_bytes)

    trainee = Trainee(method(), 0, 1, Moody(FolderStore(tmp_path)), Script(1)).train(3 * EVERY)
    assert trainee.handle.num_rounds == 3

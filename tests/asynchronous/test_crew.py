"""How the driver takes what becomes of workers, where Ray's answers are a test's."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from thinwire.errors import NumericsError, WorkerError
from thinwire.ray import crew as crew_module
from thinwire.ray.crew import Crew


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: BaseException) -> None:
        super().__init__("a task failed")
        self.cause = cause


class ActorUnavailableError(RayError):
    pass


class Call:
    """What becomes of a call: it waits until it is decided."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome


class Actor:
    """One whose run is answered by the first outcome and whose outcome by the next ones.

    Args:
        outcomes: errors are raised.
    """

    def __init__(self, *outcomes: Any) -> None:
        left = iter(outcomes)
        self.num_asked = 0
        self.run = SimpleNamespace(remote=lambda: Call(next(left)))
        self.outcome = SimpleNamespace(remote=lambda: self._ask(next(left)))

    def _ask(self, outcome: Any) -> Call:
        self.num_asked += 1
        return Call(outcome)


def get(call: Call) -> Any:
    if isinstance(call.outcome, Exception):
        raise call.outcome
    return call.outcome


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    gone: list[Any] = []
    ray = SimpleNamespace(
        get=get, kill=gone.append, wait=lambda calls, **_: (calls[:1], calls[1:]),
        exceptions=SimpleNamespace(
            RayError=RayError, RayTaskError=RayTaskError, ActorUnavailableError=ActorUnavailableError
        ),
    )  # fmt: skip
    monkeypatch.setattr(crew_module, "ray_package", lambda: ray)
    monkeypatch.setattr(crew_module, "_POLL_S", 0.001)
    return gone


def test_a_worker_that_cannot_be_reached_leaves_and_its_result_is_asked_for_again(killed: list[Any]) -> None:
    left: list[tuple[int, bool]] = []
    crew = Crew(lambda rank, is_dead: left.append((rank, is_dead)), tolerates=False)
    actor = Actor(ActorUnavailableError(), ActorUnavailableError(), "its result")
    crew.add(4, actor)
    assert crew.wait() == {4: "its result"}
    assert actor.num_asked == 2
    assert left == [(4, False), (4, False)]
    crew.close()
    assert killed == [actor]


def test_who_has_died_is_left_out_and_all_dead_is_an_error(killed: list[Any]) -> None:
    left: list[tuple[int, bool]] = []
    crew = Crew(lambda rank, is_dead: left.append((rank, is_dead)), tolerates=False)
    crew.add(0, Actor(RayError("the node is gone")))
    with pytest.raises(WorkerError, match=r"every worker has died or failed"):
        crew.wait()
    crew.add(1, Actor("found"))
    assert crew.wait() == {1: "found"}
    assert left == [(0, True)]
    crew.close()


def test_an_error_of_a_workers_function_is_told_or_tolerated(killed: list[Any]) -> None:
    left: list[tuple[int, bool]] = []
    for tolerates in (False, True):
        crew = Crew(lambda rank, is_dead: left.append((rank, is_dead)), tolerates)
        crew.add(3, Actor(RayTaskError(ValueError("no data"))))
        with pytest.raises(WorkerError, match="every worker" if tolerates else "worker 3 raised ValueError: no data"):
            crew.wait()
        crew.close()
    assert left == [(3, True)]
    crew = Crew(lambda rank, is_dead: left.append((rank, is_dead)), tolerates=True)
    crew.add(0, Actor(RayTaskError(ValueError("no data"))))
    crew.add(1, Actor("found"))
    assert crew.wait() == {1: "found"}
    crew.close()


def test_what_is_not_finite_is_raised_whatever_is_tolerated(killed: list[Any]) -> None:
    crew = Crew(lambda rank, is_dead: None, tolerates=True)
    crew.add(0, Actor(RayTaskError(NumericsError("NaN"))))
    crew.add(1, Actor("found"))
    with pytest.raises(NumericsError, match="NaN"):
        crew.wait()
    crew.close()


def test_what_goes_wrong_in_the_thread_is_raised_where_it_is_waited_for(killed: list[Any]) -> None:
    def leave(rank: int, is_dead: bool) -> None:
        assert threading.current_thread() is not threading.main_thread()
        raise WorkerError("the server is gone")

    crew = Crew(leave, tolerates=True)
    crew.add(0, Actor(RayError("dead")))
    with pytest.raises(WorkerError, match=r"the server is gone"):
        crew.wait()
    crew.close()

"""The contest counts exactly; variants other than the racy one lose nothing."""

import os
import sys
import threading

import pytest
import torch

from thinwire.errors import ConfigError
from thinwire.kernels.shared_memory.contest import add_ones, add_ones_torch
from thinwire.kernels.shared_memory.shared import KINDS, Shared
from thinwire.kernels.shared_memory.variants import LOSSLESS, VARIANTS, Variant
from thinwire.shared_memory import Contest, hold_contest
from thinwire.shared_memory.contest import Kind
from thinwire.shared_memory.threads import run_together


@pytest.mark.parametrize("kind", ["int64", "float64", "float32"])
@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("variant", LOSSLESS)
def test_locks_and_atomics_lose_nothing(variant: Variant, threads: int, kind: Kind) -> None:
    for counters in (1, 8):
        result = hold_contest(Contest(variant=variant, threads=threads, additions=60_001, counters=counters, kind=kind))
        assert (result.found, result.lost) == (60_001, 0)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="threads that take turns on one processor lose nothing")
@pytest.mark.parametrize("kind", ["int64", "float64", "float32"])
def test_racy_stores_lose_what_is_added_between_them(kind: Kind) -> None:
    """At the first contest in which both threads had a processor, or soon after it."""
    contest = Contest(variant="racy", threads=2, additions=1_000_000, counters=1, kind=kind, pinned=True)
    results = (hold_contest(contest) for _ in range(300))
    beside = [result.lost for result in results if result.cores > 1.5 or result.lost]
    if not beside:
        pytest.skip("other programs had the second processor all the time")
    assert any(beside)


@pytest.mark.parametrize("kind", ["int64", "float64", "float32"])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_racy_stores_never_add_what_nobody_added(threads: int, kind: Kind) -> None:
    result = hold_contest(Contest(variant="racy", threads=threads, additions=60_001, counters=1, kind=kind))
    assert 0 < result.found <= 60_001
    assert result.lost == 60_001 - result.found
    assert threads > 1 or result.lost == 0


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kernel_and_twin_agree(variant: Variant, dtype: torch.dtype) -> None:
    for numel in (1, 2, 7):
        for num in (0, 1, 6, 7, 8, 3000):
            one, other = (Shared.around(torch.zeros(numel, dtype=dtype)) for _ in range(2))
            assert add_ones(one, variant, num) == add_ones_torch(other, variant, num) == num
            assert torch.equal(one.vector, other.vector)
            assert int(one.vector.sum()) == num


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_lock_is_free_afterwards(variant: Variant) -> None:
    shared = Shared.around(torch.zeros(3, dtype=torch.int64))
    add_ones(shared, variant, 0)
    run_together(shared, [lambda: add_ones(shared, variant, 5000, 3)] * 3)
    assert not shared.locks.any()
    assert not shared.gates.any()


def test_who_is_told_to_stop_stops_and_waits_for_nobody() -> None:
    shared = Shared.around(torch.zeros(1, dtype=torch.int64))
    shared.stop()
    assert add_ones(shared, "racy", 10**9, num_threads=5) == 0


def test_an_error_in_one_thread_ends_the_others() -> None:
    shared = Shared.around(torch.zeros(1, dtype=torch.int64))
    add_ones(shared, "racy", 0)

    def fails() -> int:
        raise ConfigError("this one cannot")

    with pytest.raises(ConfigError, match="this one cannot"):
        run_together(shared, [lambda: add_ones(shared, "racy", 2**40, 2), fails])


def test_a_thread_that_does_not_start_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Shared.around(torch.zeros(1, dtype=torch.int64))
    add_ones(shared, "racy", 0)
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with pytest.raises(RuntimeError, match="can't start"):
        run_together(shared, [lambda: add_ones(shared, "racy", 2**40, 2)] * 2)
    assert not started[0].is_alive()


def test_pinned_threads_leave_the_process_where_it_may_run() -> None:
    threads = 3  # on two processors, two of them take turns
    before = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    assert hold_contest(Contest(variant="mutex", threads=threads, additions=30_000, pinned=True)).lost == 0
    assert before == (os.sched_getaffinity(0) if sys.platform == "linux" else set())


def test_what_cannot_be_counted_exactly_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"8 counters of float32 count to 16,777,216 exactly; 200,000,000 .* need 12"):
        Contest(variant="racy", additions=200_000_000, kind="float32")
    Contest(variant="racy", additions=200_000_000, kind="float32", counters=12)
    with pytest.raises(ConfigError, match="more than these hold exactly"):
        add_ones(Shared.around(torch.zeros(1)), "racy", 2**24 + 1)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="it takes 'mutex' or 'rw-lock'"):
        Contest(variant="lock")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean mutex"):
        add_ones(Shared.around(torch.zeros(1)), "mutx", 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="0 threads were given; 1 to 1024"):
        Contest(variant="racy", threads=0)
    with pytest.raises(ConfigError, match="1 additions of 2 threads"):
        Contest(variant="racy", additions=1)
    with pytest.raises(ConfigError, match="-1 additions"):
        add_ones(Shared.around(torch.zeros(1)), "racy", -1)
    for vector in (torch.zeros(2, dtype=torch.int32), torch.zeros(2, 2), torch.zeros(4)[::2]):
        with pytest.raises(ConfigError, match="threads share a contiguous vector"):
            Shared.around(vector)
    with pytest.raises(ConfigError, match="at least one entry"):
        Shared.around(torch.zeros(0))

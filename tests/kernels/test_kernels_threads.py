"""Work is shared out completely, whatever the number of threads."""

import itertools
import multiprocessing
import threading
import weakref

import pytest
import torch

from thinwire.kernels.jit.threads import run, shares


@pytest.fixture(params=[1, 2, 3])
def num_threads(request: pytest.FixtureRequest) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


@pytest.mark.parametrize("numel", [0, 1, 1000, 1 << 18, (1 << 20) + 7, 5_000_000])
@pytest.mark.parametrize("unit", [1, 8, 512])
def test_shares_cover_every_entry_once_and_begin_at_units(num_threads: int, numel: int, unit: int) -> None:
    parts = shares(numel, unit)
    assert parts[0][0] == 0
    assert parts[-1][1] == numel
    assert all(before[1] == after[0] for before, after in itertools.pairwise(parts))
    assert all(start % unit == 0 for start, _ in parts)
    least = num_threads if numel >= num_threads << 17 else max(1, numel >> 17)
    assert len(parts) >= least
    assert len(parts) == 1 or least > 1
    # Of a long vector a thread that is faster gets more.
    assert numel < 5_000_000 or num_threads == 1 or len(parts) >= 4 * num_threads
    # All are about equally long, and as many for each thread.
    assert len(parts) % least == 0
    sizes = [stop - start for start, stop in parts]
    assert max(sizes) - min(sizes) <= 2 * unit


def test_run_makes_calls_on_as_many_threads_as_torch_has() -> None:
    torch.set_num_threads(3)
    together = threading.Barrier(3, timeout=30)

    def kernel(number: int) -> tuple[int, int]:
        if number < 3:
            together.wait()
        return number, threading.get_ident()

    results = run(kernel, [(number,) for number in range(20)])
    assert [number for number, _ in results] == list(range(20))
    assert len({ident for _, ident in results}) == len({ident for _, ident in results[:3]}) == 3
    assert threading.get_ident() in {ident for _, ident in results}


@pytest.mark.usefixtures("others_never_come")
def test_the_caller_waits_for_no_thread_that_never_comes() -> None:
    torch.set_num_threads(3)
    assert run(max, [(number, 7) for number in range(10)]) == [7] * 8 + [8, 9]


@pytest.mark.parametrize("num_threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("failing", [0, 1, 7, 19])
def test_when_an_error_is_raised_no_call_is_under_way(num_threads: int, failing: int) -> None:
    begun: list[int] = []
    ended: list[int] = []

    def kernel(number: int) -> None:
        begun.append(number)
        if number == failing:
            raise ValueError(f"call {number}")
        ended.append(number)

    with pytest.raises(ValueError, match=f"call {failing}"):
        run(kernel, [(number,) for number in range(20)])
    assert sorted(begun) == sorted([*ended, failing])
    assert set(begun) >= set(range(failing + 1))
    if num_threads == 1:
        assert ended == list(range(failing))


def test_calls_of_several_threads_do_not_meet() -> None:
    wrong: list[object] = []

    def caller(name: int) -> None:
        for number in range(200):
            found = run(lambda *parts: parts, [(name, number, part) for part in range(3)])
            if found != [(name, number, part) for part in range(3)]:
                wrong.append(found)

    torch.set_num_threads(3)
    callers = [threading.Thread(target=caller, args=(name,)) for name in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong


def test_nothing_of_a_call_is_kept() -> None:
    class Marked:
        pass

    arguments, results = [Marked() for _ in range(3)], []
    kept = [weakref.ref(marked) for marked in arguments]
    torch.set_num_threads(2)
    results = run(lambda marked: [marked], [(marked,) for marked in arguments])
    del arguments, results
    assert [reference() for reference in kept] == [None] * 3


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, for there are threads
def test_a_forked_process_has_threads_of_its_own() -> None:
    torch.set_num_threads(2)
    run(max, [(1, 2), (4, 3)])  # there is a thread to miss
    process = multiprocessing.get_context("fork").Process(target=run, args=(max, [(1, 2), (4, 3)]))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 0

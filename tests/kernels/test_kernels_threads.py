"""Work is shared out completely, whatever the number of threads."""

import itertools
import multiprocessing
import threading
import weakref
from typing import NoReturn

import pytest
import torch

from thinwire.kernels.crc32c import crc32c
from thinwire.kernels.flat.finite import is_finite
from thinwire.kernels.jit import threads
from thinwire.kernels.jit.threads import run, shares
from thinwire.kernels.quantize.dither import quantize
from thinwire.kernels.select.top_k import top_k


@pytest.fixture(params=[1, 2, 3])
def num_threads(request: pytest.FixtureRequest) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


@pytest.mark.parametrize("numel", [0, 1, 1000, 1 << 18, (1 << 20) + 7, 5_000_000])
@pytest.mark.parametrize("unit", [1, 8, 512])
@pytest.mark.parametrize("entry_ns", [0.25, 1.0, 8.0])
def test_shares_cover_every_entry_once_and_begin_at_units(
    num_threads: int, numel: int, unit: int, entry_ns: float
) -> None:
    parts = shares(numel, unit, entry_ns)
    assert parts[0][0] == 0
    assert parts[-1][1] == numel
    assert all(before[1] == after[0] for before, after in itertools.pairwise(parts))
    assert all(start % unit == 0 for start, _ in parts)
    # A thread has at least 2**17 nanoseconds of work.
    work = int(numel * entry_ns)
    least = num_threads if work >= num_threads << 17 else max(1, work >> 17)
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


@pytest.mark.parametrize("numel", [1_000_000, (1 << 22) - 1])
def test_what_one_thread_does_faster_is_handed_to_no_other(numel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    x, half = torch.ones(numel), torch.tensor([0, numel // 4, numel])
    for offsets in (torch.tensor([0, numel]), half):
        counts = torch.full((offsets.numel() - 1,), 5)
        expected = torch.cat([start + torch.arange(5) for start in offsets[:-1]])
        with monkeypatch.context() as patched:
            patched.setattr(threads, "_take", _refuse)
            assert torch.equal(top_k(x, offsets, counts), expected)
    with monkeypatch.context() as patched:
        patched.setattr(threads, "_take", _refuse)
        assert is_finite(x[:1_000_000])
        assert crc32c(x[:1_000_000].view(torch.uint8)) == crc32c(x[:1_000_000].view(torch.uint8).clone())


def test_what_several_threads_do_faster_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    x = torch.ones(5_000_000)
    monkeypatch.setattr(threads, "_take", _refuse)
    with pytest.raises(RuntimeError, match="handed over"):
        is_finite(x)
    with pytest.raises(RuntimeError, match="handed over"):
        top_k(x, torch.tensor([0, x.numel()]), torch.tensor([5]))
    with pytest.raises(RuntimeError, match="handed over"):
        quantize(x[:1_000_000], torch.tensor([0, 1_000_000]), 1, "max", key=0)


def _refuse(idle: object) -> NoReturn:
    raise RuntimeError("a job was handed over")

"""Work is shared out completely, whatever the number of threads."""

import itertools
import threading

import pytest
import torch

from thinwire.kernels.threads import run, shares


@pytest.fixture(params=[1, 2, 3])
def num_threads(request: pytest.FixtureRequest) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


@pytest.mark.parametrize("numel", [0, 1, 1000, 1 << 18, (1 << 20) + 7])
@pytest.mark.parametrize("unit", [1, 8, 512])
def test_shares_cover_every_entry_once_and_begin_at_units(num_threads: int, numel: int, unit: int) -> None:
    parts = shares(numel, unit)
    assert parts[0][0] == 0
    assert parts[-1][1] == numel
    assert all(before[1] == after[0] for before, after in itertools.pairwise(parts))
    assert all(start % unit == 0 for start, _ in parts)
    assert len(parts) == (num_threads if numel >= num_threads << 17 else max(1, numel >> 17))


def test_run_makes_every_call_on_a_thread_of_its_own() -> None:
    together = threading.Barrier(3, timeout=30)

    def kernel(number: int) -> tuple[int, int]:
        together.wait()
        return number, threading.get_ident()

    results = run(kernel, [(0,), (1,), (2,)])
    assert [number for number, _ in results] == [0, 1, 2]
    assert len({ident for _, ident in results}) == 3
    assert results[0][1] == threading.get_ident()


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_any_call_is_raised_after_the_others_ended(failing: int) -> None:
    done: list[int] = []

    def kernel(number: int) -> None:
        if number == failing:
            raise ValueError(str(number))
        done.append(number)

    with pytest.raises(ValueError, match=str(failing)):
        run(kernel, [(0,), (1,), (2,)])
    assert sorted(done) == sorted({0, 1, 2} - {failing})

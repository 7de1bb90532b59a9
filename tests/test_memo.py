"""What is kept for the next time is bounded by its bytes."""

import threading

import pytest

from thinwire import layout
from thinwire.kernels.transform import dct
from thinwire.layout import Segments
from thinwire.memo import Memo


def test_what_was_not_asked_for_longest_goes_first() -> None:
    made: list[int] = []

    def make(n: int) -> int:
        made.append(n)
        return -n

    memo = Memo(make, lambda n, _: n, 10)
    assert [memo(n) for n in (4, 5, 4, 3, 4, 5)] == [-4, -5, -4, -3, -4, -5]
    # 3 does not fit beside 4 and 5: 5 was not asked for longest.
    assert made == [4, 5, 3, 5]
    assert memo.num_kept_bytes == 9


def test_what_is_larger_than_the_limit_is_not_kept() -> None:
    made: list[int] = []

    def make(n: int) -> int:
        made.append(n)
        return n

    memo = Memo(make, lambda n, _: n, 10)
    assert (memo(4), memo(11), memo(11), memo(4)) == (4, 11, 11, 4)
    assert made == [4, 11, 11]


def test_threads_share_it() -> None:
    memo: Memo[int, int] = Memo(lambda n: n, lambda *_: 1, 5)
    threads = [threading.Thread(target=lambda: [memo(n % 7) for n in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memo.num_kept_bytes == 5
    assert [memo(n) for n in range(7)] == list(range(7))


@pytest.mark.parametrize("lists_sizes", [False, True])
def test_cuts_of_strangers_keep_no_more_than_a_bound(lists_sizes: bool) -> None:
    for number in range(3 if lists_sizes else 10):
        count = 10**6 - number
        cut = Segments.of_sizes([1] * count) if lists_sizes else Segments.uniform(count, 1)
        assert cut.offsets()[-1] == count
        assert layout._MANY_OFFSETS.num_kept_bytes <= 1 << 26
    # Few segments are kept by number: that many take less than this.
    assert layout._offsets.cache_parameters()["maxsize"] * (layout._FEW + 1) * 48 < 1 << 24


def test_matrices_of_strangers_keep_no_more_than_a_bound() -> None:
    import torch

    for side in range(300, 330):
        dct.cosine_transform(torch.zeros(side * side), side)
    assert 0 < dct._PADDED_BASES.num_kept_bytes <= 1 << 23
    assert 0 < dct._BASES.num_kept_bytes <= 1 << 22

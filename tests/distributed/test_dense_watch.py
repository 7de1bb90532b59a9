"""Whether dense would be faster is judged by the ends of steps, on a clock of the test's own."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch

from thinwire.distributed import dense_watch
from thinwire.distributed.dense_watch import IGNORED_STEPS, WATCHED_STEPS, DenseWatch, SlowerThanDense, end_s
from thinwire.network import Network

# A dense exchange of 2 MB between 2 processes takes 2 (1 ms + 1 MB / 1 GB/s) = 4 ms.
NETWORK, NUM_BYTES, DENSE_S = Network(bandwidth_Bps=1e9, latency_s=1e-3), 2_000_000, 0.004


@dataclass
class Training:
    """Steps of one process: when its buckets are handed over, how long each exchange takes, and then the rest."""

    is_first: bool = True
    now: float = 100.0
    shared: list[list[float]] = field(default_factory=list)
    of_others: list[float] | None = None

    def __post_init__(self) -> None:
        self.watch = DenseWatch(NETWORK, 2, self.is_first, self.share, lambda: self.now)

    def share(self, values: Sequence[float]) -> list[list[float]]:
        self.shared.append(list(values))
        return [list(values), list(values) if self.of_others is None else self.of_others]

    def step(self, handed_s: Sequence[float], costs_s: Sequence[float], rest_s: float, counts: bool = True) -> None:
        begin = end = self.now
        for number, (handed, cost) in enumerate(zip(handed_s, costs_s, strict=True)):
            self.now = begin + handed
            handed_at = self.watch.hand_over()
            self.now = max(end, handed_at)
            begun_at = self.watch.begin()
            self.now = end = begun_at + cost
            self.watch.end(handed_at, begun_at, NUM_BYTES, is_last=number == len(costs_s) - 1, counts=counts)
        self.now = end + rest_s

    def steps(
        self, count: int, handed_s: Sequence[float], costs_s: Sequence[float], rest_s: float = 0.05, counts: bool = True
    ) -> list[str]:
        """The warnings that were given."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(count):
                self.step(handed_s, costs_s, rest_s=rest_s, counts=counts)
        assert all(each.category is SlowerThanDense for each in caught)
        return [str(each.message) for each in caught]


ALL = IGNORED_STEPS + WATCHED_STEPS
SLOW = ([0.0, 0.01, 0.02], [0.02, 0.02, 0.02])


def test_one_warning_with_the_figures() -> None:
    training = Training()
    assert training.steps(ALL, *SLOW) == []  # nothing is said from the communication thread
    (message,) = training.steps(30, *SLOW)
    # Ours: 20 ms each from 0 ms on, done at 60 ms, 40 ms after the last was handed over; dense: 4 ms each, done at
    # 24 ms, so that a step of 110 ms would take 74 ms.
    for figure in ("took 60 ms", "40 ms of it after", " 6 MB", "take 12 ms", "8e+03 Mbit/s, 1 ms", "110 ms", "74 ms"):
        assert figure in message
    assert len(training.shared) == 1
    assert training.shared[0] == pytest.approx([0.02] * 3 * WATCHED_STEPS)


@pytest.mark.parametrize(
    ("handed_s", "costs_s", "rest_s"),
    [
        ([0.0, 0.01, 0.02], [0.001, 0.001, 0.001], 0.0),  # it pays
        ([0.0, 0.1, 0.2], [0.09, 0.09, 0.004], 0.0),  # it is busy for long, while backward is
        ([0.0, 0.01, 0.02], [0.02, 0.02, 0.02], 1.0),  # 36 ms of a second
    ],
)
def test_no_warning_where_a_dense_step_is_not_shorter(
    handed_s: list[float], costs_s: list[float], rest_s: float
) -> None:
    training = Training()
    assert training.steps(ALL + 10, handed_s, costs_s, rest_s=rest_s) == []
    assert len(training.shared) == 1


@pytest.mark.parametrize(("factor", "warned"), [(1.04, False), (1.06, True)])
def test_the_bound_is_5_percent_of_the_dense_step(factor: float, warned: bool) -> None:
    # One bucket and nothing else: the step is the exchange.
    assert len(Training().steps(ALL + 1, [0.0], [factor * DENSE_S], rest_s=0.0)) == warned


def test_waiting_for_a_slow_process_is_not_held_against_compression() -> None:
    training = Training(of_others=[0.001] * 3 * WATCHED_STEPS)
    assert training.steps(ALL + 10, *SLOW) == []
    slow = Training(of_others=[0.03] * 3 * WATCHED_STEPS)
    assert len(slow.steps(ALL + 10, *SLOW)) == 1


def test_only_the_first_process_warns_and_all_share_at_the_same_step() -> None:
    trainings = [Training(is_first=True), Training(is_first=False)]
    assert [training.steps(ALL - 1, *SLOW) for training in trainings] == [[], []]
    assert [len(training.shared) for training in trainings] == [0, 0]
    assert [len(training.steps(1, *SLOW)) for training in trainings] == [0, 0]
    assert [len(training.shared) for training in trainings] == [1, 1]
    assert [len(training.steps(1, *SLOW)) for training in trainings] == [1, 0]


def test_warm_up_and_the_first_steps_are_left_out() -> None:
    training = Training()
    assert training.steps(20, *SLOW, counts=False) == []
    assert training.steps(IGNORED_STEPS, *SLOW) == []
    assert training.steps(WATCHED_STEPS + 5, [0.0, 0.01, 0.02], [0.004] * 3) == []
    assert training.shared[0] == pytest.approx([0.004] * 3 * WATCHED_STEPS)


def test_a_few_long_steps_do_not_decide() -> None:
    training = Training()
    training.steps(IGNORED_STEPS + 4, *SLOW)
    assert training.steps(WATCHED_STEPS, [0.0, 0.01, 0.02], [0.001] * 3) == []
    assert len(training.shared) == 1


def test_the_end_of_exchanges_that_wait_for_each_other() -> None:
    assert end_s([3.0], [2.0]) == 5.0
    assert end_s([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]) == 6.0
    assert end_s([0.0, 10.0], [1.0, 2.0]) == 12.0


@pytest.mark.parametrize("lasts_s", [0.001, 0.03])
def test_what_a_device_is_still_computing_counts_as_backwards(lasts_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host hands over at once what the device has filled 0.1 s later; only a clock that waits for it is right."""
    training = Training()
    training.watch.device = torch.device("cuda")
    ready = [0.0]

    def catch_up(device: torch.device) -> None:
        training.now = max(training.now, ready[0])

    monkeypatch.setattr(dense_watch, "catch_up", catch_up)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(ALL + 1):
            handed_s = training.watch.hand_over()
            ready[0] = handed_s + 0.1
            begun_s = training.watch.begin()
            ready[0] += lasts_s  # the host is done at once here, too
            training.watch.end(handed_s, begun_s, NUM_BYTES, is_last=True, counts=True)
    assert bool(caught) == (lasts_s > DENSE_S)
    assert training.shared == [pytest.approx([lasts_s] * WATCHED_STEPS)]


def test_a_bucket_counts_as_handed_over_when_the_device_has_filled_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host hands over two at once; the device fills them 0.1 and 0.2 s later, and each exchange takes 30 ms."""
    training = Training()
    training.watch.device = torch.device("cuda")
    ready = [0.0]
    monkeypatch.setattr(dense_watch, "catch_up", lambda device: setattr(training, "now", max(training.now, ready[0])))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(ALL + 1):
            begin_s = training.now
            handed = [training.watch.hand_over() for _ in range(2)]
            for number, handed_s in enumerate(handed):
                ready[0] = begin_s + 0.1 * (number + 1)
                begun_s = training.watch.begin()
                ready[0] = training.now + 0.03
                training.watch.end(handed_s, begun_s, NUM_BYTES, is_last=number == 1, counts=True)
    (warning,) = caught
    assert "exchanges took 60 ms a step (30 ms of it after backward)" in str(warning.message)

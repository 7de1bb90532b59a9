"""Parts of rounds over a store: deadlines, lists, messages that are left out; and rounds over S3."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from method_cases import Crew, bits, flat, shared
from object_server import object_server
from store_crews import NOTHING, NUMEL, Script, Trainee, together
from torch import Tensor

from thinwire.distributed import Deadline, RoundSettings
from thinwire.distributed.store_rounds import RoundReport, driver, gathering
from thinwire.distributed.store_rounds.answer import answer
from thinwire.distributed.store_rounds.objects import Closing
from thinwire.distributed.store_rounds.settings import FixedDeadline, patience_of
from thinwire.errors import ConfigError, NumericsError, SealError
from thinwire.exchanges import Gather
from thinwire.methods import parse_method
from thinwire.payloads import Dense, Payload, Sparse
from thinwire.steps import AllGather
from thinwire.stores import FolderStore, open_store
from thinwire.wire import encode
from thinwire.worker.rounds import Rounds

NAME, EVERY = "signtopk:density=20%,every=2", 2


class Clock:
    """Time that passes where it is said to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_the_deadline_follows_the_rounds_and_not_what_was_waited_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    for module in (driver, gathering):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))
    deadline = Deadline(factor=2.0, minimum_s=5.0, first_s=60.0)
    settings = RoundSettings(poll_min_s=0.25, poll_max_s=0.25, max_missed=5)
    trainee = Trainee(NAME, 0, 2, FolderStore(tmp_path), deadline, settings=settings)
    waits_s = []
    for _ in range(8):
        trainee.step()
        clock.sleep(10.0)
        before_s = clock.now_s
        trainee.step()
        waits_s.append(clock.now_s - before_s)
    assert waits_s == [60.0, *[25.0] * 5, 0.0, 0.0], "twice the 10 s of a round and 5 s; then nobody waits any longer"
    assert trainee.handle._station.attendance.durations_s == [10.0] * 8


def test_deadlines_that_make_no_sense_are_refused() -> None:
    makes: list[Callable[[], object]] = [
        lambda: Deadline(factor=-1.0), lambda: Deadline(first_s=float("nan")), lambda: patience_of(-1.0),
    ]  # fmt: skip
    for make in makes:
        with pytest.raises(ConfigError, match="a finite number, 0 or more"):
            make()
    with pytest.raises(ConfigError, match="whole number, 1 or more"):
        RoundSettings(keep_rounds=0)
    with pytest.raises(ConfigError, match="whole number, 1 or more"):
        RoundSettings(snapshot_every=1.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="they grow"):
        RoundSettings(poll_min_s=3.0)
    assert patience_of(3) == FixedDeadline(3.0)
    assert not FixedDeadline(3.0).is_over(0, {0}, {1}, 2.9, [])


def test_lists_that_are_none_are_refused() -> None:
    good = Closing({0: bytes(32), 2: bytes(range(32))}, 7).to_bytes()
    assert Closing.from_bytes(good, 3).digests == {0: bytes(32), 2: bytes(range(32))}
    assert len(Closing(dict.fromkeys(range(9), bytes(32)), 0).to_bytes()) == Closing.max_num_bytes(9)
    twice, turned = good[:40] + good[4:40], good[:4] + good[40:] + good[4:40]
    for bad in (b"", good[:-1], good + b"\0", good[:3], twice, turned):
        with pytest.raises(SealError, match="is none of a round's messages"):
            Closing.from_bytes(bad, 3)
    with pytest.raises(SealError, match="there are 2 workers"):
        Closing.from_bytes(good, 2)


def request(name: str) -> AllGather:
    """What a worker asks for."""
    worker = Crew(parse_method(name), 1).workers[0]
    worker.agreement.has_begun = True
    op = next(Rounds(worker).propose())
    assert isinstance(op, AllGather)
    return op


def nobody(rank: int, why: str) -> None:
    pytest.fail(f"worker {rank}: {why}")


def of(*entries: tuple[int, float]) -> Tensor:
    indices = torch.tensor([index for index, _ in entries], dtype=torch.int64)
    payload: Payload = Sparse(NUMEL, indices, Dense(torch.tensor([value for _, value in entries], dtype=torch.float32)))
    return encode(payload)


CLIPPED = "sparseloco:every=2,density=20%,clip=median"


@pytest.mark.parametrize(
    ("name", "gather", "expected"),
    [
        ("sparseloco:every=2,density=20%", Gather(), [(2.0 + 4.0) / 3, 0.0]),
        ("sparseloco:every=2,density=20%,mean=contributors", Gather(mean="contributors"), [3.0, 0.0]),
        (CLIPPED, Gather(clip="median"), [(2.0 + 2.0) / 3, 0.0]),
    ],
)
def test_who_is_missing_counts_in_the_mean_alone(name: str, gather: Gather, expected: list[float]) -> None:
    """Of three workers one is missing: the others are divided by three, and clipped to their own median."""
    messages = {0: of((0, 2.0)), 2: of((0, 4.0))}
    (result, is_finite), counted = answer(request(name), messages, 3, NUMEL, gather, nobody)
    assert is_finite
    assert counted == {0, 2}
    dense = result if isinstance(result, Tensor) else result.to_dense()
    torch.testing.assert_close(dense[:2], torch.tensor(expected), atol=0, rtol=1e-6)


@pytest.mark.parametrize("name", ["sparseloco:every=2,density=20%", CLIPPED])
def test_messages_that_cannot_be_read_or_are_not_finite_are_left_out(name: str) -> None:
    method = parse_method(name)
    assert isinstance(method.exchange, Gather)
    report = RoundReport(0)
    bad = {
        1: of((0, float("nan"))), 2: of((3, 1.0))[:-1], 3: encode(Sparse(9, torch.tensor([1]), Dense(torch.ones(1)))),
        4: torch.empty(0, dtype=torch.uint8), 5: torch.zeros(50, dtype=torch.uint8),
    }  # fmt: skip
    good: dict[int, Tensor] = {0: of((0, 2.0)), 6: of((1, 3.0))}
    refuse: Callable[[int, str], None] = lambda rank, why: report.refuse(rank, 7, why)  # noqa: E731
    with pytest.warns(UserWarning, match="in round 7 is left out") as told:
        reply, counted = answer(request(name), bad | good, 7, NUMEL, method.exchange, refuse)
    assert counted == {0, 6}
    assert dict(report.refused) == dict.fromkeys(bad, 1)
    assert len(told) == len(bad)
    assert "it has NaN or infinity" in report.why[1]
    alone, _ = answer(request(name), good, 7, NUMEL, method.exchange, nobody)
    dense = [each[0] if isinstance(each[0], Tensor) else each[0].to_dense() for each in (reply, alone)]
    assert bits(dense[0]) == bits(dense[1])
    nothing, counted = answer(request(name), {}, 7, NUMEL, method.exchange, nobody)
    assert nothing[1]
    assert not counted
    report.refuse(1, 8, "again")  # no second warning, which would be an error here
    assert report.refused[1] == 2


def test_a_sum_that_is_not_finite_is_nobodys_fault() -> None:
    messages: dict[int, Tensor] = {rank: of((0, 3e38)) for rank in range(3)}
    with pytest.raises(NumericsError, match="although each of them is"):
        answer(request("sparseloco:every=2,density=20%"), messages, 3, NUMEL, Gather(), nobody)
    assert NOTHING.numel() < 30


def test_over_s3(tmp_path: Path) -> None:
    """A real server of S3's requests; nothing but it connects the workers."""
    with object_server() as server:
        bucket = server.new_bucket()

        def train(rank: int) -> Any:
            store = open_store(bucket.url, bucket.options)
            return Trainee(NAME, rank, 3, store, Script(3), state_file=tmp_path / f"state-{rank}").train(4 * EVERY)

        crew = together(*(lambda rank=rank: train(rank) for rank in range(3)))
        names = open_store(bucket.url, bucket.options).names("test")
    simulated = Crew(parse_method(NAME), 3).run(4 * EVERY)
    for each, worker in zip(crew, simulated.workers, strict=True):
        assert bits(each.point) == bits(shared(worker))
        assert bits(flat(each.model)) == bits(flat(worker.model))
    assert len(names) == 1 + 4 * (3 + 1)

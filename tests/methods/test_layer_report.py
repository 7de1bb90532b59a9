"""What is said of each parameter tensor: equal to formulas that know the operators, not the code that reports."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.layout import Layout, Segments
from thinwire.memory import ErrorFeedback, Handed
from thinwire.methods import Method, parse_method
from thinwire.payloads import Concat, Dense, SeededSparse, Sparse, Sum
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.wire import encode
from thinwire.worker import Worker
from thinwire.worker.channel import Channel, Outcome
from thinwire.worker.layer_report import JsonLines, LayerRecord, LayerReport, Scalars, byte_shares, layer_records

SHAPES = {"first": (7, 9), "bias": (9,), "last": (4, 3, 5)}
SIZES = [63, 9, 60]
NUMEL = 132
SIZE = 2


@dataclass
class Kept:
    """Keeps what it is given."""

    records: list[list[LayerRecord]] = field(default_factory=list)

    def write(self, records: Sequence[LayerRecord]) -> None:
        self.records.append(list(records))


def channels(method: Method) -> list[Channel]:
    layout = Layout(tuple(SHAPES), tuple(torch.Size(shape) for shape in SHAPES.values()))
    params = [torch.zeros(shape) for shape in SHAPES.values()]
    return [Channel(method, layout, params, rank, SIZE, Key(3)) for rank in range(SIZE)]


def vector(step: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(10 * step + rank)
    return torch.randn(NUMEL, generator=generator) ** 3


def exchange(crew: list[Channel], step: int) -> list[Outcome]:
    """One watched exchange of everyone's vector, accepted."""
    programs = []
    for channel in crew:
        x, finite = channel.gather(list(torch.split(vector(step, channel.rank), SIZES)))
        programs.append(channel.run(x, channel.method.compressor_at(step), finite, step, is_watched=True))
    outcomes = Simulation(SIZE).run(programs)
    for channel, outcome in zip(crew, outcomes, strict=True):
        channel.accept(outcome)
    return outcomes


def records_of(method: str | Method, steps: int = 3) -> tuple[list[LayerRecord], Outcome, list[LayerRecord]]:
    """Worker 1's records of the last exchange, its outcome, and those of the one before."""
    crew = channels(parse_method(method) if isinstance(method, str) else method)
    report = LayerReport(sink=Kept(), every=1, ranks=(1,))
    for step in range(steps):
        outcome = exchange(crew, step)[1]
        report.take(crew[1], outcome, step + 1)
    assert isinstance(report.sink, Kept)
    return report.sink.records[-1], outcome, report.sink.records[-2]


def check(records: list[LayerRecord], u: Tensor, q: Tensor, residual: Tensor | None) -> None:
    """The records against float64 formulas of one's own, tensor by tensor."""
    assert [(record.name, record.numel, record.rank) for record in records] == [
        (name, numel, 1) for name, numel in zip(SHAPES, SIZES, strict=True)
    ]
    left = [None] * 3 if residual is None else torch.split(residual.double(), SIZES)
    for record, a, b, m in zip(
        records, torch.split(u.double(), SIZES), torch.split(q.double(), SIZES), left, strict=True
    ):
        length, sent = math.sqrt((a * a).sum()), math.sqrt((b * b).sum())
        error = math.sqrt(((a - b) ** 2).sum())
        assert record.relative_error == pytest.approx(error / length, rel=1e-12)
        assert record.density == int((b != 0).sum()) / len(b)
        if sent == 0.0:
            assert record.cosine is None
        else:
            assert record.cosine == pytest.approx(float(a @ b) / (length * sent), rel=1e-12)
        if m is None:
            assert record.residual_norm is None
        else:
            assert record.residual_norm == pytest.approx(math.sqrt((m * m).sum()), rel=1e-12)
            assert record.relative_error is not None
            # Under error feedback with a decay of 1 what is not sent is kept: the two say the same.
            assert record.residual_norm == pytest.approx(record.relative_error * length, rel=1e-5)


def test_top_k_with_error_feedback() -> None:
    records, outcome, _ = records_of("topk:k=20")
    residual = torch.zeros(NUMEL)
    for step in range(3):
        u = residual + vector(step, 1)
        q = torch.zeros(NUMEL)
        largest = u.abs().topk(20).indices
        q[largest] = u[largest]
        residual = u - q
    check(records, u, q, residual)
    total = outcome.aggregate.message_bytes
    assert total == encode(outcome.aggregate.sent).numel()
    per_tensor = [int(part.count_nonzero()) for part in torch.split(q, SIZES)]
    assert [record.message_bytes for record in records] == pytest.approx([total * n / 20 for n in per_tensor])
    assert [record.step for record in records] == [3, 3, 3]


def test_sign_top_k_sends_the_mean_magnitude_of_what_it_selects() -> None:
    records, outcome, _ = records_of("signtopk:k=30")
    residual = torch.zeros(NUMEL)
    for step in range(3):
        u = residual + vector(step, 1)
        largest = u.abs().topk(30).indices
        q = torch.zeros(NUMEL)
        q[largest] = u[largest].sign() * (u[largest].double().abs().sum() / 30).float()
        residual = u - q
    check(records, u, q, residual)
    assert sum(record.message_bytes for record in records) == pytest.approx(outcome.aggregate.message_bytes)


def test_qsgd_without_memory_is_compared_with_the_gradient_itself() -> None:
    records, outcome, _ = records_of("qsgd:bits=3,granularity=tensor")
    check(records, vector(2, 1), outcome.aggregate.sent.to_dense(), None)
    # Three bits are three levels and a sign: every entry is a multiple of a third of its tensor's largest.
    for part, meant in zip(
        torch.split(outcome.aggregate.sent.to_dense(), SIZES), torch.split(vector(2, 1), SIZES), strict=True
    ):
        multiples = part / (meant.abs().max() / 3)
        assert torch.allclose(multiples, multiples.round(), atol=1e-5)
    total = outcome.aggregate.message_bytes
    assert [record.message_bytes for record in records] == pytest.approx([total * n / NUMEL for n in SIZES])


def test_decay_counts_and_what_is_kept_is_not_what_was_meant() -> None:
    records, _, _ = records_of(replace(parse_method("topk:k=20"), memory=ErrorFeedback(decay=0.5)), steps=2)
    u = vector(0, 1)
    u[u.abs().topk(20).indices] = 0.0
    u = 0.5 * u + vector(1, 1)
    q = torch.zeros(NUMEL)
    q[u.abs().topk(20).indices] = u[u.abs().topk(20).indices]
    check(records, u, q, u - q)


def test_watching_changes_no_bit() -> None:
    for text in ("topk:k=20", "dgc:density=10%", "qsgd:bits=3", "ef21:density=10%", "powersgd:rank=1"):
        found = []
        for watched in (False, True):
            crew = channels(parse_method(text))
            for step in range(3):
                programs = [
                    channel.run(
                        channel.gather(list(torch.split(vector(step, channel.rank), SIZES)))[0],
                        channel.method.compressor_at(step), True, step, is_watched=watched,
                    )
                    for channel in crew
                ]  # fmt: skip
                outcomes = Simulation(SIZE).run(programs)
                for channel, outcome in zip(crew, outcomes, strict=True):
                    channel.accept(outcome)
                    assert (outcome.intended is not None) == watched
                    if watched:
                        assert outcome.intended is not None
                        layer_records(channel, outcome, outcome.intended, step)
            found.append((outcomes[0].aggregate.mean, crew[1].memory))
        (mean, memory), (watched_mean, watched_memory) = found
        assert torch.equal(mean, watched_mean), text
        assert all(torch.equal(memory[kind], watched_memory[kind]) for kind in memory), text


def test_what_is_not_defined_is_none() -> None:
    crew = channels(parse_method("topk:k=1"))
    programs = []
    for channel in crew:
        x = torch.zeros(NUMEL)
        x[70] = 2.0
        programs.append(channel.run(Handed(x), channel.method.compressor, True, 0, is_watched=True))
    outcome = Simulation(SIZE).run(programs)[0]
    assert outcome.intended is not None
    first, bias, last = layer_records(crew[0], outcome, outcome.intended, 1)
    assert (first.relative_error, first.cosine, first.density, first.residual_norm) == (None, None, 0.0, 0.0)
    assert (bias.relative_error, bias.cosine, bias.density) == (0.0, 1.0, 1 / 9)
    assert (first.message_bytes, bias.message_bytes, last.message_bytes) == (0.0, outcome.aggregate.message_bytes, 0.0)


def test_each_part_of_a_message_is_divided_alone() -> None:
    sparse = Sparse(72, torch.tensor([3, 62, 63, 71]), Dense(torch.ones(4)))
    sent = Concat((sparse, Dense(torch.ones(60))))
    one, two = encode(sparse).numel(), encode(Dense(torch.ones(60))).numel()
    shares = byte_shares(sent, Segments.of_sizes(SIZES), 1000)
    assert shares.tolist() == pytest.approx([1000 * b / (one + two) for b in (one / 2, one / 2, two)])
    assert float(shares.sum()) == pytest.approx(1000)
    # Entries of a sum count where they are, whichever part has them; drawn places are as if they were listed.
    drawn = SeededSparse(Dense(torch.ones(12)), Segments.whole(12), 7, Segments.whole(NUMEL))
    listed = drawn.sparse()
    segments = Segments.of_sizes(SIZES)
    assert torch.equal(byte_shares(drawn, segments, 50), byte_shares(listed, segments, 50))
    dense = encode(Dense(torch.ones(NUMEL))).numel()
    both = byte_shares(Sum((listed, Dense(torch.ones(NUMEL)))), segments, 1)
    alone = byte_shares(listed, segments, 1)
    short = encode(listed).numel()
    expected = (alone * short + torch.tensor(SIZES) * dense / NUMEL) / (short + dense)
    assert torch.allclose(both, expected.double())
    assert byte_shares(Sparse(NUMEL, torch.zeros(0).long(), Dense(torch.zeros(0))), segments, 12).sum() == 12


def test_records_go_to_a_file_and_to_a_writer_of_scalars(tmp_path: Path) -> None:
    records, _, before = records_of("topk:k=20")
    sink = JsonLines(tmp_path / "deep" / "layers.jsonl")
    sink.write(before)
    sink.write(records)
    lines = [json.loads(line) for line in Path(sink.path).read_text().splitlines()]
    assert [LayerRecord(**line) for line in lines] == [*before, *records]

    class Writer:
        def __init__(self) -> None:
            self.found: dict[tuple[str, int], float] = {}

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            self.found[tag, global_step] = scalar_value

    writer = Writer()
    Scalars(writer, prefix="ours/").write([*before, *records])
    assert writer.found["ours/relative_error/bias", 3] == records[1].relative_error
    assert writer.found["ours/residual_norm/last", 2] == before[2].residual_norm
    numbers = [
        value
        for record in (*before, *records)
        for value in (record.message_bytes, record.relative_error, record.residual_norm, record.cosine, record.density)
    ]
    assert len(writer.found) == sum(value is not None for value in numbers)


def test_what_is_sampled(tmp_path: Path) -> None:
    report = LayerReport(sink=Kept(), every=3, ranks=(0, 2))
    assert [number for number in range(8) if report.is_due(number, 2)] == [0, 3, 6]
    assert not any(report.is_due(number, 1) for number in range(8))
    with pytest.raises(ConfigError, match="every 0 exchanges"):
        LayerReport(sink=Kept(), every=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="give another place"):
        JsonLines(tmp_path / "file" / "layers.jsonl").write([])


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("topk:k=5,exchange=gather", [1, 4, 7]),
        ("qsgd", [1, 4, 7]),
        ("signtopk:k=5,every=2", [2, 8]),
        # Two fragments take turns: a round of them is sampled, two rounds are not.
        ("sparse-averaging:every=1,fragments=2", [1, 2, 7, 8]),
    ],
)
def test_a_worker_reports_by_itself(text: str, steps: list[int]) -> None:
    crew, reports = [], [LayerReport(sink=Kept(), every=3, ranks=(0,)) for _ in range(SIZE)]
    for rank in range(SIZE):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 6)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        crew.append(Worker(parse_method(text), model, optimizer, rank=rank, size=SIZE, seed=0))
        crew[-1].runner.watcher = reports[rank]
    for step in range(8):
        for worker in crew:
            worker.optimizer.zero_grad()
            worker.model(vector(step, worker.rank)[:8].view(2, 4)).square().sum().backward()
        Simulation(SIZE).run([worker.step() for worker in crew])
    first, second = (report.sink for report in reports)
    assert isinstance(first, Kept)
    assert isinstance(second, Kept)
    assert [records[0].step for records in first.records] == steps
    assert second.records == []
    assert {record.name for records in first.records for record in records} == {"weight", "bias"}

"""A plan of real processes, what it is made of, and what it says."""

import functools
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import planner_mains as mains
import pytest
import torch
from torch import nn

from thinwire.cli.planning import _judge
from thinwire.compressors import TopK
from thinwire.errors import ConfigError
from thinwire.experiments.comparison_runner import ComparisonRunner
from thinwire.experiments.launch import launch
from thinwire.experiments.recorder import Recorder
from thinwire.experiments.recording import Recording, RecordingPlan
from thinwire.experiments.spec import Comparison
from thinwire.experiments.tasks import load_task
from thinwire.layout import Layout, Segments
from thinwire.methods import parse_method
from thinwire.network import Network
from thinwire.planner import (
    MODEL_ERROR,
    Candidate,
    Kind,
    MeasuredExchange,
    Measurements,
    TrainingStep,
    candidates,
    measure_hooked,
    measure_synchronized,
    predict,
)
from thinwire.planner.accuracy import Trial, message_error
from thinwire.planner.compute import MeasuredCompute, PlainSteps
from thinwire.planner.family import DENSE, DENSE_BF16, POWER_SGD
from thinwire.planner.link import Need
from thinwire.planner.measuring import _needs
from thinwire.random import Key
from thinwire.step_time import Bucket, Compute, Exchange, Round, Way
from thinwire.wire import encode

SIZE = 2
LAYOUT = Layout(("w", "b"), (torch.Size([200, 50]), torch.Size([37])))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("plan")
    launch(SIZE, functools.partial(mains.plan, str(folder)))
    return [json.loads(Path(folder, f"rank-{rank}.json").read_text()) for rank in range(SIZE)]


def vectors(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(LAYOUT.numel, generator=generator) for _ in range(count)]


def test_all_processes_predict_the_same_and_nothing_counts_as_traffic(found: list[dict[str, Any]]) -> None:
    assert found[0]["rows"] == found[1]["rows"]
    assert [each["traffic"] for each in found] == [0, 0]


def test_every_candidate_has_a_row_the_fastest_first(found: list[dict[str, Any]]) -> None:
    rows = found[0]["rows"]
    assert {row["method"] for row in rows} == {DENSE, DENSE_BF16, POWER_SGD, *mains.METHODS}
    assert [row["step_s"] for row in rows] == sorted(row["step_s"] for row in rows)
    for row in rows:
        assert 0 < row["low_step_s"] <= row["step_s"] * (1 - MODEL_ERROR) + 1e-12
        assert row["high_step_s"] >= row["step_s"] * (1 + MODEL_ERROR) - 1e-12
    by_name = {row["method"]: row for row in rows}
    numel = mains.step(0).layout.numel
    assert by_name[DENSE]["bytes"] == 4 * numel
    assert by_name[DENSE_BF16]["bytes"] == 2 * numel
    assert by_name["local-sgd:every=2"]["bytes"] == 4 * numel / 2
    assert by_name["topk:density=1%"]["bytes"] < numel
    assert [by_name[name]["period"] for name in mains.METHODS] == [1, 4, 2, 1, 1, 4]
    # Three rounds of a quarter of the matrix and of what is small, and one in full; models, and moments more rarely.
    changes = 4 * (numel / 4 + 3 / 4 * (numel - 4800)) + 4800 / 8
    assert by_name["marina:density=25%"]["bytes"] == pytest.approx((3 * changes + 4 * numel) / 4, rel=0.02)
    assert by_name["des-loc:every=4,momentum=8,variance=16"]["bytes"] == 4 * numel * (1 / 4 + 1 / 8 + 1 / 16)
    # Rank 2 of 80x60 and 10x80: what is left as it is (both biases), then the left and the right factors.
    assert by_name[POWER_SGD]["bytes"] == 4 * ((80 + 10) + 2 * (80 + 10) + 2 * (60 + 80))


def test_rounds_that_are_not_alike_count_as_often_as_they_come(found: list[dict[str, Any]]) -> None:
    """Seconds of a step are the mean of those of either kind, or have those of the sums on top."""
    measured = Measurements.from_json(found[0]["found"])
    marina, des_loc = candidates(mains.METHODS[4:])[-2:]

    def step_s(candidate: Candidate, measured: Measurements) -> float:
        (row,) = predict(measured, [candidate])
        return row.step.middle

    alone = replace(measured, sums={})
    full = replace(alone, exchanges={marina.method: measured.sums[marina.method].exchanges})
    share = measured.sums[marina.method].sums.instead
    assert share == pytest.approx(0.25, rel=0.01)
    assert step_s(marina, measured) == pytest.approx((1 - share) * step_s(marina, alone) + share * step_s(marina, full))
    (summed,) = measured.sums[des_loc.method].exchanges
    sum_s = summed.at(0.5).seconds(measured.link.at(0.5), 0.0)
    assert sum_s > 0
    assert step_s(des_loc, measured) == pytest.approx(step_s(des_loc, alone) + (1 / 8 + 1 / 16) * sum_s)


def test_a_link_is_measured_after_the_silence_that_each_candidate_leaves() -> None:
    hooked, rare = Candidate("topk:k=1", Kind.HOOKED), Candidate("topk:k=100,every=4", Kind.SYNCHRONIZED)
    dense, again = Candidate(DENSE, Kind.DENSE), Candidate("topk:k=50,every=4", Kind.SYNCHRONIZED)
    compute = MeasuredCompute((Compute((Bucket(1000, 0.01),), 0.02, 0.03),), (("w",),))

    def sends(num_bytes: float) -> list[MeasuredExchange]:
        return [MeasuredExchange((Exchange(rounds=(Round(Way.GATHER, num_bytes),)),))]

    exchanges = {hooked.method: sends(8.0), rare.method: sends(800.0), again.method: sends(400.0), dense.method: []}
    periods = {rare.method: 4.0, again.method: 4.0}
    needs = _needs([hooked, rare, dense, again], compute, exchanges, periods, PlainSteps((0.025,), (0.025,)), {})
    assert needs == {
        Way.GATHER: [Need(idle_s=0.03, most_bytes=8.0), Need(idle_s=0.1, most_bytes=800.0)],
        Way.TORCH_SUM: [Need(idle_s=0.03, most_bytes=4000.0)],
    }


def test_what_was_measured_can_be_kept_and_predicted_from_again(found: list[dict[str, Any]]) -> None:
    assert found[0]["again"] == found[0]["rows"]


def test_the_link_is_measured_up_to_the_longest_message_and_no_further(found: list[dict[str, Any]]) -> None:
    numel = mains.step(0).layout.numel
    points = found[0]["found"]["link"]
    for way in Way:
        sizes = sorted({point["num_bytes"] for point in points if point["way"] == way.value})
        assert sizes[0] == 64
        assert len(sizes) >= 3
        assert sizes[-1] <= max(4 * 4 * numel, sizes[2])
        assert all(min(point["seconds"]) > 0 for point in points)
    # Every bucket is known by its parameters, each of which is in one.
    assert sorted(itertools.chain(*found[0]["names"])) == sorted(mains.step(0).layout.names)


def test_a_round_is_what_the_exchange_sends() -> None:
    """Of top-k every entry is known: the bytes are those of the message, of dense those of the vector."""
    method = parse_method("topk:k=100,every=3")
    measured = measure_synchronized(method, LAYOUT, vectors(), 0, SIZE, Network())
    payload = TopK(k=100).compress(vectors()[0], Key(0), Segments.whole(LAYOUT.numel))
    for each in measured.rounds:
        (turn,) = each.rounds
        assert turn.way is Way.GATHER
        assert turn.num_bytes == pytest.approx(len(encode(payload)) + 8, rel=0.05)
        assert each.before_s > 0
        assert turn.after_s > 0
    assert measured.local_s > 0
    dense = measure_synchronized(parse_method("local-sgd:every=4"), LAYOUT, vectors(), 1, SIZE, Network())
    assert [turn for each in dense.rounds for turn in each.rounds if turn.num_bytes != 4 * LAYOUT.numel] == []
    assert {turn.way for each in dense.rounds for turn in each.rounds} == {Way.SUM}


def test_letters_take_what_the_network_takes() -> None:
    """A ring of gossip has no round in which all take part; its messages are those of the simulator."""
    slow, fast = Network(1e5, 0.5), Network(1e12, 0.0)
    found = [
        measure_synchronized(parse_method("d-psgd"), LAYOUT, vectors(), 0, 4, network).at(0.5)
        for network in (slow, fast)
    ]  # fmt: skip
    assert all(each.rounds == () for each in found)
    assert found[0].letters_s > 0.5 + 4 * LAYOUT.numel / 1e5
    assert found[1].letters_s < 1e-3


def test_the_hook_sends_each_bucket_with_small_tensors_in_full() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 60))
    step = TrainingStep(model, lambda each: each(torch.ones(2, 100)).sum())
    data = step.gradients(2)
    buckets = [("1.weight", "1.bias"), ("0.weight", "0.bias")]
    measured = measure_hooked(parse_method("topk:density=1%"), step, buckets, data, 0, SIZE, Network())
    first, second = (each.at(0.5) for each in measured)
    for exchange, numel, dense in ((first, 3000, 60), (second, 5000, 50)):
        (turn,) = exchange.rounds
        kept = numel // 100
        assert turn.way is Way.GATHER
        assert 4 * (dense + kept) < turn.num_bytes < 4 * (dense + kept) + 2 * kept + 120
    with pytest.raises(ConfigError, match="every"):
        measure_hooked(parse_method("topk:density=1%,every=4"), step, buckets, data, 0, SIZE, Network())


def test_a_model_too_long_to_be_tried_is_taken_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Layout(tuple("abcd"), (torch.Size([5000]),) * 4)
    data = [torch.randn(20_000, generator=torch.Generator().manual_seed(1))]
    monkeypatch.setattr("thinwire.planner.local.MOST_ENTRIES", 10_000)
    found = measure_synchronized(parse_method("local-sgd:every=2"), long, data, 0, SIZE, Network())
    assert [turn.num_bytes for turn in found.rounds[0].rounds] == [4 * 20_000]


def test_numbers_of_exchanges_are_taken_apart_and_put_together() -> None:
    rounds = (Round(Way.GATHER, 10.0, 0.5), Round(Way.SUM, 20.0, 0.25))
    measured = MeasuredExchange((Exchange(1.0, rounds, 2.0), Exchange(3.0, rounds, 4.0)), 0.125)
    assert measured.of(measured.numbers()) == measured
    doubled = measured.of([2 * number for number in measured.numbers()])
    assert doubled == measured.times(2.0)


def test_who_waits_rarely_waits_for_less() -> None:
    plain = PlainSteps((1.0, 2.0, 3.0), (3.0, 4.0, 5.0))
    assert [plain.at(0.5, period) for period in (1, 4, 16)] == pytest.approx([4.0, 3.0, 2.5])
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(4, 20_000, 16, generator=generator, dtype=torch.float64)
    single = PlainSteps(tuple(drawn[:, :, 0].mean(0).tolist()), tuple(drawn[:, :, 0].amax(0).tolist()))
    assert single.at(0.5, 16) == pytest.approx(float((drawn.sum(2) / 16).amax(0).median()), rel=0.05)


def test_a_step_of_given_seconds_hands_over_at_one_pace() -> None:
    step = TrainingStep.of_sizes([5000, 70, 8192], 0.3, torch.ones(20_000))
    assert step.layout.numel == 13_262
    shapes = dict(zip(step.layout.names, step.layout.shapes, strict=True))
    assert shapes == {"params.0": (50, 100), "params.1": (70,), "params.2": (64, 128)}
    (gradient,) = step.gradients(1)
    assert torch.equal(gradient, torch.ones(13_262))


def test_ddp_ways_come_first_and_methods_go_where_they_fit() -> None:
    chosen = candidates(["qsgd:bits=4", "local-sgd:every=8", "qsgd:bits=4"])
    assert [each.kind for each in chosen] == [
        Kind.DENSE, Kind.DENSE_BF16, Kind.POWER_SGD, Kind.HOOKED, Kind.SYNCHRONIZED
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="server"):
        candidates(["easgd-async"])
    assert len(candidates([])) > 8


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    plan = RecordingPlan(method="sgd", workers=1, steps=6, every=2, lr=0.1, batch_size=8)
    recorder = Recorder(plan, load_task("logreg"))
    recorder.run(lambda step: None)
    path = tmp_path_factory.mktemp("recording") / "gradients.pt"
    recorder.recording().save(path)
    return Recording.load(path)


def test_the_error_of_messages_is_that_of_the_compressor(recording: Recording) -> None:
    rows = recording.gradient.vectors
    found = message_error(Candidate("topk:density=10%", Kind.HOOKED), recording)
    kept = round(rows.shape[1] * 0.1)
    left = [float(1 - row.square().sort(descending=True).values[:kept].sum() / row.square().sum()) for row in rows]
    assert found == pytest.approx(sum(left) / len(left), rel=0.05)
    assert message_error(Candidate(DENSE, Kind.DENSE), recording) == 0.0
    rounded = message_error(Candidate(DENSE_BF16, Kind.DENSE_BF16), recording)
    assert rounded is not None
    assert 0 < rounded < 2**-16
    for untold in (Candidate("topk:density=10%,every=4", Kind.SYNCHRONIZED), Candidate(POWER_SGD, Kind.POWER_SGD)):
        assert message_error(untold, recording) is None


def test_gradients_of_zeros_tell_nothing(recording: Recording) -> None:
    zeros = replace(recording.gradient, vectors=torch.zeros_like(recording.gradient.vectors))
    with pytest.raises(ConfigError, match="zeros"):
        message_error(Candidate("topk:density=10%", Kind.HOOKED), replace(recording, gradient=zeros))


def test_a_trial_says_how_much_worse_a_method_ends_than_dense() -> None:
    trial = Trial(load_task("logreg"), "logreg", None, 2, 12, seeds=(0,))
    dense, sparse = trial.losses([Candidate(DENSE, Kind.DENSE), Candidate("topk:k=1,memory=none", Kind.HOOKED)])
    assert dense == 0.0
    assert sparse > 0.0
    assert trial.values(["sgd"]) == trial.values(["sgd"])


def test_what_a_trial_has_trained_it_does_not_train_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def counted(comparison: Comparison, *args: Any, **kwargs: Any) -> ComparisonRunner:
        trained.extend(comparison.methods)
        return ComparisonRunner(comparison, *args, **kwargs)

    monkeypatch.setattr("thinwire.planner.accuracy.ComparisonRunner", counted)
    trial = Trial(load_task("logreg"), "logreg", None, 2, 4, seeds=(0,))
    first = trial.losses([Candidate("topk:k=1", Kind.HOOKED)])
    second = trial.losses([Candidate("qsgd:bits=4", Kind.HOOKED), Candidate("topk:k=1", Kind.HOOKED)])
    assert trained == ["sgd", "topk:k=1", "qsgd:bits=4"]
    assert second[1:] == first


def test_a_judge_of_recorded_gradients_tells_the_error_of_messages(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "gradients.pt")
    judge = _judge({"accuracy_loss": 0.1, "gradients": str(tmp_path / "gradients.pt"), "task": None})
    assert judge is not None
    for name in ("topk:density=10%", "qsgd:bits=4"):
        candidate = Candidate(name, Kind.HOOKED)
        assert judge(candidate, 2) == message_error(candidate, recording) != 0.0

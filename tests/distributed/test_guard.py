"""Replicas that come apart are found, named and mended; and the time of a step is counted once, wherever it goes."""

import functools
from pathlib import Path
from typing import Any

import guard_mains as mains
import pytest
import torch
from kernel_twins import crc32c_python

from thinwire.distributed.guard import ReplicaGuard, tensor_hashes
from thinwire.distributed.replicas import WorkerReplicas
from thinwire.errors import ConfigError
from thinwire.experiments.launch import launch
from thinwire.methods import parse_method
from thinwire.worker import Worker
from thinwire.worker.step_times import PHASES, StepClock, StepTimes, median_times

SIZE = 3
NUMBERS = range(len(mains.SETTINGS))
CHECKED = 6
"""The first comparison after the damage."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("guard")
    launch(SIZE, functools.partial(mains.run_all, str(folder)))
    return [torch.load(Path(folder, f"rank-{rank}.pt"), weights_only=False) for rank in range(SIZE)]


def ids(numbers: list[int]) -> list[str]:
    return [str(mains.SETTINGS[number]) for number in numbers]


def described(setting: mains.Setting) -> str:
    """The differing tensor and who differs from process 0."""
    differing = tuple(rank for rank in range(SIZE) if (rank in setting.ranks) != (0 in setting.ranks))
    return f"{setting.name!r} of process{'es' if len(differing) > 1 else ''} {', '.join(map(str, differing))} is not"


STOPPED = [n for n in NUMBERS if mains.SETTINGS[n].on_difference == "stop" and mains.SETTINGS[n].damage == "parameter"]


@pytest.mark.parametrize("number", STOPPED, ids=ids(STOPPED))
def test_one_flipped_bit_stops_every_process_at_the_same_step(number: int, found: list[dict[str, Any]]) -> None:
    raised = [each["trained"][number]["raised"] for each in found]
    assert raised[0][0] == CHECKED
    assert described(mains.SETTINGS[number]) in raised[0][1]
    assert f"found at step {CHECKED}: " in raised[0][1]
    assert raised == [raised[0]] * SIZE


MENDED = [n for n in NUMBERS if mains.SETTINGS[n].on_difference == "resync" and mains.SETTINGS[n].damage == "parameter"]


@pytest.mark.parametrize("number", MENDED, ids=ids(MENDED))
def test_resync_makes_the_bits_equal_and_training_goes_on(number: int, found: list[dict[str, Any]]) -> None:
    setting = mains.SETTINGS[number]
    runs = [each["trained"][number] for each in found]
    states = [run["states"] for run in runs]
    assert len(states[0]) == mains.STEPS
    for run in runs:
        assert list(run["warned"]) == [CHECKED]
        assert described(setting) in run["warned"][CHECKED]
        assert run["num_resyncs"] == 1
    odd_one = setting.ranks[0] if 0 not in setting.ranks else 1
    assert any(
        not torch.equal(states[0][CHECKED - 2][name], states[odd_one][CHECKED - 2][name]) for name in states[0][0]
    )
    for step in range(CHECKED - 1, mains.STEPS):
        for name, tensor in states[0][step].items():
            assert all(torch.equal(other[step][name], tensor) for other in states[1:]), (step, name)
    last, mended = states[0][-1], states[0][CHECKED - 1]
    assert all(not torch.equal(last[name], mended[name]) for name in last)


def test_process_0_keeps_its_own_values(found: list[dict[str, Any]]) -> None:
    """Also where it is the one that was damaged: the others take the damage."""
    for number in MENDED:
        setting = mains.SETTINGS[number]
        states = [each["trained"][number]["states"] for each in found]
        before, after = states[0][CHECKED - 2][setting.name], states[0][CHECKED - 1][setting.name]
        if setting.method.startswith("qsparse"):  # no exchange between the two
            assert torch.equal(before, after)


def test_only_entries_whose_reference_differed_begin_again(found: list[dict[str, Any]]) -> None:
    for number in MENDED:
        setting = mains.SETTINGS[number]
        if not setting.method.startswith("qsparse"):
            continue
        reference = found[0]["trained"][number]["states"][CHECKED - 1][setting.name].view(-1)
        for rank in range(SIZE):
            before, after = (tensor.view(-1) for tensor in found[rank]["trained"][number]["local"])
            if rank in setting.ranks:
                assert not torch.equal(before, reference.to(before.dtype))
                assert after[0] == reference[0].to(after.dtype)
                assert before[0] != after[0]
            else:
                assert before[0] == after[0]
            # Of 16 bits and what rounding took from them the sum is kept; it may round to a neighbour.
            assert torch.allclose(before[1:], after[1:], rtol=0.01 * setting.bf16, atol=0.0)


def test_the_optimizer_is_mended_too(found: list[dict[str, Any]]) -> None:
    """Else its momentum would take the parameters apart again."""
    number = next(n for n in NUMBERS if mains.SETTINGS[n].damage == "optimizer")
    runs = [each["trained"][number] for each in found]
    assert [list(run["warned"]) for run in runs] == [[CHECKED]] * SIZE
    assert "'2.weight' of process 2 is not" in runs[0]["warned"][CHECKED]
    assert "the cause remains" not in runs[0]["warned"][CHECKED]
    for name, tensor in runs[0]["model"].items():
        assert all(torch.equal(run["model"][name], tensor) for run in runs)


def test_what_an_update_remembers_is_mended_too(found: list[dict[str, Any]]) -> None:
    number = next(n for n in NUMBERS if mains.SETTINGS[n].damage == "velocity")
    runs = [each["trained"][number] for each in found]
    # The outer momentum counts at the next exchange, after step 8.
    assert [list(run["warned"]) for run in runs] == [[9]] * SIZE
    for name, tensor in runs[0]["states"][-1].items():
        assert all(torch.equal(run["states"][-1][name], tensor) for run in runs)


def test_local_models_may_differ(found: list[dict[str, Any]]) -> None:
    number = next(n for n in NUMBERS if mains.SETTINGS[n].damage == "model")
    assert [each["trained"][number]["raised"] for each in found] == [None] * SIZE
    assert [each["trained"][number]["warned"] for each in found] == [{}] * SIZE


def test_a_guard_changes_neither_bits_nor_counted_bytes(found: list[dict[str, Any]]) -> None:
    unguarded, guarded = (n for n in NUMBERS if mains.SETTINGS[n].damage == "none")
    for each in found:
        one, other = each["trained"][unguarded], each["trained"][guarded]
        assert one["traffic"] == other["traffic"]
        assert other["warned"] == {}
        for ours, theirs in zip(one["states"], other["states"], strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_every_dtype_and_memory_format_is_hashed_and_mended_by_its_bits(found: list[dict[str, Any]]) -> None:
    intact = found[0]["odd"][0][3]
    for each in found:
        for name, first, total, bits in each["odd"]:
            assert bits == intact
            if name is None:
                assert (first, total) == ([], 0)
            else:
                assert f"'{name}' of process 2 is not that of process 0 (1 of 5 tensors differ)" in first[0]
                assert total == 1


def test_models_that_are_not_one_stop_every_process(found: list[dict[str, Any]]) -> None:
    for each in found:
        count, shape, state = each["strangers"]
        assert "different names, shapes or dtypes" in count
        assert "different names, shapes or dtypes" in shape
        assert "their optimizers hold different tensors" in state


def test_hashes_are_of_the_bits_in_index_order() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(5, 7, generator=generator)
    expected = crc32c_python(table.numpy().tobytes())
    half = torch.tensor([1.5, float("nan")], dtype=torch.bfloat16)
    of_half = crc32c_python(bytes([0xC0, 0x3F, 0xC0, 0x7F]))
    hashes = tensor_hashes([table, table.T.contiguous().T, half, torch.tensor(0.0), torch.tensor(-0.0)])
    assert hashes[:3].view(torch.int32).tolist() == [
        number - (number >> 31 << 32) for number in (expected, expected, of_half)
    ]
    assert hashes[3] != hashes[4]


def test_what_cannot_be_guarded_is_refused() -> None:
    with pytest.raises(ConfigError, match="every 0 steps"):
        ReplicaGuard(every=0)
    with pytest.raises(ConfigError, match="'stop' or 'resync'"):
        ReplicaGuard(on_difference="mend")  # type: ignore[arg-type]
    for text in ("choco", "d-psgd", "local-sgd-async"):
        model = mains.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        worker = Worker(parse_method(text), model, optimizer, rank=0, size=4, seed=0)
        with pytest.raises(ConfigError, match="a model of its own at every moment"):
            WorkerReplicas(worker)


def test_each_second_of_a_step_is_counted_where_it_went(found: list[dict[str, Any]]) -> None:
    for each in found:
        for clocked in each["clocked"].values():
            assert sum(sum(times.values()) for times in clocked["steps"]) == clocked["passed"]
        gathered, reduced = each["clocked"]["gather"], each["clocked"]["all-reduce"]
        for step, times in enumerate(gathered["steps"]):
            # Which of the two it is goes by what had come when it was asked for.
            assert times.pop("waiting_s") + times.pop("wire_s") == 11.0 + 13.0 + 17.0 + 29.0
            assert times == {
                "compute_s": 23.0 + step, "compress_s": 3.0, "encode_s": 5.0, "decode_s": 7.0, "apply_s": 19.0
            }  # fmt: skip
        assert gathered["median"].compute_s == 24.0
        for times in reduced["steps"]:
            assert times["wire_s"] >= 2.0 + 31.0 + 37.0 + 3.0
            assert times["waiting_s"] + times["wire_s"] == 2.0 + 31.0 + 37.0 + 3.0 + 17.0 + 29.0
            assert (times["compress_s"], times["decode_s"], times["apply_s"]) == (0.0, 0.0, 19.0)
        for times in each["clocked"]["server"]["steps"]:
            assert times["waiting_s"] + times["wire_s"] > 1.0


def test_the_phases_of_any_sequence_add_up() -> None:
    ticks = iter(range(10**6))
    clock = StepClock(now=lambda: float(next(ticks)), kept=3)
    for step in range(5):
        outside = clock.switch("apply")
        for phase in ("compress", "encode", "waiting", "wire", "decode") * (step + 1):
            clock.switch(phase)
        clock.switch(outside)
        clock.end_step()
    assert [times.total_s for times in clock.steps()] == [5.0 * (step + 1) + 3.0 for step in (2, 3, 4)]
    assert clock.steps()[0].seconds("wire") == 3.0
    assert clock.median() == clock.steps()[1]
    assert str(clock.median()).startswith("step 23000.00 ms: compute 2000.00, compress 4000.00")


def test_times_are_there_if_asked_for() -> None:
    with pytest.raises(ConfigError, match="profile=True"):
        median_times(None)
    with pytest.raises(ConfigError, match="0 steps"):
        StepClock(kept=0)
    assert median_times(StepClock()) == StepTimes()


SHELLS = ("optimizer", "hook")


@pytest.mark.parametrize("shell", SHELLS)
def test_both_shells_stop_on_every_process(shell: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        ((step, kind, message),) = each["shells"][f"{shell}-stop"]["said"]
        # A hook compares in the backward of the next step.
        assert (step, kind) == (4 if shell == "optimizer" else 5, "DivergenceError")
        assert "found at step 4: '2.weight' of process 1 is not" in message


@pytest.mark.parametrize("shell", SHELLS)
def test_both_shells_resync_and_go_on(shell: str, found: list[dict[str, Any]]) -> None:
    runs = [each["shells"][f"{shell}-resync"] for each in found]
    for run in runs:
        assert [(step, kind) for step, kind, _ in run["said"]] == [(4 if shell == "optimizer" else 5, "warning")]
        assert all(torch.equal(run["bits"][name], bits) for name, bits in runs[0]["bits"].items())


@pytest.mark.parametrize("shell", SHELLS)
def test_both_shells_report_every_parameter(shell: str, found: list[dict[str, Any]]) -> None:
    """Those that a hook sends in full as well; all bytes of all messages are some parameter's."""
    names = ["0.bias", "0.weight", "2.bias", "2.weight"]
    steps = [2, 4, 6] if shell == "optimizer" else [1, 2, 3, 4, 5, 6]
    for rank, each in enumerate(found):
        run = each["shells"][f"{shell}-resync"]
        records = run["records"]
        if rank == 2:
            assert records == []
            continue
        assert sorted((record["step"], record["name"]) for record in records) == sorted(
            (step, name) for step in steps for name in names
        )
        assert {record["rank"] for record in records} == {rank}
        assert sum(record["message_bytes"] for record in records) == pytest.approx(run["message_bytes"])
        exact = {record["name"] for record in records if record["relative_error"] == 0.0}
        assert exact == ({"0.bias", "2.bias"} if shell == "hook" else set())


@pytest.mark.parametrize("shell", SHELLS)
def test_both_shells_say_where_the_time_goes(shell: str, found: list[dict[str, Any]]) -> None:
    for each in found:
        times = each["shells"][f"{shell}-resync"]["times"]
        assert min(times.compute_s, times.apply_s, times.total_s) > 0.0
        if shell == "hook":
            # What comes in one piece has no time on the wire that could be told from waiting.
            assert min(times.seconds(phase) for phase in PHASES if phase != "wire") > 0.0

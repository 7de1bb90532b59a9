"""The probe as users start it, under torchrun, and what it says of its figures."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_cli
from commands import TORCHRUN, start
from rich.console import Console

from thinwire.cli.limits import read_device
from thinwire.cli.probing import DENSE, ProbeRow, make_table, verdict
from thinwire.distributed.probe import Cost
from thinwire.errors import ConfigError
from thinwire.network import Network, all_reduce_traffic
from thinwire.report import print_fitted

FIELDS = {
    "method", "numel", "processes", "bandwidth_Bps", "latency_s", "compute_s", "bytes_sent", "bytes_received",
    "exchange_s", "is_predicted", "measured_numel", "rounds", "step_s", "overlapped_step_s", "kept_num_bytes",
}  # fmt: skip
METHODS = ["sgd", "topk:density=1%,every=4", "topk:k=30000"]


def row(method: str, seconds: float, *, overlaps: bool = True, compute_s: float = 0.05, rounds: int = 5) -> ProbeRow:
    return ProbeRow(
        method=method, numel=5_000_000, processes=2, network=Network.parse("100Mbit,1ms"), compute_s=compute_s,
        cost=Cost(seconds, 2e7, 1500.0, rounds, 5_000_000), overlaps=overlaps, kept_num_bytes=2_000_000,
    )  # fmt: skip


def shown(rows: list[ProbeRow]) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        print_fitted(make_table(rows), console)
    return capture.get()


def test_under_torchrun_it_tells_of_each_method_and_which_to_use(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    command = ["probe", *METHODS, "--numel", "60k", "--compute", "5ms", "--limit", "0", "--json", str(path)]
    with start(command, TORCHRUN) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "60,000 entries, 2 processes" in out
    assert all(method.partition(":")[0] in out for method in (*DENSE, *METHODS))  # long names may be folded
    # Which one wins is the clock's; so only that one of the methods and one of the dense exchanges are weighed.
    last = out.splitlines()[-1]
    assert any(name in last for name in METHODS)
    assert any(name in last for name in DENSE)
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["method"] for line in lines] == [*DENSE, *METHODS]
    for line in lines:
        assert line.keys() == FIELDS
        assert (line["numel"], line["processes"], line["compute_s"]) == (60_000, 2, 0.005)
        assert line["exchange_s"] > 0
        assert line["step_s"] == 0.005 + line["exchange_s"]
        hooked = None if "every" in line["method"] else max(0.005, line["exchange_s"])
        assert line["overlapped_step_s"] == hooked
    dense, halved = lines[:2]
    assert (halved["bytes_sent"], halved["exchange_s"]) == (
        dense["bytes_sent"] / 2,
        pytest.approx(2 * (dense["latency_s"] + 60_000 / dense["bandwidth_Bps"])),
    )
    # Two rounds of half of the bytes each, as the link was measured.
    assert dense["exchange_s"] == pytest.approx(2 * (dense["latency_s"] + 120_000 / dense["bandwidth_Bps"]))
    assert dense["bytes_sent"] == all_reduce_traffic(60_000, 2)[0].bytes_sent
    # There is time for nothing but the shortest vectors; so many entries can be kept of none but the whole.
    assert [line["measured_numel"] for line in lines] == [0, 0, 15_000, 15_000, 60_000]
    assert [line["is_predicted"] for line in lines] == [True, True, True, True, False]
    assert [line["rounds"] for line in lines] == [0, 0, 0, 0, 1]
    assert out.count("predicted") == 4
    # A residual of 60,000 entries, and a reference of methods that average models.
    assert [line["kept_num_bytes"] for line in lines] == [0, 0, 0, 480_000, 480_000]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sgd"], "torchrun --nproc-per-node 2"),
        (["sgd", "--numel", "1M", "--like", "gpt2"], "give one of them"),
        (["sgd", "--compute", "10ms,jitter=20%"], "it is one time, such as 50ms"),
        (["sgd", "--limit", "-1"], "0 or more"),
        (["sgd", "no-such-method"], "no-such-method"),
    ],
)
def test_what_cannot_be_probed_is_refused_with_advice(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if len(arguments) > 1:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # as under torchrun
    assert run_cli(monkeypatch, "probe", *arguments) == 2
    assert said in capsys.readouterr().err


def test_one_process_of_several_tells_of_a_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "1")
    assert run_cli(monkeypatch, "probe", "no-such-method") == 1
    assert capsys.readouterr().err == ""


def test_a_step_computes_and_exchanges_one_after_the_other_or_both_at_once() -> None:
    hooked, local = row("a", 0.02), row("b", 0.02, overlaps=False)
    assert (hooked.step_s, hooked.overlapped_step_s, hooked.best_step_s) == pytest.approx((0.07, 0.05, 0.05))
    assert local.step_s == pytest.approx(0.07)
    assert local.overlapped_step_s is None
    assert local.best_step_s == local.step_s
    assert row("c", 0.2).best_step_s == 0.2


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [row("dense", 1.6), row("a", 0.1), row("b", 0.02, overlaps=False)],
            "use b, with thinwire.synchronize: 70 ms a step where dense takes 1.6 s, 22.9 times as long",
        ),
        (
            [row("dense", 1.6), row("dense, bf16", 0.8), row("a", 0.1), row("b", 0.06, overlaps=False)],
            "use a, with thinwire.compress_ddp: 100 ms a step where dense, bf16 takes 800 ms, 8 times as long",
        ),
        (
            [row("dense", 0.1), row("a", 0.3), row("b", 0.15, overlaps=False)],
            "dense is faster here: 100 ms a step, and 200 ms with b, 2 times as long; train with plain DDP",
        ),
        (
            # Backward hides both.
            [row("dense", 0.5), row("dense, bf16", 0.04), row("a", 0.001)],
            "dense, bf16 is as fast here: 50 ms a step, and 50 ms with a; train with DDP and its bf16_compress_hook",
        ),
    ],
)
def test_the_last_line_says_which_to_use_and_by_how_much(rows: list[ProbeRow], expected: str) -> None:
    assert verdict(rows) == expected


def test_the_table_marks_what_is_predicted() -> None:
    lines = shown([row("dense", 160.4, rounds=0), row("a", 0.0123, overlaps=False)]).splitlines()
    assert "5,000,000 entries, 2 processes; 100 Mbit/s, 1 ms; 50 ms of compute" in lines[0]
    dense, method = (next(line.split() for line in lines if line.split()[:1] == [name]) for name in ("dense", "a"))
    assert dense == ["dense", "20", "MB", "1.5", "kB", "160", "s", "160", "s", "160", "s", "2", "MB", "predicted"]
    assert method == ["a", "20", "MB", "1.5", "kB", "12.3", "ms", "62.3", "ms", "-", "2", "MB"]


@pytest.mark.parametrize(
    ("device", "said"),
    [("cuda", "torch finds no CUDA device"), ("cuda:1", "torch finds no CUDA device"), ("mps", "it is cpu or cuda"),
     ("tpu", "it is cpu or cuda"), ("", "it is cpu or cuda")],
)  # fmt: skip
def test_a_device_that_is_not_there_is_refused(device: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=said):
        read_device(device)


def test_cuda_is_each_processs_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for rank in range(4):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert read_device("cuda") == torch.device("cuda", rank % 2)
    assert read_device("cuda:0") == torch.device("cuda", 0)
    assert read_device("cpu") == torch.device("cpu")

"""Every table of the command line at every width, on terminals that know few characters."""

import io
import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from rich.console import Console

from thinwire.bench import BenchRow, make_tables
from thinwire.cli import frontier as cli_frontier
from thinwire.cli.probing import DENSE, ProbeRow, make_table
from thinwire.cli.progress import Meter
from thinwire.distributed.probe import Cost
from thinwire.frontier import Frontier, FrontierRow
from thinwire.network import Network
from thinwire.report import (
    RecordedMetric,
    RecordedSetting,
    ResultRow,
    TerminalColumn,
    TerminalTable,
    plain,
    print_fitted,
    print_table,
)
from thinwire.report.formats import TIMES

METHODS = (
    "sgd", "topk:density=1%", "signtopk:density=0.1%,every=16", "ef-signsgd",
    "qsparse:density=2%,levels=15,norm=max,every=4,select=random,exchange=server,granularity=tensor",
)  # fmt: skip
WIDTHS = (60, 80, 120)


def result_rows() -> list[ResultRow]:
    first = ResultRow(
        method="sgd", is_baseline=True,
        metric=RecordedMetric(name="accuracy", higher_is_better=True, logarithmic=False),
        target=0.86, setting=RecordedSetting(optimizer="sgd", options="", lr=0.1), num_runs=2, num_diverged=0,
        final_value=0.8712, final_value_within=0.0043, against_dense=-0.004, against_dense_within=0.003,
        final_top5=None, final_top5_within=None, final_loss=0.4321, num_reached=1,
        steps_to_target=410.0, steps_to_target_within=12.0,
        message_bytes_to_target=3.39e8, message_bytes_to_target_within=1e7, link_bytes_to_target=1.19e9,
        link_bytes_to_target_within=2e7, message_ratio=2779.0, link_ratio=692.0, seconds_to_target=68.0,
        seconds_to_target_within=2.5, message_bytes_per_step=826_000.0,
        exchange="AllReduce", all_reduces=True, union_density=1.0, relative_error=0.0, computing_share=0.4,
    )  # fmt: skip
    return [replace(first, method=method, is_baseline=method == "sgd") for method in METHODS]


def print_results(console: Console) -> None:
    print_table(result_rows(), console)


def print_probe(console: Console) -> None:
    rows = [
        ProbeRow(
            method=method, numel=25_557_032, processes=2, network=Network.parse("100Mbit,20ms"), compute_s=0.05,
            cost=Cost(1.25, 1e8, 1e8, 5, 5_000_000), overlaps=True, kept_num_bytes=102_228_128,
        )
        for method in (*DENSE, *METHODS)
    ]  # fmt: skip
    print_fitted(make_table(rows), console)


def print_bench(console: Console) -> None:
    rows = [
        BenchRow(
            step=step, variant="buckets of 512, largest magnitude", numel=25_557_032, threads=threads, density=0.01,
            input="heavy", seconds=0.014, memcpy_seconds=0.009, ratio=1.55, bits_per_entry=2.06, entropy_bits=1.98,
            bits_per_index=8.1, index_bound_bits=8.08, extra_bytes=1_000_000,
        )
        for step in ("ef-topk-sign", "rans-encode", "torch-topk") for threads in (1, 2, 4)
    ]  # fmt: skip
    for table in make_tables(rows):
        print_fitted(table, console)


PRINTERS: dict[str, tuple[Callable[[Console], None], Sequence[str]]] = {
    "results": (print_results, METHODS),
    "probe": (print_probe, (*DENSE, *METHODS)),
    "bench": (print_bench, ("ef-topk-sign", "rans-encode", "torch-topk")),
}


def printed(show: Callable[[Console], None], width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)  # strict: what it cannot hold is an error
    show(Console(file=stream, width=width))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize(("name", "width"), list(itertools.product(PRINTERS, WIDTHS)))
def test_a_table_fits_and_names_its_rows_whole(name: str, width: int, encoding: str) -> None:
    show, names = PRINTERS[name]
    lines = printed(show, width, encoding).splitlines()
    assert max(map(len, lines)) <= width
    # A part of the table begins with a rule; in each, the names from the left are all there, broken at most after
    # their commas and colons.
    rules = [place for place, line in enumerate(lines) if set(line) in ({"─"}, {"-"})]
    assert rules
    for begin, end in itertools.pairwise([*rules, len(lines)]):
        left = "".join(
            line.strip() if line.startswith("  ") else re.split(r" {2,}", line)[0] for line in lines[begin + 1 : end]
        )
        for each in names:
            assert each in left


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_left_out(width: int) -> None:
    text = printed(print_results, width)
    for value in (
        "0.1",
        "0.8712 ±0.0043",
        "0.4321",
        "410 1/2",
        "339 MB",
        "1.19 GB",
        f"2,779{TIMES}",
        f"692{TIMES}",
        "68.0 s",
        "826 kB",
    ):
        assert text.count(value) >= len(METHODS), value
    for head in ("lr", "accuracy", "loss", "steps to", "message", "fewer", "link", "time to", "/step"):
        assert head in text


def test_a_terminal_without_the_characters_gets_others() -> None:
    text = printed(print_results, 120, "ascii")
    assert "0.8712 +/-0.0043" in text
    assert "2,779x" in text
    assert "?" not in text


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_of_operators_fit(width: int) -> None:
    operators = ("TopK", "SuccessiveCompression", "GSpar", "QSGD")
    budgets = (0.1, 0.5, 1.0, 2.0, 4.0)
    rows = [
        FrontierRow(
            input="gaussian", kind="any", clients=1, budget=budget, operator=operator,
            configuration="TopK(k=3)", json={}, chunk=None, bits=budget, error=0.123456,
            error_low=0.12, error_high=0.13,
            unbiased=True, contraction=True, running_sum=0.01,
        )
        for operator in operators for budget in budgets
    ]  # fmt: skip
    found = Frontier(input="gaussian", numel=16_384, rows=tuple(rows), points=())
    lines = printed(
        lambda console: print_fitted(cli_frontier._rows_table(found, 1, "any"), console), width
    ).splitlines()
    assert max(map(len, lines[1:])) <= width
    assert all(any(line.startswith(operator) for line in lines) for operator in operators)


def test_control_characters_of_names_do_not_reach_the_terminal() -> None:
    column = TerminalColumn(header="method", cells=["\x1b[31mred\x07", "[bold]no markup[/bold]"], is_name=True)
    text = printed(lambda console: print_fitted(TerminalTable(columns=[column]), console), 80)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]no markup[/bold]" in text


@pytest.mark.parametrize("text", ["a — b", "1 ± 2", f"3{TIMES}", "≥ ≤ µs ✓", "“quoted”", "é ü", "漢"])
def test_plain_text_is_ascii_and_is_left_alone_where_it_fits(text: str) -> None:
    assert plain(text, "ascii").isascii()
    assert plain(text, "utf-8") == text
    assert len(plain(text, "ascii")) >= len(text)


def test_rows_are_plain_json() -> None:
    for row in result_rows():
        told = json.loads(json.dumps(row.to_json(), allow_nan=False))
        assert (told["method"], told["metric"], told["message_ratio"]) == (row.method, "accuracy", 2779.0)


def test_progress_is_a_line_now_and_then_with_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with Meter(clock=lambda: now[0]) as meter:
        for done in range(100, 1001, 5):  # it goes on from step 100
            meter.show("training", done, 1000, "steps")
            now[0] += 1.0
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0] == "training: 100 of 1,000 steps"
    assert lines[1] == "training: 250 of 1,000 steps after 30 s, about 2 min left"
    assert lines[-1] == "training: 1,000 of 1,000 steps after 3 min"
    assert len(lines) == 7


def test_progress_of_other_processes_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Meter(enabled=False) as meter:
        meter.show("training", 1, 2, "steps")
    assert capsys.readouterr().err == ""

"""``thinwire frontier``."""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import torch
import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from thinwire.cli.application import app, console, numbers, open_lines
from thinwire.config import to_json
from thinwire.errors import ConfigError
from thinwire.experiments.processes import process_context
from thinwire.experiments.session import one_torch_thread
from thinwire.frontier import Choice, Frontier, Input, Line, Row, best_operator, frontier, make_input, pairs, write_page
from thinwire.frontier.inputs import DEFAULT_NUMEL, SYNTHETIC
from thinwire.frontier.pairs import exact_num_bytes
from thinwire.frontier.sweep import BUDGETS
from thinwire.frontier.tables import BUDGETED_SEED, budget_table, reference_table

_LEGEND = (
    "error: ||C(x) - x||^2 / ||x||^2 of the best member of each operator within the budget; of the mean of several "
    "clients where there are several. bits: 8 times the encoded bytes, for each entry. u: unbiased, c: contraction. "
    "sum: error of the sum over 100 steps, with memory (c) or without."
)


class TableChoice(StrEnum):
    """Tables of well-known operators."""

    reference = "reference"
    budget = "budget"


class KindChoice(StrEnum):
    """What may be chosen."""

    any = "any"
    unbiased = "unbiased"
    contraction = "contraction"


@app.command("frontier")
def show_frontier(
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="gaussian, lognormal, student, or a file of thinwire record [default: the three]"),
    ] = None,
    bits: Annotated[str, typer.Option(help="budgets, in bits an entry")] = ",".join(f"{b:g}" for b in BUDGETS),
    clients: Annotated[str, typer.Option(help="how many messages are averaged")] = "1,8,32",
    kind: Annotated[KindChoice, typer.Option(help="which operators the tables and --best look at")] = KindChoice.any,
    numel: Annotated[int, typer.Option(help="entries of the vectors; of a longer recording, blocks")] = DEFAULT_NUMEL,
    draws: Annotated[int, typer.Option(help="draws over which an error is averaged")] = 2,
    best: Annotated[str, typer.Option(help="only the best operator: bits=1, or error=0.1")] = "",
    table: Annotated[TableChoice | None, typer.Option(help="only a table of well-known operators")] = None,
    gamma: Annotated[
        str, typer.Option(help="only the search of (s, k) for scaled QSGD of top-k: gamma=0.01,... of --numel entries")
    ] = "",
    json_file: Annotated[str, typer.Option("--json", help="file for a JSON line a row; - is standard output")] = "",
    html: Annotated[Path | None, typer.Option(help="file for the figures")] = None,
) -> None:
    """Which operator has the least error for a number of bits on the wire: every registered one, with true bytes."""
    if sum(map(bool, (best, table, gamma))) > 1:
        raise ConfigError("--best, --table and --gamma exclude each other; give one of them")
    with open_lines(json_file) as lines, one_torch_thread():
        quiet = lines is sys.stdout
        if gamma:
            _pairs(numbers(gamma.removeprefix("gamma="), float, "--gamma"), numel, lines)
            return
        seed = BUDGETED_SEED if table is TableChoice.budget else 1
        made = [make_input(name, numel, seed=seed) for name in inputs or SYNTHETIC]
        if table is not None:
            budgets = numbers(bits, float, "--bits")
            found = reference_table(made) if table is TableChoice.reference else budget_table(made, budgets)
            _print_lines(found, made, lines, quiet)
        elif best:
            for data in made:
                _best(data, best, kind, draws, lines, quiet)
        else:
            _frontier(
                made, numbers(bits, float, "--bits"), numbers(clients, int, "--clients"), kind, draws, lines, html
            )


def _frontier(
    made: Sequence[Input], budgets: Sequence[float], clients: Sequence[int], kind: KindChoice, draws: int,
    lines: TextIO | None, html: Path | None,
) -> None:  # fmt: skip
    with _progress() as progress:
        task = progress.add_task(f"measuring {', '.join(data.name for data in made)}", total=len(made))
        found: list[Frontier] = []
        for one in _each(made, functools.partial(frontier, budgets=budgets, clients=clients, draws=draws)):
            found.append(one)
            progress.advance(task)
            for row in one.rows if lines is not None else ():
                print(json.dumps(row.to_json()), file=lines, flush=True)
    if lines is not sys.stdout:
        for one in found:
            for count in clients:
                console.print(_rows_table(one, count, kind))
                for line in _best_lines(one, count, kind):
                    console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(_LEGEND, markup=False, highlight=False)
    if html is not None:
        try:
            write_page(found, html)
        except OSError as error:
            raise ConfigError(f"--html {html} cannot be written ({error.strerror}); give another file") from error
        console.print(f"wrote {html}", markup=False, highlight=False, soft_wrap=True)


def _each(made: Sequence[Input], measure: Callable[[Input], Frontier]) -> Iterable[Frontier]:
    """The inputs in order, measured on all processors."""
    jobs = min(len(made), os.cpu_count() or 1)
    if jobs == 1:
        return map(measure, made)
    with ProcessPoolExecutor(jobs, process_context(), torch.set_num_threads, (1,)) as pool:
        return list(pool.map(measure, made))


def _rows_table(found: Frontier, count: int, kind: KindChoice) -> Table:
    rows = [row for row in found.rows if row.clients == count and row.kind == kind.value]
    budgets = sorted({row.budget for row in rows})
    what = "one message" if count == 1 else f"mean of {count} clients"
    console.print(
        f"{found.input}, {found.numel:,} entries, {what}: error for at most that many bits an entry",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("operator", no_wrap=True)
    for budget in budgets:
        table.add_column(f"{budget:g}", justify="right", no_wrap=True)
    if count == 1:
        table.add_column(f"sum at {budgets[-1]:g}" if budgets else "sum", justify="right", no_wrap=True)
    best = {budget: min((row for row in rows if row.budget == budget), key=_rank) for budget in budgets}
    for operator in sorted({row.operator for row in rows}):
        own = {row.budget: row for row in rows if row.operator == operator}
        cells = [_cell(own.get(budget), best[budget]) for budget in budgets]
        last = own.get(budgets[-1])
        sums = (
            [] if count != 1 else [Text("-" if last is None or last.running_sum is None else f"{last.running_sum:.2e}")]
        )
        table.add_row(Text(operator), *cells, *sums)
    return table


def _best_lines(found: Frontier, count: int, kind: KindChoice) -> list[str]:
    rows = [row for row in found.rows if row.clients == count and row.kind == kind.value]
    best = [
        min((row for row in rows if row.budget == budget), key=_rank) for budget in sorted({r.budget for r in rows})
    ]
    return [f"  {row.budget:g}: {row.configuration} ({row.bits:.4g} bits, error {row.error:.4g})" for row in best]


def _rank(row: Row) -> tuple[float, float]:
    return row.error, row.bits


def _cell(row: Row | None, best: Row) -> Text:
    if row is None:
        return Text("-")
    marks = ("u" if row.unbiased else "") + ("c" if row.contraction else "")
    return Text(f"{row.error:.3g} {marks}", style="bold" if row.operator == best.operator else "")


def _best(data: Input, asked: str, kind: KindChoice, draws: int, lines: TextIO | None, quiet: bool) -> None:
    what, _, given = asked.partition("=")
    if what not in ("bits", "error") or not given:
        raise ConfigError(f"--best {asked} was given; write --best bits=1, or --best error=0.1")
    (limit,) = numbers(given, float, "--best") or (0.0,)
    bits, error = (limit, None) if what == "bits" else (None, limit)
    choice = best_operator(data.signal, bits_per_entry=bits, error=error, kind=kind.value, draws=draws)
    if lines is not None:
        print(json.dumps(_choice_json(data, choice)), file=lines, flush=True)
    if not quiet:
        console.print(f"{data.name}: {choice}", markup=False, highlight=False, soft_wrap=True)


def _choice_json(data: Input, choice: Choice) -> dict[str, object]:
    return {
        "input": data.name, "compressor": to_json(choice.compressor), "granularity": to_json(choice.granularity),
        "bits": choice.bits_per_entry, "error": choice.error, "error_low": choice.error_low,
        "error_high": choice.error_high, "unbiased": choice.unbiased, "contraction": choice.contraction,
    }  # fmt: skip


def _print_lines(found: Sequence[Line], made: Sequence[Input], lines: TextIO | None, quiet: bool) -> None:
    for line in found if lines is not None else ():
        print(json.dumps(line.to_json()), file=lines, flush=True)
    if quiet:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for head in (
        "operator",
        "budget",
        *(f"{data.name}: bits" for data in made),
        *(f"{data.name}: error" for data in made),
    ):
        table.add_column(Text(head), justify="left" if head == "operator" else "right")
    for name, budget in dict.fromkeys((line.name, line.budget) for line in found):
        own = {line.input: line for line in found if (line.name, line.budget) == (name, budget)}
        table.add_row(
            Text(name), "-" if budget is None else f"{budget:g}",
            *(f"{own[data.name].bits:.3f}" if data.name in own else "-" for data in made),
            *(f"{own[data.name].error:.3g}" if data.name in own else "-" for data in made),
        )  # fmt: skip
    console.print(table)


def _pairs(gammas: Sequence[float], numel: int, lines: TextIO | None) -> None:
    data = make_input("gaussian", numel)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for head in ("gamma", "levels s", "k", "bits by formula", "bits encoded", "as f32 top-k"):
        table.add_column(head, justify="right")
    for gamma in gammas:
        for pair in pairs(numel, gamma)[:3]:
            encoded, dense = 8 * pair.num_bytes(data.signal), 8 * exact_num_bytes(data.signal, gamma)
            table.add_row(f"{gamma:g}", f"{pair.levels}", f"{pair.k}", f"{pair.formula_bits}", f"{encoded}", f"{dense}")
            if lines is not None:
                shown = {"gamma": gamma, "levels": pair.levels, "k": pair.k, "formula_bits": pair.formula_bits}
                print(json.dumps({**shown, "encoded_bits": encoded, "topk_bits": dense}), file=lines, flush=True)
    if lines is not sys.stdout:
        console.print(table)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))

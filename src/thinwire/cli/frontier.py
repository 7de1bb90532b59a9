"""``thinwire frontier``."""

import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import torch

from thinwire.cli.application import console, numbers, say, write_line
from thinwire.cli.progress import Meter
from thinwire.config import to_json
from thinwire.errors import ConfigError
from thinwire.experiments.processes import process_context
from thinwire.experiments.training import one_torch_thread
from thinwire.frontier import (
    Frontier,
    FrontierRow,
    InputVectors,
    Line,
    best_operator,
    frontier,
    make_input,
    pairs,
    write_page,
)
from thinwire.frontier.inputs import SYNTHETIC
from thinwire.frontier.pairs import exact_num_bytes
from thinwire.frontier.tables import BUDGETED_SEED, budget_table, reference_table
from thinwire.report import TerminalColumn, TerminalTable, print_fitted

_LEGEND = (
    "error: ||C(x) - x||^2 / ||x||^2 of the best member of each operator within the budget; of the mean of several "
    "clients where there are several. bits: 8 times the encoded bytes, for each entry. u: unbiased, c: contraction. "
    "sum: error of the sum over 100 steps, with memory (c) or without."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What ``thinwire frontier`` was asked, as it was given."""

    inputs: tuple[str, ...]
    bits: str
    clients: str
    kind: Literal["any", "unbiased", "contraction"]
    numel: int
    draws: int
    best: str
    table: Literal["reference", "budget"] | None
    gamma: str
    html: Path | None
    inline: bool


def show_frontier(request: Request, lines: TextIO | None) -> None:
    """Measure and print what was asked for.

    Args:
        request: what was asked.
        lines: where JSON goes; with standard output nothing else is printed there.

    Raises:
        ConfigError: something that cannot be read, or a file that cannot be written.
    """
    quiet = lines is sys.stdout
    with one_torch_thread():
        if request.gamma:
            _pairs(numbers(request.gamma.removeprefix("gamma="), float, "--gamma"), request.numel, lines)
            return
        seed = BUDGETED_SEED if request.table == "budget" else 1
        made = [make_input(name, request.numel, seed=seed) for name in request.inputs or SYNTHETIC]
        if request.table is not None:
            budgets = numbers(request.bits, float, "--bits")
            found = reference_table(made) if request.table == "reference" else budget_table(made, budgets)
            _print_lines(found, made, lines, quiet)
        elif request.best:
            for data in made:
                _best(data, request, lines, quiet)
        else:
            _frontier(made, request, lines)


def _frontier(made: Sequence[InputVectors], request: Request, lines: TextIO | None) -> None:
    budgets, clients = numbers(request.bits, float, "--bits"), numbers(request.clients, int, "--clients")
    what = f"measuring {', '.join(data.name for data in made)}"
    with Meter() as meter:
        meter.show(what, 0, len(made), "inputs")
        found: list[Frontier] = []
        for one in _each(made, functools.partial(frontier, budgets=budgets, clients=clients, draws=request.draws)):
            found.append(one)
            meter.show(what, len(found), len(made), "inputs")
            for row in one.rows:
                write_line(lines, row.to_json())
    if lines is not sys.stdout:
        for one in found:
            for count in clients:
                print_fitted(_rows_table(one, count, request.kind), console)
                for line in _best_lines(one, count, request.kind):
                    say(line)
        console.print(_LEGEND, markup=False, highlight=False)
    if request.html is not None:
        write_page(found, request.html, command=shlex.join(["thinwire", *sys.argv[1:]]), inline=request.inline)
        if lines is not sys.stdout:
            say(f"wrote {request.html}")


def _each(made: Sequence[InputVectors], measure: Callable[[InputVectors], Frontier]) -> Iterable[Frontier]:
    """The inputs in order, measured on all processors."""
    jobs = min(len(made), os.cpu_count() or 1)
    if jobs == 1:
        return map(measure, made)
    with ProcessPoolExecutor(jobs, process_context(), torch.set_num_threads, (1,)) as pool:
        return list(pool.map(measure, made))


def _rows_table(found: Frontier, count: int, kind: str) -> TerminalTable:
    rows = [row for row in found.rows if row.clients == count and row.kind == kind]
    budgets = sorted({row.budget for row in rows})
    operators = sorted({row.operator for row in rows})
    known = {(row.operator, row.budget): row for row in rows}
    columns = [TerminalColumn(header="operator", cells=operators, is_name=True)]
    for budget in budgets:
        best = min((row for row in rows if row.budget == budget), key=_rank).operator
        cells = [_cell(known.get((operator, budget))) for operator in operators]
        bold = frozenset(place for place, operator in enumerate(operators) if operator == best)
        columns.append(TerminalColumn(header=f"{budget:g}", cells=cells, bold=bold))
    if count == 1 and budgets:
        sums = [_sum(known.get((operator, budgets[-1]))) for operator in operators]
        columns.append(TerminalColumn(header=f"sum at\n{budgets[-1]:g}", cells=sums))
    what = "one message" if count == 1 else f"mean of {count} clients"
    return TerminalTable(
        columns=columns,
        title=f"{found.input}, {found.numel:,} entries, {what}: error for at most that many bits an entry",
    )


def _best_lines(found: Frontier, count: int, kind: str) -> list[str]:
    rows = [row for row in found.rows if row.clients == count and row.kind == kind]
    best = [
        min((row for row in rows if row.budget == budget), key=_rank) for budget in sorted({r.budget for r in rows})
    ]
    return [f"  {row.budget:g}: {row.configuration} ({row.bits:.4g} bits, error {row.error:.4g})" for row in best]


def _rank(row: FrontierRow) -> tuple[float, float]:
    return row.error, row.bits


def _cell(row: FrontierRow | None) -> str:
    if row is None:
        return "-"
    marks = ("u" if row.unbiased else "") + ("c" if row.contraction else "")
    return f"{row.error:.3g} {marks}"


def _sum(row: FrontierRow | None) -> str:
    return "-" if row is None or row.running_sum is None else f"{row.running_sum:.2e}"


def _best(data: InputVectors, request: Request, lines: TextIO | None, quiet: bool) -> None:
    what, _, given = request.best.partition("=")
    if what not in ("bits", "error") or not given:
        raise ConfigError(f"--best {request.best} was given; write --best bits=1, or --best error=0.1")
    (limit,) = numbers(given, float, "--best") or (0.0,)
    bits, error = (limit, None) if what == "bits" else (None, limit)
    choice = best_operator(data.signal, bits_per_entry=bits, error=error, kind=request.kind, draws=request.draws)
    shown = {"compressor": to_json(choice.compressor), "granularity": to_json(choice.granularity)}
    numbers_of = {
        name: getattr(choice, name) for name in ("error", "error_low", "error_high", "unbiased", "contraction")
    }
    write_line(lines, {"input": data.name, **shown, "bits": choice.bits_per_entry, **numbers_of})
    if not quiet:
        say(f"{data.name}: {choice}")


def _print_lines(found: Sequence[Line], made: Sequence[InputVectors], lines: TextIO | None, quiet: bool) -> None:
    for line in found:
        write_line(lines, line.to_json())
    if quiet:
        return
    keys = list(dict.fromkeys((line.name, line.budget) for line in found))
    known = {(line.name, line.budget, line.input): line for line in found}
    columns = [
        TerminalColumn(header="operator", cells=[name for name, _ in keys], is_name=True),
        TerminalColumn(header="budget", cells=["-" if budget is None else f"{budget:g}" for _, budget in keys]),
    ]
    for data in made:
        own = [known.get((*key, data.name)) for key in keys]
        bits = ["-" if line is None else f"{line.bits:.3f}" for line in own]
        errors = ["-" if line is None else f"{line.error:.3g}" for line in own]
        columns.append(TerminalColumn(header=f"{data.name}\nbits", cells=bits))
        columns.append(TerminalColumn(header=f"{data.name}\nerror", cells=errors))
    print_fitted(TerminalTable(columns=columns), console)


def _pairs(gammas: Sequence[float], numel: int, lines: TextIO | None) -> None:
    data = make_input("gaussian", numel)
    heads = ("gamma", "levels s", "k", "bits by\nformula", "bits\nencoded", "as f32\ntop-k")
    rows: list[tuple[str, ...]] = []
    for gamma in gammas:
        for pair in pairs(numel, gamma)[:3]:
            encoded, dense = 8 * pair.num_bytes(data.signal), 8 * exact_num_bytes(data.signal, gamma)
            rows.append((f"{gamma:g}", *map(str, (pair.levels, pair.k, pair.formula_bits, encoded, dense))))
            shown = {"gamma": gamma, "levels": pair.levels, "k": pair.k, "formula_bits": pair.formula_bits}
            write_line(lines, {**shown, "encoded_bits": encoded, "topk_bits": dense})
    if lines is not sys.stdout:
        cells = list(zip(*rows, strict=True)) or [()] * len(heads)
        columns = [
            TerminalColumn(header=head, cells=own, is_name=head == "gamma")
            for head, own in zip(heads, cells, strict=True)
        ]
        print_fitted(TerminalTable(columns=columns), console)

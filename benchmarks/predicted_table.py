"""What ``predicted_measured.py`` found, summed up: how far predictions are off, and what the planner's choices cost."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- made by benchmarks/predicted_measured.py --table -->", "<!-- end of what is made -->"
NUM_WORST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One way to train on one link, predicted and measured.

    Args:
        mbit: of every link in each direction.
        latency: one way, with its unit.
        processes: that train together.
        method: as ``thinwire plan`` calls it.
        use: what a script calls for it.
        predicted_s: seconds of a step.
        low_s: from which on it was expected to be.
        high_s: up to which.
        measured_s: mean over the rounds.
        rounds_s: seconds of a step in each round.
    """

    mbit: int
    latency: str
    processes: int
    method: str
    use: str
    predicted_s: float
    low_s: float
    high_s: float
    measured_s: float
    rounds_s: Sequence[float]

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted_s / self.measured_s - 1

    @property
    def spread(self) -> float:
        """How far the middle half of the rounds lies apart, as a share."""
        if len(self.rounds_s) < 4:
            return (max(self.rounds_s) - min(self.rounds_s)) / self.measured_s
        first, _, third = statistics.quantiles(self.rounds_s, n=4)
        return (third - first) / self.measured_s

    @property
    def link(self) -> tuple[int, str, int]:
        """The link and the number of processes."""
        return self.mbit, self.latency, self.processes

    def to_json(self) -> dict[str, Any]:
        """A field each."""
        return asdict(self)


def read_cells(path: str | Path) -> list[Cell]:
    """The cells of a file; the last one, if something was measured twice."""
    if not Path(path).exists():
        return []
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    names = Cell.__dataclass_fields__
    cells = [
        Cell(**{name: line[name] for name in names}) for line in lines if line["kind"] == "cell"
    ]  # fmt: skip
    return list({(*cell.link, cell.method): cell for cell in cells}.values())


def within(cells: Sequence[Cell], error: float) -> float:
    """The share of the predictions that are off by at most so much."""
    return sum(abs(cell.error) <= error for cell in cells) / len(cells)


def regrets(cells: Sequence[Cell]) -> dict[tuple[int, str, int], tuple[Cell, Cell]]:
    """On each link the way that is predicted to be the fastest, and the one that was."""
    links = dict.fromkeys(cell.link for cell in cells)
    found = {}
    for link in links:
        here = [cell for cell in cells if cell.link == link]
        chosen = min(here, key=lambda cell: cell.predicted_s)
        found[link] = chosen, min(here, key=lambda cell: cell.measured_s)
    return found


def cost(pair: tuple[Cell, Cell]) -> float:
    """How much longer the steps of the chosen way take than those of the best."""
    chosen, best = pair
    return chosen.measured_s / best.measured_s - 1


def summary(cells: Sequence[Cell]) -> str:
    """A few lines."""
    if not cells:
        return "nothing is measured"
    inside = sum(cell.low_s <= cell.measured_s <= cell.high_s for cell in cells) / len(cells)
    lines = [
        f"{len(cells)} cells: {within(cells, 0.1):.1%} within 10 %, {within(cells, 0.2):.1%} within 20 %; "
        f"{inside:.1%} inside the interval; the choice costs at most {max(map(cost, regrets(cells).values())):.1%}",
        *(f"  {_said(cell)}" for cell in _worst(cells)),
        *(
            f"  {mbit} Mbit/s, {latency}, {processes} processes: {pair[0].method} costs {cost(pair):.1%} more than "
            f"{pair[1].method}"
            for (mbit, latency, processes), pair in regrets(cells).items()
            if cost(pair) > 0
        ),
    ]
    return "\n".join(lines)


def tables(cells: Sequence[Cell]) -> str:
    """The page's tables: milliseconds of a step predicted and measured, a row a link, a column a way."""
    methods = list(dict.fromkeys(cell.method for cell in sorted(cells, key=lambda cell: (cell.use, cell.method))))
    lines = []
    for processes in sorted({cell.processes for cell in cells}):
        lines += [
            f"### {processes} processes",
            "",
            f"| link | {' | '.join(f'`{method}`' if ':' in method else method for method in methods)} | choice costs |",
            "|---" * (len(methods) + 2) + "|",
        ]
        for link, pair in sorted(regrets(cells).items(), key=lambda item: (item[0][0], len(item[0][1]), item[0][1])):
            if link[2] != processes:
                continue
            here = {cell.method: cell for cell in cells if cell.link == link}
            shown = [_cell(here[method], pair[0]) if method in here else "-" for method in methods]
            lines.append(f"| {link[0]} Mbit/s, {link[1][:-2]} ms | {' | '.join(shown)} | {100 * cost(pair):.1f} % |")
        lines.append("")
    total = (
        f"{len(cells)} cells. {100 * within(cells, 0.1):.0f} % of the predictions are within 10 % of what was "
        f"measured, {100 * within(cells, 0.2):.0f} % within 20 %. The method chosen takes at most "
        f"{100 * max(map(cost, regrets(cells).values())):.1f} % longer than the fastest one. The largest misses:"
    )
    worst = [f"- {_said(cell)}" for cell in _worst(cells)]
    return "\n".join([*lines, total, "", *worst])


def write_table(page: Path, cells: Sequence[Cell]) -> None:
    """Put the tables between the marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{tables(cells)}\n\n{END}{after}")


def _cell(cell: Cell, chosen: Cell) -> str:
    mark = "**" if cell is chosen else ""
    error = f"{100 * cell.error:+.0f} %".replace("+0 %", "0 %").replace("-0 %", "0 %")
    return f"{mark}{_ms(cell.predicted_s)} / {_ms(cell.measured_s)}{mark} ({error})"


def _worst(cells: Sequence[Cell]) -> list[Cell]:
    return sorted((cell for cell in cells if abs(cell.error) > 0.1), key=lambda cell: -abs(cell.error))[:NUM_WORST]


def _said(cell: Cell) -> str:
    return (
        f"{cell.mbit} Mbit/s, {cell.latency}, {cell.processes} processes, {cell.method}: {_ms(cell.predicted_s)} ms "
        f"predicted, {_ms(cell.measured_s)} measured ({100 * cell.error:+.0f} %; the middle half of the rounds lies "
        f"{100 * cell.spread:.0f} % apart)"
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.1f}"

"""The rows as a table for a terminal: one line a step, the numbers of threads side by side."""

from collections.abc import Sequence

from thinwire.bench.rows import BenchRow
from thinwire.report import TerminalColumn, TerminalTable

_MISSING = "-"
TOPK_STEP = "torch-topk"
_TOPK_DENSITY = 0.01


def make_tables(rows: Sequence[BenchRow]) -> list[TerminalTable]:
    """One table for each length and input, in the order of the rows."""
    pages = dict.fromkeys((row.numel, row.input) for row in rows)
    return [_page([row for row in rows if (row.numel, row.input) == page]) for page in pages]


def _page(rows: Sequence[BenchRow]) -> TerminalTable:
    threads = sorted({row.threads for row in rows})
    memcpy = sorted(row.memcpy_seconds for row in rows)[len(rows) // 2]
    speed = 8 * rows[0].numel / memcpy / 1e9
    heads = (
        "step", "of", *(f"ms\n{count}t" for count in threads), *(f"memcpy\n{count}t" for count in threads),
        "topk", "bits\nentry", "entropy", "bits\nindex", "bound", "extra",
    )  # fmt: skip
    baseline = {(row.density, row.threads): row.seconds for row in rows if row.step == TOPK_STEP}
    lines = []
    # In order of first appearance of the step, all of one name together.
    for step in dict.fromkeys(row.step for row in rows):
        own = [row for row in rows if row.step == step]
        for number, (density, variant) in enumerate(dict.fromkeys((row.density, row.variant) for row in own)):
            line = {row.threads: row for row in own if (row.density, row.variant) == (density, variant)}
            lines.append([step if number == 0 else "", _of(density, variant), *_cells(line, threads, baseline)])
    speeds = f"memcpy {_ms(memcpy)} ms ({speed:.1f} GB/s read and written)"
    return TerminalTable(
        columns=[
            TerminalColumn(header=head, cells=[line[place] for line in lines], is_name=place < 2)
            for place, head in enumerate(heads)
        ],
        title=f"{rows[0].numel:,} entries, {rows[0].input}; {speeds}",
    )


def _cells(
    line: dict[int, BenchRow], threads: Sequence[int], baseline: dict[tuple[float | None, int], float]
) -> list[str]:
    first = line[min(line)]
    topk = baseline.get((first.density, first.threads), baseline.get((_TOPK_DENSITY, first.threads)))
    extra = None if first.extra_bytes is None else first.extra_bytes / (4 * first.numel)
    return [
        *(_ms(line[count].seconds) if count in line else _MISSING for count in threads),
        *(_ratio(line[count].ratio if count in line else None) for count in threads),
        _ratio(None if topk is None else first.seconds / topk),
        _number(first.bits_per_entry, 3),
        _number(first.entropy_bits, 3),
        _number(first.bits_per_index),
        _number(first.index_bound_bits),
        _number(extra),
    ]


def _of(density: float | None, variant: str) -> str:
    share = "" if density is None else f"{100 * density:g} %"
    return " ".join(part for part in (share, variant) if part)


def _ms(seconds: float) -> str:
    milliseconds = 1000 * seconds
    return f"{milliseconds:.3f}" if milliseconds < 10 else f"{milliseconds:.1f}"


def _number(value: float | None, digits: int = 2) -> str:
    return _MISSING if value is None else f"{value:.{digits}f}"


def _ratio(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"

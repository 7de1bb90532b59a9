"""The columns that the terminal's table and the page's table share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thinwire.report.formats import MISSING, TIMES, human_bytes, metric_value, ratio_number, significant
from thinwire.report.intervals import Amount, amount_text
from thinwire.report.rows import ResultRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of numbers.

    Args:
        key: by which a table picks it; no two columns have the same, as headings may.
        header: the heading on the page.
        short_header: the heading in a terminal, with its unit.
        meaning: one sentence for the explanation under the table.
        text: what a cell says.
        short_text: the same in a terminal, where width is dear, if that is something else.
        rank: what to compare, smaller is better; None if this row does not compete.
        group: a heading above several columns; empty for none.
        in_terminal: whether a terminal has it too, where width is dear.
    """

    key: str
    header: str
    short_header: str
    meaning: str
    text: Callable[[ResultRow], str]
    short_text: Callable[[ResultRow], str] | None = None
    rank: Callable[[ResultRow], float | None] = lambda row: None
    group: str = ""
    in_terminal: bool = True

    @property
    def full_header(self) -> str:
        """The heading where there is one line for it: with what it stands under."""
        return " ".join(filter(None, (self.group, self.header)))


def best_methods(column: Column, rows: Sequence[ResultRow]) -> frozenset[str]:
    """The methods with the best value of a column, several if they tie; none if only one competes."""
    ranks = {row.method: rank for row in rows if (rank := column.rank(row)) is not None}
    if len(ranks) < 2:
        return frozenset()
    return frozenset(method for method, rank in ranks.items() if rank == min(ranks.values()))


def target_text(row: ResultRow) -> str:
    """The target as a condition, such as ``accuracy ≥ 0.86``."""
    assert row.target is not None, "only columns to the target ask"
    return f"{row.metric.name} {'≥' if row.metric.higher_is_better else '≤'} {metric_value(row.target)}"


_INTERVAL = "± is half of the 95 % interval over seeds, by Student's t."


def columns(rows: Sequence[ResultRow]) -> tuple[Column, ...]:
    """The columns these rows fill: none "to target" without a target, no ratios without a baseline."""
    if not rows:
        return ()
    with_ratios = any(row.message_ratio is not None for row in rows)
    to_target = _to_target(rows, with_ratios) if any(row.target is not None for row in rows) else ()
    top5 = (_top5(),) if any(row.final_top5 is not None for row in rows) else ()
    return (*_final(rows[0]), *top5, *to_target, _per_step())


def _final(first: ResultRow) -> tuple[Column, ...]:
    metric = first.metric
    sign = -1.0 if metric.higher_is_better else 1.0
    return (
        Column(
            key="setting",
            header="taken",
            short_header="lr",
            meaning="learning rate, optimizer and options of the final runs, taken by the search further down.",
            text=lambda row: MISSING if row.setting is None else f"{row.setting.lr:g}, {row.setting.name}",
            short_text=lambda row: MISSING if row.setting is None else f"{row.setting.lr:g}",
        ),
        Column(
            group="at the last evaluation",
            key="final",
            header=metric.name,
            short_header=f"final\n{metric.name}",
            meaning=f"mean over the runs that did not diverge. {_INTERVAL} "
            + ("Higher is better." if metric.higher_is_better else "Lower is better."),
            text=lambda row: _final_value(row, "{0} of {1} diverged"),
            short_text=lambda row: _final_value(row, "{0}/{1} div."),
            rank=lambda row: None if row.final_value is None or row.num_diverged else sign * row.final_value,
        ),
        Column(
            group="at the last evaluation",
            key="against_dense",
            header="against dense",
            short_header="against\ndense",
            meaning=f"how much {'higher' if metric.higher_is_better else 'more'} it ended than the baseline, seed by "
            f"seed{' (in points of a hundred)' if metric.is_share else ''}. {_INTERVAL}",
            text=_against_dense,
        ),
        Column(
            group="at the last evaluation",
            key="loss",
            header="loss",
            short_header="final\nloss",
            meaning="mean loss over the same runs.",
            text=lambda row: _or_missing(row.final_loss, metric_value),
            rank=lambda row: None if row.num_diverged else row.final_loss,
        ),
    )


def _top5() -> Column:
    return Column(
        group="at the last evaluation",
        key="top5",
        header="top-5",
        short_header="final\ntop-5",
        meaning=f"share of examples whose class is among the five likeliest, over the same runs. {_INTERVAL}",
        text=lambda row: _or_missing(row.final_top5, metric_value) + _within(row.final_top5_within),
        rank=lambda row: None if row.final_top5 is None or row.num_diverged else -row.final_top5,
        in_terminal=False,
    )


def _to_target(rows: Sequence[ResultRow], with_ratios: bool) -> tuple[Column, ...]:
    is_shared = len({row.target for row in rows}) == 1
    group = (
        f"to reach {target_text(rows[0])}" if is_shared else f"to reach the target in {rows[0].metric.name} of its run"
    )
    fewer = "the baseline's bytes to the target divided by this method's: how many times fewer."

    def ratio(of: str, value: Callable[[ResultRow], float | None]) -> Column:
        key, short = f"{of}_ratio", f"{of}\ntimes\nfewer"
        return _reaching(
            group, key, "times fewer", short, fewer,
            lambda row: _amount(value(row)), lambda ratio: f"{ratio_number(ratio)}{TIMES}", sign=-1.0,
        )  # fmt: skip

    steps = Column(
        group=group,
        key="steps",
        header="steps",
        short_header="steps to\ntarget",
        meaning="steps up to the first evaluation at least as good as the target, without interpolation, so "
        "never finer than the interval between evaluations. All columns to the target are means over the "
        "runs that reached it, with the interval over seeds; “1 of 2” says how many did, if not all, and "
        f"{MISSING} that none did.",
        text=lambda row: _steps(row, " ({0} of {1})") + _within(row.steps_to_target_within),
        short_text=lambda row: _steps(row, " {0}/{1}"),
        rank=lambda row: row.steps_to_target if row.reliable else None,
    )
    message = _reaching(
        group,
        "message_bytes",
        "message bytes",
        "message\nbytes",
        "what a worker hands to the exchange until then: its encoded messages, headers included.",
        lambda row: _amount(row.message_bytes_to_target, row.message_bytes_to_target_within),
        human_bytes,
    )
    link = _reaching(
        group,
        "link_bytes",
        "link bytes",
        "link\nbytes",
        "sent plus received by a worker over its own link until then, under the method's exchange.",
        lambda row: _amount(row.link_bytes_to_target, row.link_bytes_to_target_within),
        human_bytes,
    )
    seconds = _reaching(
        group,
        "seconds",
        "seconds",
        "time to\ntarget",
        "time until then: virtual in the simulator, on the network named above; measured for processes.",
        lambda row: _amount(row.seconds_to_target, row.seconds_to_target_within),
        lambda value: f"{significant(value)} s",
    )
    if not with_ratios:
        return (steps, message, link, seconds)
    message_ratio = ratio("message", lambda row: row.message_ratio)
    return (steps, message, message_ratio, link, ratio("link", lambda row: row.link_ratio), seconds)


def _reaching(
    group: str,
    key: str,
    header: str,
    short_header: str,
    meaning: str,
    amount: Callable[[ResultRow], Amount | None],
    show: Callable[[float], str],
    sign: float = 1.0,
) -> Column:
    def mean(row: ResultRow) -> float | None:
        found = amount(row)
        return None if found is None else found.mean

    def rank(row: ResultRow) -> float | None:
        number = mean(row)
        # A method that reaches the target in some runs only does not compete.
        return None if number is None or not row.reliable else sign * number

    return Column(
        group=group, key=key, header=header, short_header=short_header, meaning=meaning,
        text=lambda row: amount_text(amount(row), show), short_text=lambda row: _or_missing(mean(row), show), rank=rank,
    )  # fmt: skip


def _amount(mean: float | None, within: float | None = None) -> Amount | None:
    return None if mean is None else Amount(mean, within)


def _steps(row: ResultRow, partly: str) -> str:
    if row.steps_to_target is None:
        return MISSING
    steps = row.steps_to_target
    text = f"{steps:,.0f}" if steps.is_integer() else f"{steps:,.1f}"
    return text if row.reliable else text + partly.format(row.num_reached, row.num_runs)


def _per_step() -> Column:
    return Column(
        group="on average",
        key="message_bytes_per_step",
        header="message bytes per step",
        short_header="message\n/step",
        meaning="all message bytes of a run divided by its steps.",
        text=lambda row: _or_missing(row.message_bytes_per_step, human_bytes),
        rank=lambda row: None if row.num_diverged else row.message_bytes_per_step,
    )


def _final_value(row: ResultRow, partly: str) -> str:
    if row.num_runs == 0:
        return "no run"
    if row.final_value is None:
        return "diverged"
    text = metric_value(row.final_value)
    text += _within(row.final_value_within)
    return text if not row.num_diverged else f"{text} ({partly.format(row.num_diverged, row.num_runs)})"


def _within(half: float | None) -> str:
    if half is None:
        return ""
    return f" ±{half:.1e}" if 0 < half < 1e-4 else f" ±{half:.2g}"


def _against_dense(row: ResultRow) -> str:
    if row.is_baseline or row.against_dense is None:
        return MISSING
    unit = 100.0 if row.metric.is_share else 1.0
    half = row.against_dense_within
    return f"{unit * row.against_dense:+.2g}" + _within(None if half is None else unit * half)


def _or_missing(value: float | None, show: Callable[[float], str]) -> str:
    return MISSING if value is None else show(value)

"""``docs/method-table.md``, and the README's choice, from the study in ``docs/data/methods.json``.

Run ``python docs/write_method_table.py`` to write both again; ``benchmarks/method_study.py`` makes the study.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thinwire.methods import CATALOG
from thinwire.report.formats import human_bytes, metric_value, ratio_number, significant

HERE = Path(__file__).parent
DATA, PAGE, README = HERE / "data" / "methods.json", HERE / "method-table.md", HERE.parent / "README.md"
LINKS = {"10Mbit,50ms": "10 Mbit/s, 50 ms", "100Mbit,50ms": "100 Mbit/s, 50 ms", "1Gbit,1ms": "1 Gbit/s, 1 ms"}
BEGIN, END = "<!-- the choice, by docs/write_method_table.py -->", "<!-- end of the choice -->"
DENSE = ("sgd", "bf16-sgd", "fp16-sgd")

Row = Mapping[str, Any]


def study() -> dict[str, Any]:
    """What was measured, by task."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def page(tasks: Mapping[str, Any]) -> str:
    """The page as text."""
    return _INTRODUCTION + _missing(tasks) + "\n".join(_section(task) for task in tasks.values())


def with_choice(readme: str, tasks: Mapping[str, Any]) -> str:
    """The README with this choice between its marks."""
    pattern = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{choice(tasks)}{END}", readme)


def choice(tasks: Mapping[str, Any]) -> str:
    """The fastest method of each task on each link that ends as well as dense ones, as a table."""
    heads = [f"{task['kind']}, {task['parameters']:,} parameters" for task in tasks.values()]
    lines = [f"| link | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for link, name in LINKS.items():
        lines.append(f"| {name} | {' | '.join(_choice(task, link) for task in tasks.values())} |")
    return "\n".join(lines) + "\n"


def _choice(task: Mapping[str, Any], link: str) -> str:
    ended = [row for row in task["rows"] if as_good(task, row) == "yes"]
    good = [row for row in ended if link in row["links"] and row["reached"] == row["runs"]]
    dense = min((row for row in good if row["method"] in DENSE), key=lambda row: row["links"][link], default=None)
    if dense is None:
        return "no dense method reached the target"
    best = min(good, key=lambda row: row["links"][link])
    if best["method"] in DENSE:
        return f"`{best['method']}`: nothing pays"
    faster, fewer = dense["links"][link] / best["links"][link], dense["bytes"] / best["bytes"]
    return f"`{best['method']}`: {ratio_number(faster)} times faster, {ratio_number(fewer)} times fewer bytes"


def as_good(task: Mapping[str, Any], row: Row) -> str:
    """Whether a method ends as well as the best dense one.

    *yes*: the mean of its last values is behind by the task's margin at most. *no*: it is further behind, by more than
    both 95 % intervals. *unclear*: further behind, but seeds scatter as much.

    Example:
        >>> dense = {"method": "sgd", "final": 0.9, "within": 0.01, "diverged": 0}
        >>> task = {"rows": [dense], "higher_is_better": True, "margin": 0.01}
        >>> [as_good(task, {"final": final, "within": 0.02, "diverged": 0}) for final in (0.895, 0.88, 0.86)]
        ['yes', 'unclear', 'no']
    """
    sign = 1.0 if task["higher_is_better"] else -1.0
    dense = _best_dense(task)
    if row["final"] is None or row["diverged"]:
        return "no"
    behind = sign * (float(dense["final"]) - float(row["final"]))
    if behind <= task["margin"]:
        return "yes"
    return "unclear" if behind <= (dense["within"] or 0.0) + (row["within"] or 0.0) else "no"


def _best_dense(task: Mapping[str, Any]) -> Row:
    sign = 1.0 if task["higher_is_better"] else -1.0
    rows: Sequence[Row] = [row for row in task["rows"] if row["method"] in DENSE and row["final"] is not None]
    return max(rows, key=lambda row: sign * float(row["final"]))


def _missing(tasks: Mapping[str, Any]) -> str:
    """The rows of the catalog that came after the study of some task."""
    names = [
        row.name
        for row in CATALOG
        if not all(
            any(each["method"].partition(":")[0] == row.name for each in task["rows"]) for task in tasks.values()
        )
    ]
    return f"Not in the study of each task yet: {', '.join(f'`{name}`' for name in names)}.\n\n" if names else ""


def _section(task: Mapping[str, Any]) -> str:
    sign = "at least" if task["higher_is_better"] else "at most"
    words = (
        f"## {task['kind'].capitalize()}: `{task['task']}`\n\n{task['parameters']:,} parameters, {task['workers']} "
        f"workers. Target: {task['metric']} {sign} {task['target']:g}. As good: at most "
        f"{task['margin']:g} behind. `{' '.join(task['options'])}`\n\n"
    )
    heads = ("method", task["metric"], "as good", "bytes", *LINKS.values(), "memory", "demands", "taken")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return words + "\n".join([*lines, *(_line(task, row) for row in sorted(task["rows"], key=_order))]) + "\n"


def _order(row: Row) -> tuple[bool, float, str]:
    seconds = row["links"].get("10Mbit,50ms")
    return seconds is None or row["reached"] < row["runs"], seconds or 0.0, row["method"]


def _line(task: Mapping[str, Any], row: Row) -> str:
    within = "" if row["within"] is None else f" ± {significant(row['within'], 2)}"
    final = "diverged" if row["final"] is None else f"{metric_value(row['final'])}{within}"
    if row["diverged"] and row["final"] is not None:
        final += f", {row['diverged']} of {row['runs']} diverged"
    reached = row["reached"] == row["runs"]
    part = f" ({row['reached']} of {row['runs']})" if row["reached"] and not reached else ""
    sent = "never" if row["bytes"] is None else f"{human_bytes(row['bytes'])}{part}"
    seconds = ["" if link not in row["links"] else f"{significant(row['links'][link])} s" for link in LINKS]
    if task["network"] in LINKS and not row["links"] and row["seconds"] is not None:
        seconds[list(LINKS).index(task["network"])] = f"{significant(row['seconds'])} s"
    cells = (
        f"`{row['method']}`", final, as_good(task, row), sent, *seconds,
        significant(row["memory"], 2), ", ".join(row["demands"]), row["setting"] or "",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


_INTRODUCTION = """# All methods on the same tasks

Every method of the catalog, tuned alike in one study. This page is generated from `docs/data/methods.json`:
`python docs/write_method_table.py` writes it again, `python benchmarks/method_study.py` makes the study again.

- **The last value** is the mean over seeds, with half of its 95 % interval. **As good**: *yes*, where it is at most a
  margin behind the best dense one (`sgd`, `bf16-sgd`, `fp16-sgd`, with whichever optimizer); *no*, where it is further
  behind, by more than the two intervals together; *unclear*, where it is further behind but seeds scatter as much.
- **Bytes** are what a worker hands over until the target is reached, encoded. *never*: no seed reached it; *(2 of 3)*:
  so many did, and the means are of these.
- **Seconds** are simulated, to the target, with 10 ms of computing a step, and without what compressing takes. A method
  with a server of its own has the link that it was run on alone; one without a period (a warm-up, a schedule that
  grows) has none.
- **Memory** is what a worker remembers for the method, in models of f32. It comes on top of model, gradient and
  optimizer.
- **Demands**: what must be there. Methods without *all-reduce* gather messages, so a worker's traffic grows with
  the number of workers.
- **Dense methods** have a line for each set of optimizers that was searched, as have some others. In the README the
  fastest of those that are as good is compared with the fastest dense one that is.
- **Taken**: optimizer and learning rate of the search. Options are those written; another density or period may serve
  better.

The models are small: a message's latency counts more here than it does for a large model, and its bytes less. On your
link and for your model `thinwire plan` predicts what a step takes.

"""


def main() -> None:
    """Write both."""
    tasks = study()
    PAGE.write_text(page(tasks), encoding="utf-8")
    README.write_text(with_choice(README.read_text(encoding="utf-8"), tasks), encoding="utf-8")


if __name__ == "__main__":
    main()

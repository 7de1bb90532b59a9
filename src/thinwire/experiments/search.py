"""The search for every method's optimizer, options and learning rate, all methods alike, on held-out data."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from thinwire.experiments.records import Record
from thinwire.experiments.settings import Setting
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Metric

TUNING_SEED = 1_000_003
"""The search never sees the seeds of the final runs."""
MAX_EXTENSIONS = 3
"""How often the search may go past the end of the learning rates of a grid."""


class SettingSearch:
    """What is tried for each method with a choice; more is, where the best learning rate lies at the end of its grid.

    The learning rates of every optimizer and every choice of options are a grid of their own.

    Args:
        comparison: what is searched.
        metric: by which a run is judged.
        records: of a run that was made.
        decide: the main process's numbers, on every process.
    """

    def __init__(
        self,
        comparison: Comparison,
        metric: Metric,
        records: Callable[[Run], list[Record]],
        decide: Callable[[Sequence[float]], list[float]],
    ) -> None:
        self._comparison = comparison
        self._metric = metric
        self._records = records
        self._decide = decide
        self._first = {method: comparison.settings(method)[0] for method in comparison.methods}
        settings = {method: comparison.settings(method) for method in comparison.methods}
        self._tried = {method: tried for method, tried in settings.items() if len(tried) > 1}
        self._num_rounds = 0
        self.is_needless = not self._tried

    def runs_to_make(self) -> list[Run]:
        """Every run of the search so far, of which some may be made; none if the search is over."""
        if self.is_needless:
            return []
        if self._num_rounds and not self._extend():
            return []
        self._num_rounds += 1
        return [_run(self._comparison, method, each) for method in self._tried for each in self._in_order(method)]

    def chosen(self) -> dict[str, Setting]:
        """The best of each method."""
        best = self._best([(method, self._in_order(method)) for method in self._tried])
        return {**self._first, **dict(zip(self._tried, best, strict=True))}

    def _extend(self) -> bool:
        """Add a learning rate to every grid whose best one is at its end; whether there is one."""
        if self._num_rounds > MAX_EXTENSIONS:
            return False
        grids = [(method, grid) for method, settings in self._tried.items() for grid in _grids(settings)]
        is_extended = False
        for (method, grid), best in zip(grids, self._best(grids), strict=True):
            lr = _beyond([each.lr for each in grid], best.lr)
            if lr is not None:
                self._tried[method].append(replace(best, lr=lr))
                is_extended = True
        return is_extended

    def _best(self, grids: Sequence[tuple[str, Sequence[Setting]]]) -> list[Setting]:
        """Of each: fewest steps to the target on held-out data, if any; then the best final value; then the first."""
        decisions = []
        for method, settings in grids:
            scores = [self._score(self._records(_run(self._comparison, method, setting))) for setting in settings]
            decisions.append(float(scores.index(min(scores))))
        places = map(int, self._decide(decisions))
        return [settings[place] for (_, settings), place in zip(grids, places, strict=True)]

    def _score(self, records: list[Record]) -> tuple[float, float]:
        """Lower is better."""
        sign = -1.0 if self._metric.higher_is_better else 1.0
        if not records or records[-1]["value"] is None:
            return math.inf, math.inf
        target = self._comparison.target
        reached = [
            record["step"] for record in records if target is not None and sign * record["value"] <= sign * target
        ]
        return (reached[0] if reached else math.inf), sign * records[-1]["value"]

    def _in_order(self, method: str) -> list[Setting]:
        return [setting for grid in _grids(self._tried[method]) for setting in grid]


def _run(comparison: Comparison, method: str, setting: Setting) -> Run:
    return Run(method, setting, TUNING_SEED, "tune", comparison.tune_steps)


def _grids(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Those that differ in the learning rate only, together, ascending."""
    grids: dict[Setting, list[Setting]] = {}
    for setting in settings:
        grids.setdefault(replace(setting, lr=0.0), []).append(setting)
    return [sorted(grid, key=lambda setting: setting.lr) for grid in grids.values()]


def _beyond(lrs: Sequence[float], chosen_lr: float) -> float | None:
    """The next rate past the end of an ascending grid, if the best one lies at its end and is not the only one."""
    if len(lrs) == 1:
        return None
    if chosen_lr == lrs[-1]:
        return float(f"{lrs[-1] * lrs[-1] / lrs[-2]:.3g}")
    if chosen_lr == lrs[0]:
        return float(f"{lrs[0] * lrs[0] / lrs[1]:.3g}")
    return None

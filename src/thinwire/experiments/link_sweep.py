"""What a step takes on other links than a comparison's own: the clock of a few simulated steps on each of them."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from thinwire.errors import NumericsError
from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.session import Session
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import Task
from thinwire.methods import Every, ModelAveraging, parse_method
from thinwire.network import Network
from thinwire.worker import needs_server

LINKS = ("10Mbit,1ms", "10Mbit,50ms", "100Mbit,1ms", "100Mbit,50ms", "1Gbit,1ms", "1Gbit,50ms")
"""Slow and fast, near and far."""


def sweep_links(comparison: Comparison, task: Task, runs: Sequence[Run], before: Mapping[str, Any]) -> list[Any]:
    """For each of :data:`LINKS` the virtual seconds of a step of every method.

    Links change no bit of what a synchronous method trains, only its clock, so that steps to a target times seconds of
    a step are the seconds to it. What has no usual step is left out: methods with a server, a warm-up or a schedule
    that is not periodic, and those whose period is as long as the run.

    Args:
        comparison: whose engine is ``simulate``.
        task: what it trains.
        runs: one of each method.
        before: what an earlier call described; of a method with the same setting it is taken from there.

    Returns:
        Plain values: ``network``, and ``seconds_per_step`` by method.
    """
    known = {each["network"]: each["seconds_per_step"] for each in before.get("links", [])}
    swept = []
    for text in LINKS:
        seconds = {}
        for run in runs:
            period = _period(run)
            if not 0 < 2 * period <= run.steps:
                continue
            if run.method in known.get(text, {}) and _is_as_before(run, before):
                seconds[run.method] = known[text][run.method]
                continue
            step_s = _step_s(replace(comparison, network=Network.parse(text), average="none"), task, run, period)
            if step_s is not None:
                seconds[run.method] = step_s
        swept.append({"network": text, "seconds_per_step": seconds})
    return swept


def _is_as_before(run: Run, before: Mapping[str, Any]) -> bool:
    chosen = before.get("chosen", {}).get(run.method, {})
    charged = tuple(before.get("codec_s", {}).get(run.method, (0.0, 0.0)))
    same = (chosen.get("optimizer"), chosen.get("options"), chosen.get("lr"))
    return same == (run.setting.optimizer, run.setting.options, run.setting.lr) and charged == run.codec_s


def _period(run: Run) -> int:
    """After how many steps what a method does begins again; 0 if there is no such number."""
    method = parse_method(run.variant)
    if method.warm_up is not None or needs_server(method):
        return 0
    if not isinstance(method, ModelAveraging):
        return 1
    return method.schedule.steps * method.fragments if isinstance(method.schedule, Every) else 0


def _step_s(comparison: Comparison, task: Task, run: Run, period: int) -> float | None:
    """Of the second period: in the first one there may be less to wait for. None if it does not get there."""
    engine = SimulatedEngine(comparison.workers, comparison.network)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(comparison, run, task, engine, Path(folder))
        try:
            session.train(0, period)
            begun_s = engine.seconds()
            session.train(period, 2 * period)
        except NumericsError:
            return None
        return (engine.seconds() - begun_s) / period

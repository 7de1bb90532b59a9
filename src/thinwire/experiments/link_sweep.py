"""What a step takes on other links than a comparison's own: requests of two periods, asked again on each of them."""

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
from thinwire.simulator import Simulation
from thinwire.simulator.tracing import replayed
from thinwire.steps import Op
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
    found: dict[str, dict[str, float]] = {text: {} for text in LINKS}
    for run in runs:
        period = _period(run)
        if not 0 < 2 * period <= run.steps:
            continue
        if _is_as_before(run, before) and all(run.method in known.get(text, {}) for text in LINKS):
            found = {text: {**own, run.method: known[text][run.method]} for text, own in found.items()}
        elif (periods := _traced_periods(replace(comparison, average="none"), task, run, period)) is not None:
            for text, own in found.items():
                own[run.method] = _step_s(periods, comparison.workers, Network.parse(text), period)
    return [{"network": text, "seconds_per_step": own} for text, own in found.items()]


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


def _traced_periods(comparison: Comparison, task: Task, run: Run, period: int) -> list[list[list[Op]]] | None:
    """What every worker asks for in the first and in the second period; None if it does not get there."""
    traces: list[list[Op]] = [[] for _ in range(comparison.workers)]
    engine = SimulatedEngine(comparison.workers, comparison.network, traces=traces)
    periods = []
    with tempfile.TemporaryDirectory() as folder:
        session = Session(comparison, run, task, engine, Path(folder))
        for number in range(2):
            try:
                session.train(number * period, (number + 1) * period)
            except NumericsError:
                return None
            periods.append([list(trace) for trace in traces])
            for trace in traces:
                trace.clear()
    return periods


def _step_s(periods: Sequence[Sequence[Sequence[Op]]], num_workers: int, network: Network, period: int) -> float:
    """Of the second period: in the first one there may be less to wait for."""
    simulation = Simulation(num_workers, network)
    ends_s = []
    for traces in periods:
        simulation.run([replayed(trace) for trace in traces])
        ends_s.append(max(simulation.clocks))
    return (ends_s[1] - ends_s[0]) / period

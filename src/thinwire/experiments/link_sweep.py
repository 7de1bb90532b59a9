"""What a step takes on other links than a comparison's own: requests of two periods, asked again on each of them."""

import math
import tempfile
from collections.abc import Collection, Sequence
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
MAX_STEPS = 100
"""Of a replay: a step that is longer to find than this is not worth its seconds."""


def sweep_links(comparison: Comparison, task: Task, runs: Sequence[Run], known: Sequence[Any]) -> list[Any]:
    """For each of :data:`LINKS` the virtual seconds of a step of every method.

    Links change no bit of what a synchronous method trains, only its clock, so that steps to a target times seconds of
    a step are the seconds to it. What has no usual step is left out: methods with a server, a warm-up or a schedule
    that is not periodic, and those two periods of which are more than the run or :data:`MAX_STEPS`.

    Args:
        comparison: whose engine is ``simulate``.
        task: what it trains.
        runs: one of each method, which did not diverge in its first steps.
        known: what an earlier call returned, of methods whose runs are as they were, see :func:`links_of`.

    Returns:
        Plain values: ``network``, and ``seconds_per_step`` by method.
    """
    earlier = {each["network"]: each["seconds_per_step"] for each in known}
    found: dict[str, dict[str, float]] = {text: {} for text in LINKS}
    for run in runs:
        period = _period(run)
        if not 0 < 2 * period <= min(run.steps, MAX_STEPS):
            continue
        if all(run.method in earlier.get(text, {}) for text in LINKS):
            found = {text: {**own, run.method: earlier[text][run.method]} for text, own in found.items()}
        elif (periods := _traced_periods(replace(comparison, average="none"), task, run, period)) is not None:
            for text, own in found.items():
                own[run.method] = _step_s(periods, comparison.workers, Network.parse(text), period)
    return [{"network": text, "seconds_per_step": own} for text, own in found.items()]


def links_of(links: Sequence[Any], methods: Collection[str]) -> list[Any]:
    """What :func:`sweep_links` returned, of these methods alone.

    Example:
        >>> links_of([{"network": "1Gbit,1ms", "seconds_per_step": {"sgd": 0.25, "topk": 0.125}}], ["sgd"])
        [{'network': '1Gbit,1ms', 'seconds_per_step': {'sgd': 0.25}}]
    """
    return [
        {**each, "seconds_per_step": {name: took for name, took in each["seconds_per_step"].items() if name in methods}}
        for each in links
    ]


def sweep_note(runs: Sequence[Run]) -> str:
    """Which runs' links are not swept because of :data:`MAX_STEPS`, in words; empty if there is no such run."""
    long = [run.method for run in runs if MAX_STEPS < 2 * _period(run) <= run.steps]
    if not long:
        return ""
    return (
        f"Seconds on other links are replayed from two periods of a method, of at most {MAX_STEPS} steps; there are "
        f"none of {', '.join(long)}."
    )


def _period(run: Run) -> int:
    """After how many steps what a method does begins again; 0 if there is no such number."""
    method = parse_method(run.variant)
    if method.warm_up is not None or needs_server(method):
        return 0
    if not isinstance(method, ModelAveraging):
        return 1
    if not isinstance(method.schedule, Every):
        return 0
    return math.lcm(method.schedule.steps * method.fragments, *(each.every for each in method.states))


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

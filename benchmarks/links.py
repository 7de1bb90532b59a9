"""What an exchange takes: thinwire's transport beside gloo, and the simulator's network beside a real one.

Messages are exchanged between processes on the loopback interface, and over links with a rate and a latency (see
``delayed_links.py``), each way over connections of its own. All processes begin a round at the same moment; it takes as
long as the slowest. What is printed is the median, and in brackets its ratio to latency plus bytes over bandwidth.
Connections are idle between rounds: 50 ms, as in a training step, and in a table of its own for so long that Linux has
forgotten how fast they were. Linux, root and iproute2 are needed.

    python benchmarks/links.py
    python benchmarks/links.py --model        # predicted by thinwire.Simulation, and measured
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from delayed_links import Links, bits_per_second, namespaces
from link_crew import (
    GATHER,
    GATHER_AT_MOST,
    GLOO_AT_ONCE,
    GLOO_LENGTHS_FIRST,
    GLOO_SUM,
    LETTERS,
    SUM,
    WARM_UPS,
    Case,
    Crew,
    crew,
    program,
    serve,
)

from thinwire.network import Network
from thinwire.simulator import Simulation

GATHERS = (GLOO_LENGTHS_FIRST, GLOO_AT_ONCE, GATHER, GATHER_AT_MOST)
SUMS = (GLOO_SUM, SUM)
BANDWIDTH, LATENCIES_S = "100mbit", (0.02, 0.1)
LINK_NUM_BYTES = (2_000, 50_000, 500_000)
LOOPBACK_NUM_BYTES = (2_000, 50_000, 1_000_000, 100_000_000)
SUM_NUM_BYTES = (2_000, 50_000, 5_000_000, 100_000_000)
SHORT_IDLE_S = 1e-3
LONG_IDLE_S = 1.5
MODEL_BANDWIDTHS, MODEL_LATENCIES_S = ("1gbit", "100mbit", "10mbit"), (0.0, 0.02, 0.1)
MODEL_NUM_BYTES = (2_000, 50_000, 5_000_000)
MODEL_ROUNDS = 5
LONGEST_S = 9.0
"""A case of the model that is predicted to take longer has fewer rounds, or none."""


def size_of(num_bytes: int) -> str:
    return f"{num_bytes // 1_000_000} MB" if num_bytes >= 1_000_000 else f"{num_bytes // 1000} kB"


def print_row(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def print_head(title: str, columns: Sequence[str]) -> None:
    print(f"\n{title}\n", flush=True)
    print_row(columns)
    print_row(["---"] * len(columns))


class Table:
    """Rows of cases, printed as they are measured and kept for the file."""

    def __init__(self, title: str, ways: Sequence[str]) -> None:
        self.title, self.ways = title, ways
        self.results: list[dict[str, Any]] = []
        print_head(f"{title}; milliseconds", ["link", "processes", "bytes", *ways])

    def add(
        self, link: str, processes: int, case: Case, seconds: Sequence[float], ideal_s: float | None = None
    ) -> None:
        cells = [f"{1e3 * each:.2f}" + ("" if ideal_s is None else f" ({each / ideal_s:.2f})") for each in seconds]
        print_row([link, str(processes), size_of(case.num_bytes), *cells])
        for way, each in zip(self.ways, seconds, strict=True):
            self.results.append(
                {"table": self.title, "link": link, "processes": processes, "bytes": case.num_bytes, "way": way,
                 "seconds": each, "ideal_s": ideal_s, "idle_s": case.idle_s}
            )  # fmt: skip


def one_after_another(on: Crew, case: Case) -> list[float]:
    """Every way by itself."""
    return [seconds for way in case.ways for seconds in on.time(dataclasses.replace(case, ways=(way,)))]


def measure_links(args: argparse.Namespace) -> list[Table]:
    """Gathers of two processes over links, with short and with long pauses."""
    tables = []
    with namespaces(2, BANDWIDTH, 0.0) as links, crew(__file__, links.names) as on:
        for is_long in (False, True):
            pause_s = LONG_IDLE_S if is_long else args.idle_s
            table = Table(f"Links of {BANDWIDTH}, {pause_s:g} s idle before each exchange", GATHERS)
            tables.append(table)
            for latency_s, num_bytes in itertools.product(LATENCIES_S, LINK_NUM_BYTES):
                links.set(BANDWIDTH, latency_s)
                if is_long:
                    # The ways take turns, so that each is idle while the others are timed.
                    case = Case(GATHERS, num_bytes, args.long_rounds, 2, pause_s / len(GATHERS))
                    seconds = on.time(case)
                else:
                    case = Case(GATHERS, num_bytes, args.rounds, idle_s=pause_s)
                    seconds = one_after_another(on, case)
                ideal_s = latency_s + 8 * num_bytes / bits_per_second(BANDWIDTH)
                table.add(f"{1e3 * latency_s:g} ms", on.size, case, seconds, ideal_s)
    return tables


def measure_loopback(args: argparse.Namespace) -> list[Table]:
    """Gathers and sums without a link between: while cores and caches are warm, and after a pause."""
    tables = []
    for pause_s, rounds in ((SHORT_IDLE_S, 10 * args.rounds), (args.idle_s, args.rounds)):
        gathers = Table(f"Loopback, {pause_s:g} s idle before each exchange", GATHERS)
        for processes, sizes in ((2, LOOPBACK_NUM_BYTES), (4, LOOPBACK_NUM_BYTES[:1])):
            with crew(__file__, [None] * processes) as on:
                for num_bytes in sizes:
                    case = Case(GATHERS, num_bytes, rounds_of(num_bytes, rounds), idle_s=pause_s)
                    gathers.add("loopback", processes, case, one_after_another(on, case))
        sums = Table(f"All-reduce of f32 on the loopback, {pause_s:g} s idle before each", SUMS)
        with crew(__file__, [None] * 2) as on:
            for num_bytes in SUM_NUM_BYTES:
                case = Case(SUMS, num_bytes, rounds_of(num_bytes, rounds), idle_s=pause_s)
                sums.add("loopback", on.size, case, one_after_another(on, case))
        tables += [gathers, sums]
    return tables


def rounds_of(num_bytes: int, rounds: int) -> int:
    return 7 if num_bytes > 10_000_000 else rounds


def predicted_s(way: str, num_bytes: int, processes: int, network: Network) -> float:
    """What the simulator says of an exchange in which all begin together."""
    simulation = Simulation(processes, network)
    message, vector = torch.zeros(num_bytes, dtype=torch.uint8), torch.zeros(num_bytes // 4)
    simulation.run([program(way, message, vector, rank, processes) for rank in range(processes)])
    return max(simulation.clocks)


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """A case on a network, and what the simulator says of it."""

    bandwidth: str
    latency_s: float
    processes: int
    case: Case
    seconds: float

    @property
    def takes_s(self) -> float:
        """What it may take to measure it, with connecting."""
        exchanges = self.case.rounds + self.case.warm_ups
        return exchanges * (1.3 * self.seconds + self.case.idle_s) + 20 * self.latency_s

    def cells(self) -> list[str]:
        mbits = bits_per_second(self.bandwidth) / 1e6
        (way,) = self.case.ways
        return [f"{mbits:g}", f"{1e3 * self.latency_s:g}", str(self.processes), way, size_of(self.case.num_bytes)]


def predict() -> list[Prediction]:
    """The short ones first, so that no budget ends among them; what has no rounds is too long."""
    found = []
    for bandwidth, latency_s in itertools.product(MODEL_BANDWIDTHS, MODEL_LATENCIES_S):
        network = Network(bandwidth_Bps=bits_per_second(bandwidth) / 8, latency_s=latency_s)
        for num_bytes, processes, way in itertools.product(MODEL_NUM_BYTES, (2, 4), (GATHER_AT_MOST, LETTERS, SUM)):
            seconds = predicted_s(way, num_bytes, processes, network)
            warm_ups = WARM_UPS if (MODEL_ROUNDS + WARM_UPS) * seconds < LONGEST_S else 1
            fewest = 1 if 2 * seconds < LONGEST_S else 0
            rounds = max(fewest, min(MODEL_ROUNDS, int(LONGEST_S / seconds) - warm_ups))
            found.append(
                Prediction(bandwidth, latency_s, processes, Case((way,), num_bytes, rounds, warm_ups), seconds)
            )
    return sorted(found, key=lambda each: (max(each.takes_s, 3.0), each.bandwidth, each.latency_s))


def measure_model(budget_s: float) -> list[dict[str, Any]]:
    """Predicted beside measured, for networks of every kind; what would take too long is left out."""
    begin_s = time.perf_counter()
    predictions, found = predict(), dict[Prediction, float]()
    with contextlib.ExitStack() as stack:
        links = stack.enter_context(namespaces(4, MODEL_BANDWIDTHS[0], 0.0))
        crews = {size: stack.enter_context(crew(__file__, links.names[:size])) for size in (2, 4)}
        set_link = only_changes(links)
        for each in predictions:
            if not each.case.rounds or time.perf_counter() - begin_s + each.takes_s > budget_s:
                continue
            set_link(each.bandwidth, each.latency_s)
            (found[each],) = crews[each.processes].time(each.case)
            print(*each.cells(), f"{1e3 * found[each]:.2f} ms", sep=", ", file=sys.stderr, flush=True)
    print_model(predictions, found)
    return [{**dataclasses.asdict(each), "measured_s": measured_s} for each, measured_s in found.items()]


def print_model(predictions: Sequence[Prediction], found: dict[Prediction, float]) -> None:
    """A table in the order of the networks, and what is not in it."""
    columns = ["Mbit/s", "latency ms", "processes", "exchange", "bytes"]
    print_head("The simulator's network beside a real one", [*columns, "predicted ms", "measured ms", "ratio"])
    in_order = sorted(predictions, key=lambda each: (bits_per_second(each.bandwidth), each.latency_s, each.processes))
    for each in in_order:
        if each in found:
            ratio = found[each] / each.seconds
            print_row([*each.cells(), f"{1e3 * each.seconds:.2f}", f"{1e3 * found[each]:.2f}", f"{ratio:.2f}"])
    skipped = [", ".join(each.cells()) for each in in_order if each not in found]
    print(f"\nLeft out, as they would take too long ({', '.join(columns)}):", *skipped or ["none"], sep="\n- ")


def only_changes(links: Links) -> Callable[[str, float], None]:
    """``links.set``, unless they are so already."""
    now: list[tuple[str, float]] = []

    def set_link(bandwidth: str, latency_s: float) -> None:
        if now != [(bandwidth, latency_s)]:
            links.set(bandwidth, latency_s)
            now[:] = [(bandwidth, latency_s)]

    return set_link


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="store_true", help="the simulator's network beside a real one")
    parser.add_argument("--rounds", type=int, default=15, help="that are timed of each exchange")
    parser.add_argument("--long-rounds", type=int, default=7, help="of the table with long pauses")
    parser.add_argument("--idle-s", type=float, default=0.05, help="seconds between two exchanges")
    parser.add_argument("--budget-s", type=float, default=470.0, help="what --model may take")
    parser.add_argument("--out", help="a file for the results, a line each")
    parser.add_argument("--processes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank is not None:
        serve(args.rank, args.processes, args.store)
        return
    if args.model:
        results = measure_model(args.budget_s)
    else:
        results = [each for table in [*measure_loopback(args), *measure_links(args)] for each in table.results]
    if args.out:
        Path(args.out).write_text("".join(json.dumps(result) + "\n" for result in results))


if __name__ == "__main__":
    main()

"""``thinwire probe``."""

import contextlib
import functools
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

import torch
import torch.distributed as dist

from thinwire.bench.inputs import heavy
from thinwire.bench.shapes import gpt2_sizes, read_numel, resnet50_sizes
from thinwire.cli.application import Refused, console, open_lines, say, write_line
from thinwire.cli.limits import check_limit, read_device
from thinwire.distributed import Transport
from thinwire.distributed.comm_hook import can_overlap
from thinwire.distributed.link_speed import measure_link
from thinwire.distributed.probe import Cost, Prober
from thinwire.errors import ConfigError
from thinwire.experiments.launch import is_lead, join
from thinwire.layout import Layout
from thinwire.machines import Machines
from thinwire.methods import parse_method
from thinwire.network import Network
from thinwire.planner import family
from thinwire.planner.family import Kind
from thinwire.report import TerminalColumn, TerminalTable, print_fitted
from thinwire.worker.footprint import remembered_num_bytes

DENSE = {family.DENSE: torch.float32, family.DENSE_BF16: torch.bfloat16}
"""What DDP does without a hook, and with its bf16_compress_hook."""
LEAST_SAVING = 0.05
"""What is not shorter by so much is not told from noise."""
_LEGEND = (
    "dense: DDP without a hook; dense, bf16: with its bf16_compress_hook (on CPUs inside a function of yours: DDP "
    "refuses it there by its name). sent, received: a step's, on the busiest link. exchange: compress, send and "
    "decode, over all local steps, median of the slowest process. step: compute, then exchange; overlapped: as DDP's "
    "hook, the longer of both. kept: what a process remembers of it between steps, beside parameters, gradients "
    "and DDP's buckets. How many steps training takes with a method is another question: thinwire compare."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRow:
    """What a step takes with a method, or with an exchange of DDP's own.

    Args:
        method: as it was given.
        numel: entries of the gradient.
        processes: how many exchange it.
        network: the link between them.
        compute_s: seconds of forward, backward and optimizer.
        cost: of communication, a step.
        overlaps: whether DDP's hook can exchange while backward goes on.
        kept_num_bytes: what this process remembers for the method between steps.
    """

    method: str
    numel: int
    processes: int
    network: Network
    compute_s: float
    cost: Cost
    overlaps: bool
    kept_num_bytes: int

    @property
    def is_dense(self) -> bool:
        """Whether it is an exchange of DDP's own."""
        return self.method in DENSE

    @property
    def use(self) -> str:
        """What a script calls for it."""
        own = {family.DENSE: Kind.DENSE, family.DENSE_BF16: Kind.DENSE_BF16}
        return own.get(self.method, Kind.HOOKED if self.overlaps else Kind.SYNCHRONIZED).value

    @property
    def step_s(self) -> float:
        """Seconds of a step that computes, then exchanges."""
        return self.compute_s + self.cost.seconds

    @property
    def overlapped_step_s(self) -> float | None:
        """Seconds of a step that does both at the same time, if it can."""
        return max(self.compute_s, self.cost.seconds) if self.overlaps else None

    @property
    def best_step_s(self) -> float:
        """The shorter of both."""
        return self.step_s if self.overlapped_step_s is None else self.overlapped_step_s

    def to_json(self) -> dict[str, Any]:
        """Numbers and names, a field each."""
        return {
            "method": self.method,
            "numel": self.numel,
            "processes": self.processes,
            "bandwidth_Bps": self.network.bandwidth_Bps,
            "latency_s": self.network.latency_s,
            "compute_s": self.compute_s,
            "bytes_sent": self.cost.bytes_sent,
            "bytes_received": self.cost.bytes_received,
            "exchange_s": self.cost.seconds,
            "is_predicted": self.cost.is_predicted,
            "measured_numel": self.cost.measured_numel,
            "rounds": self.cost.rounds,
            "step_s": self.step_s,
            "overlapped_step_s": self.overlapped_step_s,
            "kept_num_bytes": self.kept_num_bytes,
        }


def probe_link(
    methods: Sequence[str], numel: str, like: str | None, compute: str, limit_s: float, device: str, json_file: str
) -> None:
    """Measure the link and the methods in all processes that torchrun started, and say in the first which to use.

    Args:
        methods: method strings.
        numel: entries of the gradient; empty for those of ``like``.
        like: ``resnet50``, ``gpt2``, or None for the first.
        compute: time of a step without communication.
        limit_s: for each method.
        device: where gradients lie.
        json_file: where lines go.

    Raises:
        ConfigError: what cannot be read, or processes that torchrun did not start.
        Refused: the same, in all processes but the first.
    """
    with told_once():
        refuse_alone("probe")
        entries = read_length(numel, like)
        compute_s = read_compute(compute)
        for method in methods:
            parse_method(method)
        check_limit(limit_s)
        place = read_device(device)
        with open_lines(json_file if is_lead() else "") as lines:
            join(functools.partial(_probe, methods, entries, compute_s, limit_s, place, lines))


@contextlib.contextmanager
def told_once() -> Generator[None]:
    """Only the first of torchrun's processes tells of what cannot be.

    Raises:
        Refused: in all others, in place of a ConfigError.
    """
    try:
        yield
    except ConfigError:
        if is_lead():
            raise
        raise Refused from None  # the first process says the same


def refuse_alone(command: str) -> None:
    """Refuse a process that torchrun did not start."""
    if not dist.is_torchelastic_launched():
        raise ConfigError(
            "a link needs processes at both ends; start the command in each, such as with: "
            f"torchrun --nproc-per-node 2 -m thinwire {command} ..."
        )


def read_length(numel: str, like: str | None) -> int:
    """Entries of the gradient: as given, or those of a well-known model."""
    if numel and like:
        raise ConfigError(f"--numel {numel} and --like {like} were given; give one of them")
    return read_numel(numel) if numel else sum(gpt2_sizes() if like == "gpt2" else resnet50_sizes())


def read_compute(compute: str) -> float:
    """Seconds of a step."""
    compute_s = Machines.parse(compute).compute_s
    if Machines.parse(compute) != Machines(compute_s):
        raise ConfigError(f"--compute {compute} was given; it is one time, such as 50ms")
    return compute_s


def _probe(
    methods: Sequence[str], numel: int, compute_s: float, limit_s: float, place: torch.device, lines: TextIO | None,
    transport: Transport,
) -> None:  # fmt: skip
    is_main, network = transport.rank == 0, measure_link(transport, device=place)
    data = heavy(numel, transport.rank)
    sizes = data.tensors.offsets().diff().tolist()
    prober = Prober(transport, network, [each.to(place) for each in data.vectors], sizes, limit_s)
    layout = Layout(tuple(map(str, range(len(sizes)))), tuple(torch.Size([size]) for size in sizes))
    rows: list[ProbeRow] = []
    for number, name in enumerate(names := list(dict.fromkeys((*DENSE, *methods))), start=1):
        if is_main:
            print(f"measuring {number} of {len(names)}: {name}", file=sys.stderr, flush=True)
        method = None if name in DENSE else parse_method(name)
        cost = prober.dense(DENSE[name]) if method is None else prober.step(method)
        kept = 0 if method is None else remembered_num_bytes(method, layout, transport.rank, transport.size)
        row = ProbeRow(
            method=name, numel=data.numel, processes=transport.size, network=network, compute_s=compute_s, cost=cost,
            overlaps=method is None or can_overlap(method), kept_num_bytes=kept,
        )  # fmt: skip
        rows.append(row)
        write_line(lines, row.to_json())
    if is_main and not (lines is not None and lines.name == "<stdout>"):
        print_fitted(make_table(rows), console)
        console.print(_LEGEND, markup=False, highlight=False)
        say(verdict(rows))


def make_table(rows: Sequence[ProbeRow]) -> TerminalTable:
    """A line for each method."""
    first = rows[0]
    columns = (
        ("sent", [shown_size(row.cost.bytes_sent) for row in rows]),
        ("received", [shown_size(row.cost.bytes_received) for row in rows]),
        ("exchange", [shown_time(row.cost.seconds) for row in rows]),
        ("step", [shown_time(row.step_s) for row in rows]),
        ("overlapped", ["-" if row.overlapped_step_s is None else shown_time(row.overlapped_step_s) for row in rows]),
        ("kept", [shown_size(row.kept_num_bytes) if row.kept_num_bytes else "-" for row in rows]),
        ("", ["predicted" if row.cost.is_predicted else "" for row in rows]),
    )
    return TerminalTable(
        columns=[
            TerminalColumn(header="method", cells=[row.method for row in rows], is_name=True),
            *(TerminalColumn(header=head, cells=cells) for head, cells in columns if head or any(cells)),
        ],
        title=link_title(first.numel, first.processes, first.network, first.compute_s),
    )


def link_title(numel: int, processes: int, network: Network, compute_s: float) -> str:
    """What a table of ways to train is about."""
    return (
        f"{numel:,} entries, {processes} processes; {8e-6 * network.bandwidth_Bps:.4g} Mbit/s, "
        f"{shown_time(network.latency_s)}; {shown_time(compute_s)} of compute"
    )


class TimedRow(Protocol):
    """What a verdict is made of."""

    @property
    def method(self) -> str:
        """The method string, or what DDP does."""
        ...

    @property
    def best_step_s(self) -> float:
        """Seconds of a step."""
        ...

    @property
    def is_dense(self) -> bool:
        """Whether it sends every number."""
        ...

    @property
    def use(self) -> str:
        """What a script calls for it."""
        ...


def verdict(rows: Sequence[TimedRow]) -> str:
    """Which to use, and by how much.

    Args:
        rows: of dense exchanges, of which the faster one counts, and of at least one method.
    """
    dense = min((row for row in rows if row.is_dense), key=lambda row: row.best_step_s)
    best = min((row for row in rows if not row.is_dense), key=lambda row: row.best_step_s)
    ours, theirs = best.best_step_s, dense.best_step_s
    if ours < (1 - LEAST_SAVING) * theirs:
        return (
            f"use {best.method}, with {best.use}: {shown_time(ours)} a step where {dense.method} takes "
            f"{shown_time(theirs)}, {theirs / ours:.3g} times as long"
        )
    if ours <= theirs:
        return (
            f"{dense.method} is as fast here: {shown_time(theirs)} a step, and {shown_time(ours)} with "
            f"{best.method}; train with {dense.use}"
        )
    return (
        f"{dense.method} is faster here: {shown_time(theirs)} a step, and {shown_time(ours)} with "
        f"{best.method}, {ours / theirs:.3g} times as long; train with {dense.use}"
    )


def shown_time(seconds: float) -> str:
    """Three digits and a unit."""
    return f"{seconds:.0f} s" if seconds >= 100 else f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def shown_size(num_bytes: float) -> str:
    """Three digits and a unit."""
    return f"{num_bytes / 1e6:.3g} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.3g} kB"

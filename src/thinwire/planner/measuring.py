"""All that a plan measures, in the order in which one thing needs another."""

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from thinwire.distributed import Transport
from thinwire.distributed.comm_hook import on_gradients
from thinwire.distributed.link_speed import measure_link
from thinwire.errors import ConfigError
from thinwire.experiments.executors import default_jobs
from thinwire.layout import Layout
from thinwire.methods import ExactSums, GradientAveraging, Method, apart, exchanges_per_step, parse_method
from thinwire.network import Network
from thinwire.planner.compute import (
    ONE_BUCKET_MB,
    MeasuredCompute,
    PlainSteps,
    group_of_one,
    measure_compute,
    measure_plain,
    measure_power_sgd,
)
from thinwire.planner.family import Candidate, Kind
from thinwire.planner.link import LONGEST_IDLE_S, MeasuredLink, Need, measure_curves
from thinwire.planner.local import MeasuredExchange, measure_casts, measure_hooked, measure_synchronized
from thinwire.planner.training_step import TrainingStep
from thinwire.step_time import Exchange, Way
from thinwire.worker.footprint import remembered_num_bytes


@dataclass(frozen=True, slots=True)
class MeasuredSums:
    """Exact means of whole vectors that a method takes now and then.

    Args:
        sums: how often.
        exchanges: one for each bucket, or one in all.
    """

    sums: ExactSums
    exchanges: tuple[MeasuredExchange, ...]

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "MeasuredSums":
        """The one whose fields ``dataclasses.asdict`` gave."""
        return MeasuredSums(ExactSums(**data["sums"]), tuple(map(MeasuredExchange.from_json, data["exchanges"])))


NO_SUMS = MeasuredSums(ExactSums(), ())


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was found of the parts of a step; none of it is a method's exchange on the link.

    Args:
        numel: entries of the gradient.
        processes: how many there are.
        network: latency and bandwidth, as torch's all-reduce shows them.
        compute: steps in DDP.
        one_bucket: steps in DDP with all gradients in one bucket.
        plain: steps without DDP.
        exchanges: of each candidate by its method: one for each bucket, or one in all.
        periods: steps from one exchange to the next, by method.
        link: seconds of plain messages.
        hidden: the share of compression that passes beside backward.
        kept: bytes that a process keeps for an exchange, by method: DDP's buckets, and what the method remembers.
        sums: of methods that sum whole vectors beside their exchanges or in their place, by method.
    """

    numel: int
    processes: int
    network: Network
    compute: MeasuredCompute
    one_bucket: MeasuredCompute
    plain: PlainSteps
    exchanges: Mapping[str, Sequence[MeasuredExchange]]
    periods: Mapping[str, float]
    link: MeasuredLink
    hidden: float
    kept: Mapping[str, int]
    sums: Mapping[str, MeasuredSums]

    def to_json(self) -> dict[str, Any]:
        """Plain values, of which :meth:`from_json` makes the same measurements."""
        return {**asdict(replace(self, link=MeasuredLink({}))), "link": self.link.to_json()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Measurements":
        """The measurements whose :meth:`to_json` was kept, so that they can be predicted from again."""
        exchanges = {
            method: tuple(MeasuredExchange.from_json(each) for each in measured)
            for method, measured in data["exchanges"].items()
        }
        plain = data["plain"]
        return Measurements(
            data["numel"], data["processes"], Network.from_json(data["network"]),
            MeasuredCompute.from_json(data["compute"]), MeasuredCompute.from_json(data["one_bucket"]),
            PlainSteps(tuple(plain["mean_s"]), tuple(plain["most_s"]), plain["block"]), exchanges, data["periods"],
            MeasuredLink.from_json(data["link"]), data["hidden"], data.get("kept", {}),
            {method: MeasuredSums.from_json(each) for method, each in data.get("sums", {}).items()},
        )  # fmt: skip


def measure(
    step: TrainingStep, chosen: Sequence[Candidate], vectors: Sequence[Tensor], transport: Transport, limit_s: float,
    say: Callable[[str], None],
) -> Measurements:  # fmt: skip
    """Measure the step, then what candidates compute and send, then the link up to the longest of these messages.

    Every process calls it at the same point, and all measure at the same time, as they will train.

    Args:
        step: what is trained.
        chosen: what is to be predicted.
        vectors: gradients to compress, at least as long as the model.
        transport: of the processes, over all of torch's.
        limit_s: about as long a single measurement may take; a message of half of it is the longest that is sent.
        say: is told what is measured next.

    Raises:
        ConfigError: a single process, or a method that does not fit the model.
    """
    if transport.size == 1:
        raise ConfigError("a link needs processes at both ends, and there is 1; start 2 or more, as with torchrun")
    alone = group_of_one(transport)
    say("the step without communication")
    given_s = step.compute_s
    # Of a step whose seconds were given only the buckets are asked for.
    compute = measure_compute(step, transport, alone, limit_s if given_s is None else 0.0)
    one_bucket = measure_compute(step, transport, alone, limit_s, ONE_BUCKET_MB)
    plain = measure_plain(step, transport, limit_s) if given_s is None else PlainSteps((given_s,), (given_s,))
    network = measure_link(transport)
    exchanges: dict[str, Sequence[MeasuredExchange]] = {}
    summed: dict[str, MeasuredSums] = {}
    for number, candidate in enumerate(chosen, start=1):
        say(f"what a process computes, {number} of {len(chosen)}: {candidate.method}")
        transport.share([])
        if candidate.kind is Kind.POWER_SGD:
            costs = measure_power_sgd(step, transport, alone, limit_s, one_bucket)
            own = [MeasuredExchange(costs)]
        elif candidate.kind is Kind.DENSE:
            own = [MeasuredExchange((Exchange(),)) for _ in compute.names]
        elif candidate.kind is Kind.DENSE_BF16:
            own = measure_casts([bucket.numel for bucket in compute.at(0.5).buckets], transport.size)
        else:
            method, sums = apart(parse_method(candidate.method), step.layout)
            own = _exchanges(candidate.kind, method, step, compute, vectors, transport, network)
            if sums.per_step:
                whole = _exchanges(candidate.kind, GradientAveraging(), step, compute, vectors, transport, network)
                summed[candidate.method] = MeasuredSums(sums, tuple(_slowest(each, transport) for each in whole))
        exchanges[candidate.method] = [_slowest(each, transport) for each in own]
    if given_s is not None:
        compute, one_bucket = compute.lasting(given_s), one_bucket.lasting(given_s)
    periods = {
        each.method: 1 / exchanges_per_step(parse_method(each.method))
        for each in chosen
        if each.kind in (Kind.HOOKED, Kind.SYNCHRONIZED)
    }
    say("the link")
    needs = _needs(chosen, compute, exchanges, periods, plain, summed)
    link = measure_curves(transport, needs, limit_s / 2)
    hidden = _hidden(transport)
    kept = {each.method: _kept(each, step.layout, transport) for each in chosen}
    return Measurements(
        step.layout.numel, transport.size, network, compute, one_bucket, plain, exchanges, periods, link, hidden, kept,
        summed,
    )  # fmt: skip


def _kept(candidate: Candidate, layout: Layout, transport: Transport) -> int:
    buckets = 0 if candidate.kind is Kind.SYNCHRONIZED else 4 * layout.numel
    match candidate.kind:
        case Kind.DENSE | Kind.DENSE_BF16:
            return buckets
        case Kind.POWER_SGD:
            return 2 * buckets  # what its factors left out, of every bucket
        case Kind.HOOKED:
            method: Method = on_gradients(parse_method(candidate.method))
        case Kind.SYNCHRONIZED:
            method = parse_method(candidate.method)
    return buckets + remembered_num_bytes(method, layout, transport.rank, transport.size)


def _exchanges(
    kind: Kind, method: Method, step: TrainingStep, compute: MeasuredCompute, vectors: Sequence[Tensor],
    transport: Transport, network: Network,
) -> list[MeasuredExchange]:  # fmt: skip
    rank, size = transport.rank, transport.size
    if kind is Kind.HOOKED:
        return measure_hooked(method, step, compute.names, vectors, rank, size, network)
    return [measure_synchronized(method, step.layout, vectors, rank, size, network)]


def _slowest(own: MeasuredExchange, transport: Transport) -> MeasuredExchange:
    """The longest seconds and messages of all processes, each time: the others wait for them."""
    return own.of([max(each) for each in zip(*transport.share(own.numbers()), strict=True)])


def _needs(
    chosen: Sequence[Candidate], compute: MeasuredCompute, exchanges: Mapping[str, Sequence[MeasuredExchange]],
    periods: Mapping[str, float], plain: PlainSteps, summed: Mapping[str, MeasuredSums],
) -> dict[Way, list[Need]]:  # fmt: skip
    """The longest message of every way, after each idle time that some candidate leaves."""
    most: dict[tuple[Way, float], float] = {}

    def add(way: Way, idle_s: float, num_bytes: float) -> None:
        place = way, min(idle_s, LONGEST_IDLE_S)
        most[place] = max(most.get(place, 0.0), num_bytes)

    middle = compute.at(0.5)
    for candidate in chosen:
        idle_s = middle.step_s
        if candidate.kind is Kind.SYNCHRONIZED:
            idle_s = periods[candidate.method] * plain.at(0.5, periods[candidate.method])
        for each in (*exchanges[candidate.method], *summed.get(candidate.method, NO_SUMS).exchanges):
            for turn in each.rounds:
                for part in turn.rounds:
                    add(part.way, idle_s, part.num_bytes)
        if candidate.kind is Kind.DENSE:
            add(Way.TORCH_SUM, idle_s, 4.0 * max(bucket.numel for bucket in middle.buckets))
    found: dict[Way, list[Need]] = {}
    for (way, idle_s), num_bytes in most.items():
        found.setdefault(way, []).append(Need(idle_s=idle_s, most_bytes=num_bytes))
    return found


def _hidden(transport: Transport) -> float:
    """Of a processor: what is free beside the computation of all processes of this machine, on the fullest machine."""
    own = torch.frombuffer(bytearray(socket.gethostname().encode()), dtype=torch.uint8)
    names = [bytes(each.tolist()) for each in transport.share_bytes(own)]
    here = names.count(names[transport.rank])
    free = (default_jobs() - here * torch.get_num_threads()) / here
    return min(max(min(one for (one,) in transport.share([free])), 0.0), 1.0)

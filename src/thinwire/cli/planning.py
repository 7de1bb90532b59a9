"""``thinwire plan``."""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from thinwire.bench.inputs import heavy
from thinwire.cli.application import console, open_lines, say, write_line
from thinwire.cli.limits import check_limit
from thinwire.cli.probing import (
    link_title,
    read_compute,
    read_length,
    refuse_alone,
    shown_size,
    shown_time,
    told_once,
    verdict,
)
from thinwire.distributed import Transport
from thinwire.errors import ConfigError
from thinwire.experiments.launch import is_lead, join
from thinwire.experiments.recording import Recording
from thinwire.experiments.spec import check_counts
from thinwire.experiments.tasks import call_foreign, load_task
from thinwire.planner import Candidate, Kind, Measurements, PlanRow, TrainingStep, candidates, measure, predict
from thinwire.planner.accuracy import Trial, message_error
from thinwire.report import TerminalColumn, TerminalTable, print_fitted

NUM_VECTORS = 8
"""Gradients that compression is tried on."""
_LEGEND = (
    "step: predicted seconds of a step, and where they are expected to lie. sent: a step's messages of a process, or "
    "the vectors that are added up. codec: compression and decoding. period: steps from one exchange to the next. "
    "kept: memory for DDP's buckets and what the method remembers; an exchange takes a buffer beside it. "
    "gain: steps of the fastest dense row over steps of this one. How many steps training takes is another question: "
    "thinwire compare."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What a plan is made of.

    Args:
        chosen: what is predicted.
        make: the step to be made, and gradients of a process of that rank.
        limit_s: of a single measurement.
        judge: what is given up by candidates, one at a time; None if nothing limits that.
        most_loss: what may be.
    """

    chosen: Sequence[Candidate]
    make: Callable[[int], tuple[TrainingStep, Sequence[Tensor]]]
    limit_s: float
    judge: Callable[[Candidate, int], float | None] | None
    most_loss: float


def plan_as_asked(given: Mapping[str, Any]) -> None:
    """Measure in all processes that torchrun started, and say in the first which method to train with.

    Raises:
        ConfigError: what cannot be, or cannot be read, or processes that torchrun did not start.
        Refused: the same, in all processes but the first.
    """
    with told_once():
        refuse_alone("plan")
        check_limit(given["limit"])
        request = PlanRequest(
            chosen=candidates(given["methods"] or ()), make=_maker(given), limit_s=given["limit"],
            judge=_judge(given), most_loss=given["accuracy_loss"] or 0.0,
        )  # fmt: skip
        with open_lines(given["json_file"] if is_lead() else "") as lines:
            kept: list[Measurements] = []
            join(functools.partial(_measure, request, kept))
            if is_lead():  # nobody waits for it any more, however long it judges
                _tell(request, kept[0], lines)


def _maker(given: Mapping[str, Any]) -> Callable[[int], tuple[TrainingStep, Sequence[Tensor]]]:
    ways = [name for name in ("model", "task") if given[name]]
    if len(ways) == 2 or (ways and (given["numel"] or given["like"])):
        raise ConfigError("--model, --task and --numel or --like were given together; give one of them")
    if ways and given["compute"]:
        raise ConfigError(f"--compute {given['compute']} was given beside --{ways[0]}, whose step is measured")
    if given["model"]:
        return functools.partial(_of_model, given["model"], given["optimizer"])
    if given["task"]:
        task = load_task(given["task"], data=given["data"])
        step = TrainingStep.of_task(task, given["optimizer"])
        return lambda rank: (step, step.gradients(NUM_VECTORS))
    if not given["compute"]:
        raise ConfigError(
            "what is trained is not known; give --task NAME, --model package.module:function, or the time of your step "
            "as --compute 50ms, with --numel or --like"
        )
    compute_s, numel = read_compute(given["compute"]), read_length(given["numel"], given["like"])
    return functools.partial(_of_length, numel, compute_s, given["optimizer"])


def _of_model(name: str, optimizer: str, rank: int) -> tuple[TrainingStep, Sequence[Tensor]]:
    made: Any = call_foreign(name, "model and its loss")
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module) and callable(made[1])):
        raise ConfigError(
            f"{name} returned {type(made).__name__}; it returns two things: a model, and a function that takes the "
            "model (or DDP around it) and returns the loss of a batch"
        )
    step = TrainingStep(made[0], made[1], optimizer)
    return step, step.gradients(NUM_VECTORS)


def _of_length(numel: int, compute_s: float, optimizer: str, rank: int) -> tuple[TrainingStep, Sequence[Tensor]]:
    made = heavy(numel, rank)
    sizes = made.tensors.offsets().diff().tolist()
    return TrainingStep.of_sizes(sizes, compute_s, made.vectors[0], optimizer), made.vectors


def _judge(given: Mapping[str, Any]) -> Callable[[Candidate, int], float | None] | None:
    most = given["accuracy_loss"]
    if most is None:
        if given["gradients"]:
            raise ConfigError("--gradients was given without --accuracy-loss, which says what error may be")
        return None
    if not 0 <= most < float("inf"):
        raise ConfigError(f"--accuracy-loss {most} was given; it is 0 or more")
    if given["gradients"]:
        recording = Recording.load(given["gradients"])
        return lambda candidate, size: message_error(candidate, recording)
    if not given["task"]:
        raise ConfigError("--accuracy-loss is judged from --gradients FILE, or by a short training of --task NAME")
    check_counts({"trial steps": given["trial_steps"]})
    task = load_task(given["task"], data=given["data"])

    @functools.cache
    def trial(size: int) -> Trial:
        return Trial(task, given["task"], given["data"], size, given["trial_steps"])

    def lost(candidate: Candidate, size: int) -> float:
        (found,) = trial(size).losses([candidate])
        return found

    return lost


def _measure(request: PlanRequest, kept: list[Measurements], transport: Transport) -> None:
    torch.manual_seed(transport.rank)

    def say_next(text: str) -> None:
        if transport.rank == 0:
            print(f"measuring {text}", file=sys.stderr, flush=True)

    step, vectors = request.make(transport.rank)
    kept.append(measure(step, request.chosen, vectors, transport, request.limit_s, say_next))


def _tell(request: PlanRequest, found: Measurements, lines: TextIO | None) -> None:
    rows = predict(found, request.chosen)
    losses, allowed = _allowed(rows, request, found.processes)
    dense = min((row for row in rows if row.is_dense), key=lambda row: row.step.middle)
    for row in rows:
        gain = dense.step.over(row.step)
        more = {"loss": losses.get(row.method), "is_allowed": row in allowed if row.method in losses else None}
        gains = {"gain": gain.middle, "low_gain": gain.low, "high_gain": gain.high}
        write_line(lines, {**row.to_json(), **gains, **more, "processes": found.processes, "numel": found.numel})
    if lines is None or lines.name != "<stdout>":
        print_fitted(make_table(rows, dense, found, losses), console)
        console.print(_LEGEND, markup=False, highlight=False)
        say(advice(allowed, dense))


def _allowed(rows: Sequence[PlanRow], request: PlanRequest, size: int) -> tuple[dict[str, float | None], list[PlanRow]]:
    """What is given up by the fastest rows, down to the first that may be used; that one, and dense f32."""
    if request.judge is None:
        return {}, list(rows)
    losses: dict[str, float | None] = {}
    allowed = [row for row in rows if row.candidate.kind is Kind.DENSE]
    for row in rows:
        if row in allowed:
            break  # nothing that is slower is of use
        print(f"judging {row.method}", file=sys.stderr, flush=True)
        loss = losses[row.method] = request.judge(row.candidate, size)
        if loss is not None and loss <= request.most_loss:
            allowed.insert(0, row)
            break
    return losses, allowed


def make_table(
    rows: Sequence[PlanRow], dense: PlanRow, found: Measurements, losses: Mapping[str, float | None]
) -> TerminalTable:
    """A line for each way to train, the shortest step first."""
    gains = [dense.step.over(row.step) for row in rows]
    columns = [
        ("step", [shown_time(row.step.middle) for row in rows]),
        ("from - to", [f"{shown_time(row.step.low)} - {shown_time(row.step.high)}" for row in rows]),
        ("gain", [f"{gain.middle:.3g}" for gain in gains]),
        ("period", [f"{row.period:.4g}" for row in rows]),
        ("sent", [shown_size(row.num_bytes) for row in rows]),
        ("codec", [shown_time(row.codec_s) for row in rows]),
        ("kept", ["-" if row.kept_num_bytes is None else shown_size(row.kept_num_bytes) for row in rows]),
    ]
    if losses:
        columns.append(("loss", [_loss(losses, row.method) for row in rows]))
    compute_s = found.compute.at(0.5).step_s
    return TerminalTable(
        columns=[
            TerminalColumn(header="method", cells=[row.method for row in rows], is_name=True),
            *(TerminalColumn(header=head, cells=cells) for head, cells in columns),
        ],
        title=link_title(found.numel, found.processes, found.network, compute_s),
    )


def _loss(losses: Mapping[str, float | None], method: str) -> str:
    if method not in losses:
        return "-"
    loss = losses[method]
    return "not told" if loss is None else f"{loss:.3g}"


def advice(rows: Sequence[PlanRow], dense: PlanRow) -> str:
    """Which method to use, its period, and the gain with its interval.

    Args:
        rows: that may be used, the fastest first.
        dense: the fastest dense row.
    """
    others = [row for row in rows if not row.is_dense]
    if not others:
        return f"nothing faster keeps to --accuracy-loss; train with {rows[0].use}: {shown_time(rows[0].step.middle)}"
    known = [*others, dense]
    best = others[0]
    gain = dense.step.over(best.step)
    period = "" if best.period == 1 else f", an exchange every {best.period:.4g} steps"
    sure = "" if gain.low > 1 or gain.high < 1 else "; the interval has 1 in it, so that it may be none"
    return (
        f"{verdict(known)}\nexpected gain of {best.method} over {dense.method}: {gain.middle:.3g} "
        f"({gain.low:.3g} to {gain.high:.3g}){period}{sure}"
    )

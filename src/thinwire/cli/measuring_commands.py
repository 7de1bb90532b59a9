"""``thinwire record``, ``bench``, ``probe`` and ``frontier``: what they take."""

import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from thinwire.cli.application import app, fill, numbers, open_lines
from thinwire.cli.comparison_commands import JSON_HELP, TASK_HELP, Inline, complete_tasks
from thinwire.errors import ConfigError

DEFAULT_NUMEL = 16_384
BUDGETS = "0.1,0.5,1,2,4"
"""As :mod:`thinwire.frontier` has them, which would wait for torch."""


Like = StrEnum("Like", ["resnet50", "gpt2"])
TableChoice = StrEnum("TableChoice", ["reference", "budget"])
KindChoice = StrEnum("KindChoice", ["any", "unbiased", "contraction"])


@app.command()
def record(
    task: Annotated[str, typer.Argument(help=TASK_HELP, autocompletion=complete_tasks)],
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("gradients.pt"),
    method: Annotated[str, typer.Option(help="what the workers train with, see: thinwire methods")] = "topk:density=1%",
    workers: Annotated[int, typer.Option(help="number of simulated workers")] = 4,
    steps: Annotated[int, typer.Option(help="training steps")] = 200,
    every: Annotated[int, typer.Option(help="steps from one recorded step to the next")] = 20,
    lr: Annotated[float | None, typer.Option(help="learning rate [default: the middle one of the task's]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="examples per worker and step [default: the task's]")] = None,
    optimizer: Annotated[str, typer.Option(help="of torch.optim: sgd:momentum=0.9, adam:betas=0.9/0.95")] = "sgd",
    seed: Annotated[int, typer.Option(help="seed of model, batches and exchanges")] = 0,
    all_workers: Annotated[bool, typer.Option("--all-workers", help="record every worker, not only worker 0")] = False,
    data: Annotated[str | None, typer.Option(help="folder with the task's data set, if it needs one")] = None,
) -> None:
    """Train a task and keep its gradients, for bench and frontier.

    Use the file with: thinwire bench --input recorded:FILE, thinwire frontier --input FILE.

    The file also holds what the method compressed (gradient or displacement plus residual), if it has a memory. It
    is a plain dict, which torch.load reads with weights_only=True. Ctrl-C keeps what was recorded until then.
    """
    given = locals()
    from thinwire.cli.measuring import record_as_asked

    record_as_asked(given)


@app.command()
def bench(
    numel: Annotated[str, typer.Option(help="lengths; 25M is ResNet-50, 124M GPT-2 [default: 1M,25M]")] = "",
    threads: Annotated[str, typer.Option(help="numbers of threads to measure with")] = "1,2",
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="heavy (random), or recorded:FILE; may be repeated [default: heavy]"),
    ] = None,
    steps: Annotated[
        str, typer.Option(help="only these, separated by commas; operators: all compressors; an unknown one lists all")
    ] = "",
    repeats: Annotated[int | None, typer.Option(help="calls of each [default: 30, 11 or 5, by length]")] = None,
    json_file: Annotated[str, typer.Option("--json", help=JSON_HELP)] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="1M, few calls: shows that it works, not what it costs")
    ] = False,
) -> None:
    """Time compression, in multiples of copying the gradient.

    It times whole steps and single kernels, beside memcpy and torch.topk, and compares message lengths with the
    entropy. Close other programs first. Ctrl-C prints what was measured until then.
    """
    from thinwire.bench import Plan, read_numel
    from thinwire.cli.measuring import time_steps

    plan = Plan(
        numels=numbers(numel or ("1M" if quick else "1M,25M"), read_numel, "--numel"),
        threads=numbers(threads, int, "--threads"),
        inputs=tuple(inputs or ["heavy"]),
        steps=tuple(step.strip() for step in steps.split(",") if step.strip()),
        repeats=3 if quick and repeats is None else repeats,
        warmups=1 if quick else 3,
        sweep_num_bytes=1 << 24 if quick else 1 << 27,
    )
    time_steps(plan, json_file)


@app.command()
def probe(
    methods: Annotated[list[str], typer.Argument(help="NAME or NAME:OPTION=VALUE,..., see: thinwire methods")],
    numel: Annotated[str, typer.Option(help="length of the gradient, as 5M or 500k")] = "",
    like: Annotated[
        Like | None, typer.Option(help="take the gradient's shapes from this model [default: resnet50]")
    ] = None,
    compute: Annotated[str, typer.Option(help="time of your training step without communication, as 50ms")] = "0ms",
    limit: Annotated[
        float, typer.Option(help="seconds to measure each method; what would take longer is predicted")
    ] = 10.0,
    device: Annotated[str, typer.Option(help="where gradients lie: cpu, or cuda for each process's own")] = "cpu",
    json_file: Annotated[
        str, typer.Option("--json", help="file for a JSON line a method, or - for standard output")
    ] = "",
) -> None:
    """Measure the link, and say which method to use on it.

    Start it with torchrun, as the training itself, on the same machines and the same link:

    torchrun --nproc-per-node 2 -m thinwire probe signtopk:density=1% signtopk:density=1%,every=8 --compute 50ms
    """
    from thinwire.cli.probing import probe_link

    probe_link(methods, numel, like.value if like else None, compute, limit, device, json_file)


@app.command()
def frontier(
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="gaussian, lognormal, student, or a file of thinwire record; may be repeated [default: these three]",
        ),
    ] = None,
    bits: Annotated[str, typer.Option(help="budgets, in bits for each entry of the vector")] = BUDGETS,
    clients: Annotated[str, typer.Option(help="numbers of workers whose messages are averaged")] = "1,8,32",
    kind: Annotated[
        KindChoice, typer.Option(help="which operators to look at; error feedback needs a contraction")
    ] = KindChoice.any,
    numel: Annotated[
        int, typer.Option(help="length of the vectors; of a longer recording, blocks are taken")
    ] = DEFAULT_NUMEL,
    draws: Annotated[int, typer.Option(help="random draws over which an error is averaged")] = 2,
    best: Annotated[str, typer.Option(help="only find the best operator for bits=1, or for error=0.1")] = "",
    table: Annotated[TableChoice | None, typer.Option(help="only print a table of well-known operators")] = None,
    gamma: Annotated[
        str,
        typer.Option(
            help="only find levels s and k of scaled QSGD of top-k for these gammas, as 0.01,0.05, at --numel entries"
        ),
    ] = "",
    json_file: Annotated[str, typer.Option("--json", help=JSON_HELP)] = "",
    html: Annotated[Path | None, typer.Option(help="write the figures to this HTML file")] = None,
    inline: Inline = False,
) -> None:
    """Find the compressor with the least error for a number of bits.

    It measures every compressor on random vectors, or on your gradients, with the bytes that are really sent.
    """
    given = locals()
    if sum(map(bool, (best, table, gamma))) > 1:
        raise ConfigError("--best, --table and --gamma exclude each other; give one of them")
    for name, is_given in (("--clients", clients != "1,8,32"), ("--html", html is not None), ("--inline", inline)):
        if is_given and (best or table or gamma):
            warnings.warn(f"{name} has no effect with --best, --table or --gamma", stacklevel=2)
    if inline and html is None:
        warnings.warn("--inline has no effect without --html", stacklevel=2)
    from thinwire.cli.frontier import Request, show_frontier

    request = fill(Request, given, {"inputs": tuple(inputs or ())})
    with open_lines(json_file) as lines:
        show_frontier(request, lines)

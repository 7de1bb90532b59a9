"""``thinwire record``, ``bench``, ``probe`` and ``frontier``: what they take."""

import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from thinwire.cli.application import app, fill, numbers, open_lines
from thinwire.cli.comparison_commands import JSON_HELP, TASKS, complete_tasks
from thinwire.errors import ConfigError

DEFAULT_NUMEL = 16_384
BUDGETS = "0.1,0.5,1,2,4"
"""As :mod:`thinwire.frontier` has them, which would wait for torch."""


Like = StrEnum("Like", ["resnet50", "gpt2"])
TableChoice = StrEnum("TableChoice", ["reference", "budget"])
KindChoice = StrEnum("KindChoice", ["any", "unbiased", "contraction"])


@app.command()
def record(
    task: Annotated[
        str,
        typer.Argument(help=f"one of {', '.join(TASKS)}, or package.module:function", autocompletion=complete_tasks),
    ],
    out: Annotated[Path, typer.Option(help="the file to write")] = Path("gradients.pt"),
    method: Annotated[str, typer.Option(help="what the workers train with, see: thinwire methods")] = "topk:density=1%",
    workers: Annotated[int, typer.Option(help="number of simulated workers")] = 4,
    steps: Annotated[int, typer.Option(help="training steps")] = 200,
    every: Annotated[int, typer.Option(help="steps from one recorded step to the next")] = 20,
    lr: Annotated[float | None, typer.Option(help="learning rate [default: in the middle of the task's]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="examples per worker and step [default: the task's]")] = None,
    optimizer: Annotated[str, typer.Option(help="of torch.optim: sgd:momentum=0.9, adam:betas=0.9/0.95")] = "sgd",
    seed: Annotated[int, typer.Option(help="of model, batches and exchanges")] = 0,
    all_workers: Annotated[bool, typer.Option("--all-workers", help="record every worker, not only worker 0")] = False,
    data: Annotated[str | None, typer.Option(help="folder of the task's data set")] = None,
) -> None:
    """Train a task and keep gradients, for: thinwire bench --input recorded:FILE.

    The file also holds what the method compressed (gradient or displacement plus residual), if it has a memory. It
    is a plain dict, which torch.load reads with weights_only=True. Ctrl-C keeps what is recorded by then.
    """
    given = locals()
    from thinwire.cli.measuring import record_as_asked

    record_as_asked(given)


@app.command()
def bench(
    numel: Annotated[str, typer.Option(help="lengths; 25M is ResNet-50, 124M GPT-2 [default: 1M,25M]")] = "",
    threads: Annotated[str, typer.Option(help="numbers of threads")] = "1,2",
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="heavy, or recorded:FILE; may be repeated [default: heavy]")
    ] = None,
    steps: Annotated[
        str, typer.Option(help="only these, separated by commas; operators: each compressor; an unknown one lists all")
    ] = "",
    repeats: Annotated[int | None, typer.Option(help="calls of each [default: 30, 11 or 5, by length]")] = None,
    json_file: Annotated[str, typer.Option("--json", help=JSON_HELP)] = "",
    quick: Annotated[bool, typer.Option("--quick", help="1M, few repeats: that it works, not what it costs")] = False,
) -> None:
    """Time kernels and whole steps against memcpy, torch.topk and the entropy, all in one run.

    Close other programs first. Ctrl-C prints what is measured by then.
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
    methods: Annotated[list[str], typer.Argument(help="method strings, see: thinwire methods")],
    numel: Annotated[str, typer.Option(help="entries of the gradient: 5M, 500k")] = "",
    like: Annotated[Like | None, typer.Option(help="a gradient of this model [default: resnet50]")] = None,
    compute: Annotated[str, typer.Option(help="time of a step without communication: 50ms")] = "0ms",
    limit: Annotated[float, typer.Option(help="seconds for each method; what takes longer is predicted")] = 10.0,
    json_file: Annotated[str, typer.Option("--json", help="file for a JSON line a method; - is standard output")] = "",
) -> None:
    """Measure the link and what methods would cost on it, and say which to use.

    Start it in every process of a training, on the machines and over the link that it will use:

    torchrun --nproc-per-node 2 -m thinwire probe signtopk:density=1% signtopk:density=1%,every=8 --compute 50ms
    """
    from thinwire.cli.probing import probe_link

    probe_link(methods, numel, like.value if like else None, compute, limit, json_file)


@app.command()
def frontier(
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="gaussian, lognormal, student, or a file of thinwire record [default: the three]"),
    ] = None,
    bits: Annotated[str, typer.Option(help="budgets, in bits an entry")] = BUDGETS,
    clients: Annotated[str, typer.Option(help="how many messages are averaged")] = "1,8,32",
    kind: Annotated[KindChoice, typer.Option(help="which operators the tables and --best look at")] = KindChoice.any,
    numel: Annotated[int, typer.Option(help="entries of the vectors; of a longer recording, blocks")] = DEFAULT_NUMEL,
    draws: Annotated[int, typer.Option(help="draws over which an error is averaged")] = 2,
    best: Annotated[str, typer.Option(help="only the best operator: bits=1, or error=0.1")] = "",
    table: Annotated[TableChoice | None, typer.Option(help="only a table of well-known operators")] = None,
    gamma: Annotated[
        str, typer.Option(help="only the search of (s, k) for scaled QSGD of top-k: gamma=0.01,... of --numel entries")
    ] = "",
    json_file: Annotated[str, typer.Option("--json", help=JSON_HELP)] = "",
    html: Annotated[Path | None, typer.Option(help="file for the figures")] = None,
) -> None:
    """Which operator has the least error for a number of bits on the wire: every registered one, with true bytes."""
    given = locals()
    if sum(map(bool, (best, table, gamma))) > 1:
        raise ConfigError("--best, --table and --gamma exclude each other; give one of them")
    for name, is_given in (("--clients", clients != "1,8,32"), ("--html", html is not None)):
        if is_given and (best or table or gamma):
            warnings.warn(f"{name} has no effect with --best, --table or --gamma", stacklevel=2)
    from thinwire.cli.frontier import Request, show_frontier

    request = fill(Request, given, {"inputs": tuple(inputs or ())})
    with open_lines(json_file) as lines:
        show_frontier(request, lines)

"""``thinwire methods``, ``compare`` and ``report``: what they take."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from thinwire.cli.application import app, open_lines
from thinwire.errors import ConfigError

TASKS = ("digits", "fashion-mnist", "stdlib-lm", "logreg", "logreg-convex", "gpt", "cifar10", "image-folder")
"""As :func:`thinwire.experiments.tasks.task_names`, which would wait for torch."""
TASK_HELP = f"one of {', '.join(TASKS)}, see: thinwire tasks; or package.module:function"
TABLE_HELP = "file for the table as {}, or - for standard output"
JSON_HELP = "file for a JSON line a row, or - for standard output"


def complete_tasks(incomplete: str) -> list[str]:
    """The tasks that begin so."""
    return [task for task in TASKS if task.startswith(incomplete)]


EngineChoice = StrEnum("EngineChoice", ["simulate", "processes"])
OverlapChoice = StrEnum("OverlapChoice", ["none", "ddp"])
LogChoice = StrEnum("LogChoice", ["tensorboard", "wandb", "mlflow"])
ParticipationChoice = StrEnum("ParticipationChoice", ["uniform", "independent", "cyclic"])
LocalOptimizerChoice = StrEnum("LocalOptimizerChoice", ["keep", "fresh"])


MethodNames = Annotated[
    list[str] | None, typer.Argument(help="NAME or NAME:OPTION=VALUE,..., see: thinwire methods", show_default=False)
]
TaskName = Annotated[str, typer.Option(help=TASK_HELP, autocompletion=complete_tasks)]
StudyFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="a study file, whose values other options replace; each run writes study.toml"),
]
Seeds = Annotated[str, typer.Option(help="seeds of the final runs, separated by commas")]
Rates = Annotated[str, typer.Option(help="learning rates to try, separated by commas [default: the task's]")]
BatchSize = Annotated[int | None, typer.Option(help="examples per worker and step [default: the task's]")]
DataFolder = Annotated[str | None, typer.Option(help="folder with the task's data set, if it reads one")]
Jobs = Annotated[int | None, typer.Option(help="runs simulated at the same time [default: the processors]")]
Schedule = Annotated[
    str,
    typer.Option(
        help="how rates change: cosine:warmup=5%,end=0, linear (alike), inverse:shift=A, bottou:decay=L, "
        "drops:at=100/150,factor=0.1"
    ),
]
Average = Annotated[
    str, typer.Option(help="evaluate the average of all steps' models, not the last: uniform, quadratic:shift=A")
]
Optimizers = Annotated[
    str, typer.Option(help="of torch.optim, of which each method's best is taken: sgd; sgd:momentum=0.9; adamw")
]
Tuned = Annotated[
    str, typer.Option(help="METHOD.OPTION=VALUE,VALUE; ... to try, or none [default: choco's gamma, easgd's alpha]")
]
Links = Annotated[
    str, typer.Option(help="simulated links [default: 100Mbit,20ms]; worker 3 apart: 100Mbit,20ms;3:8Mbit,1s")
]
StepTimes = Annotated[
    str, typer.Option(help="simulated time of a step [default: 10ms]; varied: 10ms,jitter=20%,stall=1%x8,slow=3x5")
]
RunsOn = Annotated[
    str, typer.Option("--on", help="simulate runs as tasks of Ray: ray (started here), ray:auto or ray:HOST:PORT")
]
LogTo = Annotated[LogChoice | None, typer.Option(help="log the final runs to it as well, as they go")]
Overlap = Annotated[
    OverlapChoice | None,
    typer.Option(help="simulate gradients that are exchanged during backward, where a method may [default: ddp]"),
]
Codec = Annotated[
    str, typer.Option(help="charge exchanges what compressing takes here [default: measured]; 2x: twice that; free")
]
NumWorkers = Annotated[int, typer.Option(help="number of workers, each with its share of the data")]
Target = Annotated[float | None, typer.Option(help="accuracy or loss to reach [default: what dense runs reach]")]
Steps = Annotated[int, typer.Option(help="training steps of a final run")]
TuneSteps = Annotated[int | None, typer.Option(help="steps for each learning rate tried [default: --steps]")]
EvaluateEvery = Annotated[int | None, typer.Option(help="steps between evaluations [default: a 20th]")]
Sharding = Annotated[str, typer.Option(help="deal examples out: random, sorted (by label), dirichlet:alpha=0.3")]
NumClients = Annotated[
    int | None, typer.Option(help="so many clients share the data and take turns as workers, simulated")
]
PerRound = Annotated[int | None, typer.Option(help="clients that take part in a round, in place of --workers")]
TakingPart = Annotated[
    ParticipationChoice | None,
    typer.Option(help="drawn without replacement, each by itself, or in turn [default: uniform]"),
]
MemoryOfAbsent = Annotated[
    str,
    typer.Option(help="what waits for a client's next turn: keep [default], fresh (nothing), drop:N after N rounds"),
]
OptimizerOfAbsent = Annotated[
    LocalOptimizerChoice | None,
    typer.Option(help="the state of a client's local optimizer waits too, or begins anew [default: keep]"),
]
DryRun = Annotated[bool, typer.Option(help="say how many runs and steps there would be, and how long")]
Inline = Annotated[
    bool, typer.Option("--inline", help="the page as one file, with the figures' library that else lies beside it")
]
JsonFile = Annotated[str, typer.Option("--json", help=JSON_HELP)]
CsvFile = Annotated[str, typer.Option("--csv", help=TABLE_HELP.format("CSV"))]
LatexFile = Annotated[str, typer.Option("--latex", help=TABLE_HELP.format("LaTeX"))]


@app.command()
def methods(
    names: Annotated[
        list[str] | None, typer.Argument(help="explain these [default: list all]", show_default=False)
    ] = None,
    json_file: Annotated[
        str, typer.Option("--json", help="file for a JSON line a method, or - for standard output")
    ] = "",
) -> None:
    """List the methods: what each sends, its options, its paper."""
    from thinwire.cli.catalog import show_methods

    with open_lines(json_file) as lines:
        show_methods(names or [], lines)


@app.command()
def tasks(
    names: Annotated[
        list[str] | None, typer.Argument(help="explain these [default: list all]", show_default=False)
    ] = None,
    json_file: Annotated[
        str, typer.Option("--json", help="file for a JSON line a task, or - for standard output")
    ] = "",
) -> None:
    """List the tasks: what each learns, its options, where its data come from, what of it needs a GPU."""
    from thinwire.cli.catalog import show_tasks

    with open_lines(json_file) as lines:
        show_tasks(names or [], lines)


@app.command()
def compare(
    context: typer.Context,
    methods: MethodNames = None,
    study: StudyFile = None,
    task: TaskName = "digits",
    workers: NumWorkers = 8,
    clients: NumClients = None,
    per_round: PerRound = None,
    participation: TakingPart = None,
    memory_of_absent: MemoryOfAbsent = "",
    local_optimizer: OptimizerOfAbsent = None,
    seeds: Seeds = "0,1,2",
    lrs: Rates = "",
    optimizers: Optimizers = "sgd",
    tune: Tuned = "",
    engine: Annotated[
        EngineChoice, typer.Option(help="one process and a virtual clock, or real processes")
    ] = EngineChoice.simulate,
    network: Links = "",
    compute: StepTimes = "",
    overlap: Overlap = None,
    codec: Codec = "",
    target: Target = None,
    steps: Steps = 300,
    tune_steps: TuneSteps = None,
    evaluate_every: EvaluateEvery = None,
    batch_size: BatchSize = None,
    lr_schedule: Schedule = "constant",
    average: Average = "none",
    sharding: Sharding = "random",
    data: DataFolder = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the results [default: runs/TASK, or runs/TASK-2, ...]")
    ] = None,
    jobs: Jobs = None,
    on: RunsOn = "",
    log: LogTo = None,
    dry_run: DryRun = False,
    json_file: JsonFile = "",
    csv_file: CsvFile = "",
    latex_file: LatexFile = "",
) -> None:
    """Train with several methods, tuned alike, and write a report.

    Every method is tuned over the same learning rates and optimizers, then run with every seed. Gains are over the
    fastest dense method: compare sgd and bf16-sgd too. You may interrupt it: the same command goes on where it stopped.
    Under torchrun, --engine processes uses the processes that torchrun started.

    thinwire compare sgd topk:density=1% signtopk:density=1%,every=8 --task digits --target 0.95
    """
    given = {name: value for name, value in locals().items() if name not in ("context", "study")}
    from thinwire.cli.comparing import compare_as_asked
    from thinwire.cli.studies import merged

    def is_explicit(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    compare_as_asked(merged(given, is_explicit, study))


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="folders that thinwire compare, pareto or speedup wrote, such as runs/digits")
    ],
    page: Annotated[
        Path | None, typer.Option(help="of several folders: the page [default: side-by-side.html beside the first]")
    ] = None,
    inline: Inline = False,
    json_file: JsonFile = "",
    csv_file: CsvFile = "",
    latex_file: LatexFile = "",
) -> None:
    """Print the table of a comparison, and write its page again; of several, side by side.

    thinwire report runs/digits

    thinwire report runs/digits runs/digits-sorted
    """
    from thinwire.cli.reporting import Exports, show_report, show_several

    exports = Exports(json_file, csv_file, latex_file)
    if len(folders) == 1 and page is None:
        show_report(folders[0], exports, inline=inline)
    elif len(folders) == 1:
        raise ConfigError(f"--page {page} was given; the page of a single folder is written into the folder")
    else:
        show_several(folders, exports, page, inline=inline)


@app.command()
def theory(
    methods: Annotated[list[str], typer.Argument(help="NAME or NAME:OPTION=VALUE,..., see: thinwire methods")],
    task: Annotated[
        str, typer.Option(help="whose model it is about", autocompletion=complete_tasks, show_default=False)
    ] = "",
    numel: Annotated[int | None, typer.Option(help="instead, the entries of one vector", show_default=False)] = None,
    workers: Annotated[int, typer.Option(help="number of workers")] = 8,
    steps: Annotated[int, typer.Option(help="steps of the training")] = 10_000,
    batch_size: Annotated[int, typer.Option(help="examples per worker and step")] = 32,
    lr: Annotated[float, typer.Option(help="the largest learning rate")] = 0.1,
    gradient_norm: Annotated[float, typer.Option(help="the largest norm of a worker's gradient")] = 1.0,
    kappa: Annotated[float, typer.Option(help="condition number of a strongly convex objective")] = 100.0,
    json_file: JsonFile = "",
) -> None:
    """Say what the theorems allow: constants of the operator, local steps, step sizes, bounds of the memory.

    thinwire theory qsparse:density=1%,every=4 topk:density=1% --task digits --workers 8 --steps 2000
    """
    from thinwire.cli.theory import layout_of, show_theory
    from thinwire.experiments.theorems import TheoryProblem

    problem = TheoryProblem(
        layout=layout_of(task, numel), workers=workers, steps=steps, batch_size=batch_size, lr=lr,
        gradient_norm=gradient_norm, kappa=kappa,
    )  # fmt: skip
    with open_lines(json_file) as lines:
        show_theory(methods, problem, lines)

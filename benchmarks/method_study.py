"""Every method of the catalog on three tasks, tuned alike: the study behind ``docs/method-table.md``.

Four workers train a classifier, a convex objective and a language model. Each method has its best learning rate and
optimizer of the same search; methods whose message is a momentum, or whose optimizer the paper names, have rates and
optimizers of their own. A run that is interrupted goes on where it stopped. At the end ``docs/data/methods.json`` has a
line a method and task, and ``python docs/write_method_table.py`` writes the page and the README's table from it.

    python benchmarks/method_study.py                    # all, an hour or two on two cores
    python benchmarks/method_study.py --task digits      # one, for which the others' lines stay
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinwire.experiments.tasks import load_task
from thinwire.layout import Layout
from thinwire.methods import CATALOG, Method, parse_method
from thinwire.report import ResultRow, summarise
from thinwire.report.records import RecordedComparison
from thinwire.report.records import load as load_records
from thinwire.worker import needs_server
from thinwire.worker.footprint import remembered_num_bytes

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs" / "data" / "methods.json"
WORKERS, NETWORK = 4, "100Mbit,50ms"
DENSE = ("sgd", "bf16-sgd")
ANY = (
    *DENSE, "fp16-sgd", "local-sgd:every=8", "qsgd:bits=4", "qsgd:bits=2", "mem-sgd:select=random,density=1%",
    "ef-signsgd", "ef-signsgd:every=8", "topk:density=1%", "signtopk:density=1%", "signtopk:density=1%,every=8",
    "signtopk:density=10%,every=8", "qsparse:density=2%,levels=7,every=4", "ef-sgd:density=1%",
    "aji-heafield:density=1%", "signsgd", "terngrad", "gspar:density=10%", "1bit-sgd", "ef21:density=1%", "powersgd",
    "demo", "post-local-sgd:every=8", "sparse-averaging:fragments=8", "pqasgd:every=8,bits=4", "easgd:every=8",
    "eamsgd:every=8", "diloco:every=8", "streaming-diloco:every=2,fragments=4", "sparseloco:every=8,density=10%",
    "sparta:density=5%", "cocktailsgd", "dilocox:every=8,rank=2", "d-psgd", "choco:density=10%",
    "double-squeeze:density=1%", "gtopk:density=1%", "ok-topk:density=1%", "shared-randk:density=1%",
    "islands:island=2", "sparq:density=10%", "noloco:every=8", "beer:density=10%", "motef:density=10%",
    "local-sgd-async:every=8", "qsparse-async:every=4", "easgd-async:every=8", "downpour:every=4",
    "mdownpour", "adownpour:every=4", "mvadownpour:every=4", "diana", "ef21-plus:density=1%",
    "ef21-sgdm:density=1%", "ef21-bc:density=1%", "econtrol:density=1%", "marina:density=10%", "dasha:density=10%",
    "intsgd", "thc", "scalecom:density=1%", "suresh", "konecny-richtarik", "eden", "drive", "natural",
)  # fmt: skip
OWN = (*DENSE, "dgc:density=1%", "signum", "1bit-adam", "01-adam", "1bit-lamb", "signed-lion", "dion:rank=4", "dion2")
"""What they exchange is a momentum already: the optimizer is plain SGD, and its rate that of the method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Methods that are tuned over the same optimizers and rates; the dense ones are in each, to be compared with."""

    optimizers: str
    lrs: str
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One task.

    Args:
        kind: what it stands for.
        task: its name with options.
        target: of its metric.
        margin: by how much a method may end worse than dense training on it and be taken for as good.
        options: of ``thinwire compare``.
        groups: of methods, by name.
    """

    kind: str
    task: str
    target: float
    margin: float
    options: tuple[str, ...]
    groups: Mapping[str, Group]


WITH_MUON = (
    "ef-signsgd:every=8", "signtopk:density=10%,every=8", "sparseloco:every=8,density=10%", "pqasgd:every=8,bits=4",
    "local-sgd:every=8", "qsgd:bits=4", "drive", "thc", "natural", "ef-sgd:density=1%", "sparq:density=10%",
)  # fmt: skip
"""Tried with Muon too where dense training is best with it: those that were fast or ended well with AdamW."""


def _groups(optimizers: str, lrs: str, own_lrs: str, with_muon: Sequence[str] = ()) -> dict[str, Group]:
    adam = (*DENSE, "des-loc:every=8,momentum=16,variance=32")
    return {
        "any": Group(optimizers=optimizers, lrs=lrs, methods=ANY),
        "own": Group(optimizers="sgd", lrs=own_lrs, methods=OWN),
        "adam": Group(optimizers="adamw", lrs="0.001,0.003,0.01,0.03", methods=adam),
        "muon": Group(optimizers="muon", lrs="0.001,0.003,0.01,0.03", methods=(*DENSE, "muloco:every=8", *with_muon)),
    }


STUDIES = {
    "digits": Study(
        kind="classes", task="digits", target=0.95, margin=0.02,
        options=("--seeds", "0,1,2", "--steps", "200", "--tune-steps", "80", "--evaluate-every", "10"),
        groups=_groups("sgd; sgd:momentum=0.9", "0.1,0.3,1", "0.001,0.003,0.01,0.03,0.1"),
    ),
    "logreg": Study(
        kind="convex", task="logreg", target=0.05, margin=0.01,
        options=("--seeds", "0,1,2", "--steps", "200", "--tune-steps", "80", "--evaluate-every", "10"),
        groups=_groups("sgd; sgd:momentum=0.9", "0.3,1,3", "0.003,0.01,0.03,0.1,0.3"),
    ),
    "gpt": Study(
        kind="language", task="gpt:layers=1,width=32,heads=1,context=32,vocabulary=512,megabytes=2", target=3.4,
        margin=0.05,
        options=(
            "--seeds", "0,1,2", "--steps", "300", "--tune-steps", "100", "--evaluate-every", "10", "--batch-size", "4",
        ),
        groups=_groups("adamw", "0.003,0.01,0.03", "0.001,0.003,0.01,0.03,0.1", WITH_MUON),
    ),
}  # fmt: skip


def missing_rows() -> set[str]:
    """Rows of the catalog of which no study has a method."""
    studied = {method.partition(":")[0] for group in STUDIES["digits"].groups.values() for method in group.methods}
    return {row.name for row in CATALOG} - studied


def run(study: Study, name: str, folder: Path, jobs: int) -> dict[str, Path]:
    """Run the comparisons of one task that have not been run, and say where they are."""
    found = {}
    for group_name, group in study.groups.items():
        found[group_name] = out = folder / f"{name}-{group_name}"
        command = [
            sys.executable, "-m", "thinwire", "compare", *group.methods, "--task", study.task, "--workers",
            str(WORKERS), "--network", NETWORK, "--codec", "free", "--optimizers", group.optimizers, "--lrs",
            group.lrs, "--target", str(study.target), "--jobs", str(jobs), "--out", str(out), *study.options,
        ]  # fmt: skip
        subprocess.run(command, check=True)
    return found


def rows_of(study: Study, folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What the page needs of each method; dense ones have a row for each group's optimizers."""
    layout = _layout(study.task)
    found: list[dict[str, Any]] = []
    for folder in folders.values():
        data = load_records(folder)
        found += [row for each in summarise(data) if (row := _row(data, each, layout)) not in found]
    return found


def _row(data: RecordedComparison, row: ResultRow, layout: Layout) -> dict[str, Any]:
    links = {
        network: seconds[row.method] * row.steps_to_target
        for network, seconds in data.links
        if row.method in seconds and row.steps_to_target is not None
    }
    method = parse_method(row.method)
    return {
        "method": row.method, "final": row.final_value, "within": row.final_value_within,
        "diverged": row.num_diverged, "runs": row.num_runs, "reached": row.num_reached,
        "steps": row.steps_to_target, "bytes": row.message_bytes_to_target, "seconds": row.seconds_to_target,
        "links": links, "setting": None if row.setting is None else f"{row.setting.name}, {row.setting.lr:g}",
        "demands": _demands(method, row),
        "memory": remembered_num_bytes(method, layout, 0, WORKERS) / (4 * layout.numel),
    }  # fmt: skip


def _demands(method: Method, row: ResultRow) -> list[str]:
    """What must be there: not every cluster has it."""
    names = repr(method)
    server = needs_server(method) or "ParameterServer(" in names or "route='server'" in names
    found = {
        "a server": server, "all-reduce": bool(row.all_reduces), "neighbours": "Gossip(" in names,
        "a common seed": "SharedSeed" in names or "RandomPairs" in names,
    }  # fmt: skip
    return [demand for demand, is_true in found.items() if is_true]


def _layout(task: str) -> Layout:
    named = dict(load_task(task).model(0).named_parameters())
    return Layout.of({name: param.detach() for name, param in named.items()})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what has not been run, and write the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=STUDIES, action="append", help="one of them, or several")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "methods", help="of the comparisons")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    args = parser.parse_args(arguments)
    if missing := missing_rows():
        sys.exit(f"no study has {', '.join(sorted(missing))}; add a method of each to ANY or OWN")
    known = json.loads(DATA.read_text()) if DATA.exists() else {}
    for name in args.task or STUDIES:
        study = STUDIES[name]
        rows = rows_of(study, run(study, name, args.folder, args.jobs))
        metric = load_records(args.folder / f"{name}-any").metric
        known[name] = {
            "kind": study.kind, "task": study.task, "target": study.target, "margin": study.margin,
            "metric": metric.name, "higher_is_better": metric.higher_is_better, "workers": WORKERS,
            "network": NETWORK, "options": study.options, "parameters": _layout(study.task).numel, "rows": rows,
        }  # fmt: skip
        DATA.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()

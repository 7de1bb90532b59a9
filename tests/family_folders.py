"""A folder as ``thinwire pareto`` writes it, with made-up costs whose order differs by measure."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from report_folders import Plan, write_folder

from thinwire import pareto
from thinwire.pareto.family import DENSE, Family, parts_of
from thinwire.pareto.points import Measure

FAMILY = Family(densities=("1%",), bits=(1, 4), periods=(8,))
PARTS = {method: parts_of(method) for method in FAMILY.methods()}
TARGET, SEEDS, TO_TARGET, STEPS = 0.5, (0, 1, 2), 100, 600
ACCURACY = {"name": "accuracy", "higher_is_better": True, "logarithmic": False}


class Cost(NamedTuple):
    """Of a method: bytes and seconds are those of a step."""

    num_bytes: float
    final: float
    link: float = 4.0
    step_s: float = 1e-3

    def of(self, measure: Measure, steps: int = 1) -> float:
        """What so many steps cost with seed 0."""
        per_step = {"message": self.num_bytes, "link": self.link * self.num_bytes, "seconds": self.step_s}
        return steps * per_step[measure]


Costs = Mapping[str, Cost]


def made_up(seed: int) -> Costs:
    """By no law, but not twice the same."""
    found = {}
    for place, (method, own) in enumerate(PARTS.items()):
        spread = (7 * seed + 13 * place) % 29
        num_bytes = 1e5 / (1 + spread) ** (1 + len(own))
        found[method] = Cost(
            num_bytes=num_bytes,
            final=0.6 + 0.01 * ((spread * 11) % 17),
            link=1e5 * (1 + (5 * spread + seed) % 23) / num_bytes,
            step_s=1e-3 * (1 + (17 * spread + seed) % 31),
        )
    return found


def grown(seed: int) -> float:
    """How much more each seed pays than seed 0: 10 and 20 %."""
    return 1 + 0.1 * seed


@dataclass(frozen=True, kw_only=True)
class Departure:
    """How a folder departs from the usual one.

    Args:
        missed: methods that miss the target with seed 1.
        diverged: methods that diverge at the end of seed 1.
        metric: of which, where lower is better, the value is 1 less what it is else.
    """

    missed: Sequence[str] = ()
    diverged: Sequence[str] = ()
    metric: Mapping[str, Any] = field(default_factory=lambda: ACCURACY)


USUAL = Departure()


def write_family(folder: Path, costs: Costs, departure: Departure = USUAL) -> Path:
    """Two evaluations a run after that of step 0; the target is reached at the first of them."""
    metric = departure.metric
    changes: dict[str, Any] = {
        "methods": list(costs), "target": TARGET, "seeds": list(SEEDS), "codec_s": {}, "metric": dict(metric),
        "dense": [method for method in DENSE if method in costs],
        "chosen": {method: {"optimizer": "sgd", "options": "", "lr": 0.1} for method in costs},
    }  # fmt: skip
    made = write_folder(folder, Plan(methods=["sgd"], changes=changes))
    records = []
    for (method, cost), seed, step in itertools.product(costs.items(), SEEDS, (0, TO_TARGET, STEPS)):
        reached = step and not (method in departure.missed and seed == 1)
        value: float | None = (cost.final if step == STEPS else TARGET) + 1e-3 * seed if reached else 0.1
        if value is not None and not metric["higher_is_better"]:
            value = 1 - value
        if method in departure.diverged and seed == 1 and step == STEPS:
            value = None
        sent, link, seconds = (grown(seed) * cost.of(measure, step) for measure in ("message", "link", "seconds"))
        records.append({
            **made.results[0], "method": method, "seed": seed, "step": step, "lr": 0.1, "value": value, "loss": 1.0,
            "metric": metric["name"], "message_bytes": sent, "bytes_sent": 0.25 * link, "bytes_received": 0.75 * link,
            "seconds": seconds,
        })  # fmt: skip
    (folder / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "tuning.jsonl").write_text("")
    (folder / pareto.FILE).write_text(pareto.family_text({method: PARTS[method] for method in costs}))
    return folder


def result_of(folder: Path) -> pareto.ParetoResult:
    """What is told of it."""
    return pareto.summarise_family(pareto.load_family(folder))

"""A folder as a comparison writes it, with made-up but plausible curves."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Message bytes per step, link bytes per message byte, final accuracy, steps to come near it, best rate.
METHODS: dict[str, tuple[float, float, float, float, float]] = {
    "sgd": (104_488.0, 3.5, 0.885, 60.0, 0.3),
    "ef-signsgd": (3_289.0, 8.0, 0.880, 70.0, 0.1),
    "topk:density=1%": (2_134.0, 8.0, 0.881, 75.0, 0.3),
    "qsgd:levels=4": (11_240.0, 8.0, 0.883, 65.0, 0.3),
    "powersgd:rank=2": (5_120.0, 3.5, 0.884, 64.0, 0.3),
    "signtopk:density=1%,every=8": (61.5, 8.0, 0.872, 90.0, 1.0),
    "diloco:every=20,outer=<nesterov>": (5_224.4, 3.5, 0.878, 110.0, 0.1),
    "signsgd": (3_281.0, 8.0, 0.790, 50.0, 0.01),
}
EVALUATIONS = 15
STEPS = 600
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What was written, for tests to compute with on their own."""

    path: Path
    comparison: dict[str, Any]
    results: list[dict[str, Any]]


Write = Callable[..., Folder]
"""Writes a folder; keyword arguments are the fields of :class:`Plan`."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a folder departs from the usual one."""

    methods: Sequence[str] = tuple(METHODS)
    seeds: Sequence[int] = (0, 1)
    value: Callable[[float, str], float] = lambda accuracy, method: accuracy
    diverges: Mapping[str, Sequence[int]] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)


def write_folder(path: Path, plan: Plan) -> Folder:
    path.mkdir(parents=True, exist_ok=True)
    results = [r for m in plan.methods for s in plan.seeds for r in _run(plan, m, s)]
    tuning = []
    for method in plan.methods:
        best = METHODS[method][4]
        for lr in RATES:
            last = _run(plan, method, 0)[-1]
            off = abs(math.log10(lr / best))
            value = None if lr > 9 * best else plan.value(max(0.1, METHODS[method][2] - 0.1 * off), method)
            # An early evaluation comes first: only the last one counts.
            tuning.append(last | {"lr": lr, "step": 20, "value": 0.2, "loss": 2.0})
            tuning.append(last | {"lr": lr, "step": 200, "value": value, "loss": None if value is None else 0.5})
    comparison: dict[str, Any] = {
        "command": "thinwire compare "
        + " ".join(f"'{m}'" if "<" in m else m for m in plan.methods)
        + " --task digits --workers 8 --network 100Mbit,20ms && echo '<done>'",
        "task": "digits",
        "metric": {"name": "accuracy", "higher_is_better": True, "logarithmic": False},
        "workers": 8,
        "seeds": list(plan.seeds),
        "steps": STEPS,
        "engine": "simulate",
        "network": {"bandwidth_Bps": 12.5e6, "latency_s": 0.02, "uplink_Bps": None, "links": []},
        "compute": {"compute_s": 0.005, "jitter": 0.0, "stall_share": 0.0, "stall_factor": 1.0, "slow": []},
        "target": 0.86,
        "optimizers": ["sgd"],
        "lr_schedule": "constant",
        "average": "none",
        "batch_size": 32,
        "sharding": "iid",
        "num_parameters": 26_122,
        "methods": list(plan.methods),
        "chosen": {method: {"optimizer": "sgd", "options": "", "lr": METHODS[method][4]} for method in plan.methods},
        "dense": ["sgd"],
        "overlap": "ddp",
        "codec_s": {method: [0.002, 0.001] for method in plan.methods if method != "sgd"},
        "notes": ["A note about <this> comparison."],
        "something_new": 1,
    } | dict(plan.changes)
    (path / "comparison.json").write_text(json.dumps(comparison))
    (path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in results))
    (path / "tuning.jsonl").write_text("".join(json.dumps(r) + "\n" for r in tuning))
    return Folder(path=path, comparison=comparison, results=results)


def _run(plan: Plan, method: str, seed: int) -> list[dict[str, Any]]:
    message, link, final, slowness, lr = METHODS[method]
    records = []
    for index in range(EVALUATIONS):
        step = round(index * STEPS / (EVALUATIONS - 1))
        grown = 1 - math.exp(-step / slowness)
        wobble = 0.006 * math.sin(7 * seed + 1.3 * index) * grown * math.exp(-step / 300)
        accuracy = 0.1 + (final - 0.1) * grown + wobble + 0.002 * seed * grown
        value: float | None = plan.value(accuracy, method)
        loss: float | None = 2.3 * (1 - accuracy) / 0.9
        if seed in plan.diverges.get(method, ()) and index >= 8:
            value, loss = None, math.nan
        num_bytes = message * step * (1 + 0.01 * seed)
        records.append(
            {
                "method": method,
                "task": "digits",
                "engine": "simulate",
                "workers": 8,
                "seed": seed,
                "step": step,
                "epoch": step * 256 / 1437,
                "seconds": step * (0.025 + message * link / 12.5e6),
                "message_bytes": num_bytes,
                "bytes_sent": num_bytes * link / 2,
                "bytes_received": num_bytes * link / 2,
                "memory_norm": 0.0 if method == "sgd" else accuracy,
                "local_drift": 2 * accuracy if "every" in method and step else 0.0,
                "virtual_distance": None,
                "loss": loss,
                "metric": "accuracy",
                "value": value,
                "optimizer": "sgd",
                "options": "",
                "lr": lr,
            }
        )
    return records

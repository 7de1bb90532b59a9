"""What compressing takes, measured for every method of the catalog."""

import time
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from thinwire.compressors import Traits
from thinwire.exchanges import Gather
from thinwire.experiments.codec import Spent, measure_codecs
from thinwire.experiments.tasks import load_task
from thinwire.layout import Segments
from thinwire.methods import CATALOG, Every, GradientAveraging, Method, ModelAveraging, parse_method
from thinwire.payloads import Dense
from thinwire.random import Key
from thinwire.steps import Steps, compute

QUICK = {
    name: f"{name}:every=4" for name in ("diloco", "streaming-diloco", "sparseloco", "muloco", "des-loc", "dilocox")
}  # fmt: skip


@pytest.mark.parametrize("name", [row.name for row in CATALOG])
def test_every_method_is_measured(name: str) -> None:
    method = parse_method(QUICK.get(name, name))
    lead, other = measure_codecs(load_task("digits"), {name: (method, "adam" if name == "des-loc" else "sgd")}, 3)[name]
    assert min(lead, other) >= 0.0
    assert max(lead, other) < 1.0
    if method == GradientAveraging():
        assert lead == other == 0.0


@dataclass(frozen=True)
class Slow:
    """Exact messages, each after some seconds of the processor."""

    seconds: float

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Dense:
        begin = time.thread_time()
        while time.thread_time() < begin + self.seconds:
            pass
        return Dense(x.clone())

    def outline(self, segments: Segments) -> Dense:
        return Dense(torch.empty(segments.numel, dtype=torch.float32, device="meta"))

    def traits(self, numel: int) -> Traits:
        return Traits(unbiased=True, error=0.0, linear=True)


def test_what_a_compressor_takes_is_measured() -> None:
    """Of both workers, whichever the optimizer; a method beside it is not charged for it."""
    slow = GradientAveraging(compressor=Slow(0.05), exchange=Gather())
    rare = ModelAveraging(compressor=Slow(0.05), exchange=Gather(), schedule=Every(3))
    methods: dict[str, tuple[Method, str]] = {
        "slow": (slow, "sgd"), "rare": (rare, "adamw"), "quick": (replace(slow, compressor=Slow(0.0)), "sgd"),
    }  # fmt: skip
    found = measure_codecs(load_task("digits"), methods, 2)
    for name in ("slow", "rare"):
        assert min(found[name]) > 0.04
    assert max(found["quick"]) < min(found["slow"])


def test_what_a_program_spends_is_its_own() -> None:
    def busy(count: int) -> Steps[int]:
        total = 0
        for _ in range(3):
            total += sum(range(count))
            yield from compute(1.0)
        return total

    spent = Spent(2)
    ends = []
    for rank, count in enumerate((1, 300_000)):
        program = spent.timed(busy(count), rank)
        ops = []
        try:
            reply = None
            while True:
                ops.append(program.send(reply))
        except StopIteration as end:
            ends.append(end.value)
        assert len(ops) == 3
    assert ends == [0, 3 * sum(range(300_000))]
    assert spent.by_rank[1] > 10 * spent.by_rank[0] > 0.0

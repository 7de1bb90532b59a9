"""What is recorded of memories and local models, against sums over the workers' own tensors, and against bounds."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from thinwire.compressors import segment_traits
from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.health import Health, Squares
from thinwire.experiments.session import Session
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks.logreg import logreg
from thinwire.layout import Segments
from thinwire.methods import GradientAveraging, ModelAveraging, parse_method
from thinwire.network import Network
from thinwire.theory import local_memory_bound

SIZE, STEPS, LR = 4, 7, 0.5


def session(method: str, folder: Path, steps: int = STEPS) -> Session:
    comparison = Comparison(
        methods=(method,), task="logreg", workers=SIZE, lrs=(LR,), steps=steps, tune_steps=1, evaluate_every=1,
        batch_size=4,
    )  # fmt: skip
    run = Run(method, comparison.settings(method)[0], 0, "final", steps)
    return Session(comparison, run, logreg(400, 20), SimulatedEngine(SIZE, Network()), folder)


def norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def residuals(trained: Session) -> list[Tensor]:
    """Each worker's memory as one vector."""
    states = [worker.state_dict()["tensors"] for worker in trained.workers]
    return [torch.cat([state[name].flatten() for name in sorted(state) if "residual" in name]) for state in states]


@pytest.mark.parametrize("method", ["mem-sgd:k=1", "topk:k=3", "ef-sgd:k=3", "signtopk:k=2,every=3", "ef-signsgd"])
def test_norms_are_those_of_the_workers(method: str, tmp_path: Path) -> None:
    trained = session(method, tmp_path)
    (*_, last) = trained.records()
    memories = residuals(trained)
    assert last["memory_norm"] == pytest.approx(math.sqrt(sum(norm([each]) ** 2 for each in memories) / SIZE), rel=1e-6)
    unit = LR if isinstance(parse_method(method), GradientAveraging) else 1.0
    mean = torch.stack(memories).double().mean(0)
    assert last["virtual_distance"] == pytest.approx(unit * norm([mean]), rel=1e-5)
    assert last["memory_norm"] > 0.0
    moved = [
        [mine - worker.shared_parameters()[name] for name, mine in worker.parameters().items()]
        for worker in trained.workers
    ]
    assert last["local_drift"] == pytest.approx(math.sqrt(sum(norm(each) ** 2 for each in moved) / SIZE), rel=1e-6)
    assert (last["local_drift"] > 0.0) == ("every" in method)  # the seventh of steps that are shared by threes


def test_without_a_memory_there_is_nothing_to_tell(tmp_path: Path) -> None:
    first, *others = session("sgd", tmp_path).records()
    assert (first["memory_norm"], first["gradient_norm"], first["local_drift"]) == (0.0, 0.0, 0.0)
    for record in others:
        assert record["memory_norm"] == record["local_drift"] == record["virtual_distance"] == 0.0
        assert record["gradient_norm"] > 0.0


def test_processes_know_what_can_be_added_up() -> None:
    lead = Squares(
        memory=4.0, gradient=1.0, first_gradient=4.0, largest_gradient=3.0, drift=0.0, mean_memory=math.nan,
        relative_error=0.5,
    )  # fmt: skip
    other = Squares(12.0, 7.0, 1.0, 9.0, 2.0, math.nan, math.nan)
    found = Health.of([lead, other], 2)
    assert (found.memory_norm, found.gradient_norm, found.local_drift) == (math.sqrt(8.0), 2.0, 1.0)
    assert (found.first_gradient_norm, found.largest_gradient_norm, found.relative_error) == (2.0, 3.0, 0.5)
    assert math.isnan(found.virtual_distance)


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("density", ["5%", "20%", "60%"])
def test_memories_stay_under_their_bound(density: str, every: int, tmp_path: Path) -> None:
    """Basu et al. 2019, Lemma 4, with the largest gradient that was seen as G."""
    text = f"qsparse:density={density},values=signs,every={every},exchange=gather"
    method = parse_method(text)
    assert isinstance(method, ModelAveraging)
    records = list(session(text, tmp_path, steps=60).records())
    gamma = segment_traits(method.compressor, Segments.whole(20)).gamma
    # A mean over 400 rows of norm 1, each times a factor below 1, and the regulariser.
    gradient_norm = 1.0 + 1 / 400 * 30.0
    assert max(record["gradient_norm"] for record in records) <= gradient_norm
    bound = local_memory_bound(gamma=gamma, max_gap=every, lr=LR, gradient_norm=gradient_norm)
    largest: Any = max(record["memory_norm"] for record in records)
    assert 0.0 < largest <= math.sqrt(bound)

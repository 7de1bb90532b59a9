"""Methods that compress gradients, against their papers' recursions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from method_cases import OPTIMIZERS, Crew, backward, bits, data_parallel, flat, saved
from torch import Tensor, nn

from thinwire.compressors import DCT, GSpar, OneBit, Sign, TernGrad, Threshold, TopK
from thinwire.errors import ConfigError
from thinwire.exchanges import Gather, ParameterServer, VarianceScaled
from thinwire.layout import PerTensor, Segments
from thinwire.memory import EF21, ErrorFeedback, Memory
from thinwire.methods import CATALOG, Every, GradientAveraging, ModelAveraging, parse_method
from thinwire.methods.warm_up import WarmUp
from thinwire.random import Key
from thinwire.wire import decode, encode
from thinwire.worker import needs_server

LR = 0.1


def gradients(crew: Crew, step: int) -> Tensor:
    """Every worker's gradient at its own parameters: ``[size, d]``."""
    found = []
    for rank, model in enumerate(crew.models):
        backward(model, rank, step)
        found.append(torch.cat([param.grad.reshape(-1) for param in model.parameters() if param.grad is not None]))
    return torch.stack(found)


@pytest.mark.parametrize("size", [1, 3])
def test_deep_gradient_compression_at_full_density(size: int) -> None:
    """Factor masking stops every velocity: SGD. Without it the velocities go on: SGD with momentum."""
    for options, momentum, nesterov in (
        ("", 0.0, False),
        (",masking=no", 0.9, False),
        (",masking=no,nesterov=yes", 0.9, True),
    ):
        crew = Crew(parse_method("dgc:density=100%" + options), size).run(6)

        def stepper(params: Any, momentum: float = momentum, nesterov: bool = nesterov) -> torch.optim.Optimizer:
            return torch.optim.SGD(params, lr=LR, momentum=momentum, nesterov=nesterov)

        expected = data_parallel(size, 6, stepper)
        for model in crew.models:
            torch.testing.assert_close(flat(model), expected, rtol=1e-5, atol=1e-6)
    crew = Crew(parse_method("dgc:density=100%"), size, OPTIMIZERS["momentum"]).run(6)
    assert bits(flat(crew.models[0])) == bits(data_parallel(size, 6, OPTIMIZERS["momentum"]))


def test_the_ladder_sends_less_at_every_rung() -> None:
    crew = Crew(parse_method("dgc:warmup=2,granularity=whole"), 2)
    counts = []
    for _ in range(12):
        before = saved(crew.workers[0], "memory.residual")
        crew.step()
        after = saved(crew.workers[0], "memory.residual")
        counts.append(int((after == 0).sum()))
        assert after.shape == before.shape
    # 25 %, 6.25 %, 1.56 %, 0.4 % and 0.1 % of 47 entries, at least one.
    assert counts == [12, 12, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1]


def test_a_gradient_is_clipped_before_it_is_remembered() -> None:
    size, clip = 4, 0.05
    crew = Crew(parse_method(f"dgc:clip={clip},density=100%"), size)
    before = flat(crew.models[0])
    each = gradients(crew, 0)
    each *= torch.clamp(clip / size**0.5 / each.norm(dim=1, keepdim=True), max=1.0)
    assert bool((each.norm(dim=1) < 0.0251).all())
    crew.step()
    torch.testing.assert_close(flat(crew.models[0]), before - LR * each.mean(dim=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("text", ["signsgd", "signsgd:exchange=gather", "signum", "signum:momentum=0.5"])
def test_steps_are_the_majority_of_signs(text: str) -> None:
    size, beta = 3, {"signsgd": 0.0, "signum:momentum=0.5": 0.5}.get(text.replace(":exchange=gather", ""), 0.9)
    crew = Crew(parse_method(text), size)
    means: np.ndarray = np.zeros((size, 47), np.float32)
    for step in range(6):
        before = flat(crew.models[0])
        each = gradients(crew, step).numpy()
        means = np.float32(beta) * means + np.float32(1 - beta) * each
        votes = np.where(means < 0, -1.0, 1.0).sum(axis=0)
        crew.step()
        torch.testing.assert_close(flat(crew.models[0]), before - LR * torch.from_numpy(np.sign(votes)).float())


@pytest.mark.parametrize(
    "text",
    ["ef-sgd:k=3", "ef-sgd:select=all,granularity=tensor", "ef-sgd:select=random,density=20%,values=signs",
     "aji-heafield:density=10%", "powersgd:rank=1"],
)  # fmt: skip
def test_the_model_is_the_virtual_iterate_and_the_mean_memory(text: str) -> None:
    """x - virtual = lr * mean_r m while lr is constant: the memory is in units of a gradient."""
    crew = Crew(parse_method(text), 3)
    virtual = flat(crew.models[0]).double()
    for step in range(15):
        virtual -= LR * gradients(crew, step).double().mean(dim=0)
        crew.step()
        memory = torch.stack([saved(worker, "memory.residual") for worker in crew.workers]).double().mean(dim=0)
        found = flat(crew.models[0]).double() - virtual
        assert float((found - LR * memory).norm()) <= 1e-6 * float(virtual.norm())
        assert float(memory.norm()) > 1e-3


def test_demo_steps_by_the_sign_of_what_left_the_momentum() -> None:
    size, decay = 2, 0.5
    crew = Crew(parse_method(f"demo:k=4,side=4,decay={decay}"), size)
    momenta = [torch.zeros(47) for _ in range(size)]
    compressor, segments = DCT(values=TopK(k=4), side=4), Segments.uniform(47, 16)
    for step in range(5):
        before = flat(crew.models[0])
        each = gradients(crew, step)
        total = torch.zeros(47)
        for rank in range(size):
            momenta[rank] = decay * momenta[rank] + each[rank]
            sent = compressor.compress(momenta[rank], Key(0), segments).to_dense()
            momenta[rank] = momenta[rank] - sent
            total += sent
        crew.step()
        steps = (before - flat(crew.models[0])) / LR
        assert set(steps.round(decimals=3).abs().unique().tolist()) <= {0.0, 1.0}
        certain = total.abs() > 1e-5
        assert torch.equal(steps[certain].sign(), total[certain].sign())
        torch.testing.assert_close(saved(crew.workers[1], "memory.residual"), momenta[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "field", "part"),
    [
        ("ef-sgd:select=all", "compressor", Sign()),
        ("ef-sgd:k=3,values=signs", "compressor", TopK(k=3, values=Sign())),
        ("dgc:density=5%,warmup=7", "warm_up", WarmUp((TopK(density=0.25), TopK(density=0.0625)), 7)),
        ("dgc:density=25%", "warm_up", None),
        ("dgc:warmup=0", "warm_up", None),
        ("dgc:select=sample,density=2%", "compressor", Threshold(density=0.02, sample=0.01)),
        ("dgc:clip=2.5", "clip_norm", 2.5),
        ("terngrad:clip=inf,coding=entropy", "compressor", TernGrad(clip=None, coding="entropy")),
        ("terngrad:shared=no,exchange=server", "exchange", ParameterServer()),
        ("gspar:variance=1", "compressor", GSpar(variance=1.0)),
        ("gspar:variance=1,exchange=server", "exchange", VarianceScaled(ParameterServer(), ratio=2.0)),
        ("gspar:step=plain", "exchange", Gather()),
        ("1bit-sgd:granularity=tensor", "granularity", PerTensor()),
        ("1bit-sgd:exchange=gather", "exchange", Gather()),
        ("1bit-sgd", "compressor", OneBit()),
        ("demo:signed=no", "exchange", Gather()),
    ],
)
def test_options_reach_the_parts(text: str, field: str, part: object) -> None:
    method = parse_method(text)
    assert isinstance(method, GradientAveraging)
    assert getattr(method, field) == part


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ef-sgd:select=all,density=1%", "leave out density and k"),
        ("gspar:density=1%,variance=1", "not both"),
        ("gspar:variance=0", "above 0"),
        ("dgc:momentum=1", "below 1"),
        ("dgc:momentum=0,nesterov=yes", "no effect"),
        ("dgc:clip=0", "above 0"),
        ("signum:momentum=-1", "from 0"),
        ("terngrad:clip=0", "above 0"),
        ("powersgd:rank=0", "1 or more"),
        ("demo:side=300", "1 to 256"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_method(text)


# Error feedback and EF21 where workers differ: nonconvex logistic regression, sorted by label, full gradients.


def logistic(size: int = 4, numel: int = 12, count: int = 160) -> Callable[[Tensor], Tensor]:
    """Every worker's gradient ``[size, d]`` of logistic loss and ``0.1 sum x^2 / (1 + x^2)``; labels are not mixed."""
    generator = torch.Generator().manual_seed(11)
    features = torch.randn(count, numel, generator=generator, dtype=torch.float64)
    score = features @ torch.randn(numel, generator=generator, dtype=torch.float64)
    labels = torch.where(score + torch.randn(count, generator=generator, dtype=torch.float64) > 0, 1.0, -1.0)
    order = labels.argsort()
    rows = (features * labels.unsqueeze(1))[order].view(size, -1, numel)

    def gradient(x: Tensor) -> Tensor:
        x = x.double()
        each = -(rows * torch.sigmoid(-(rows @ x)).unsqueeze(2)).mean(dim=1)
        return each + 0.1 * 2 * x / (1 + x * x).square()

    return gradient


def descend(memory: Memory, num_steps: int) -> list[float]:
    """Norms of the full gradient under top-1 and a constant step, by memory and payloads as workers use them."""
    gradient = logistic()
    x = torch.zeros(12)
    states = [memory.init(torch.zeros(12)) for _ in range(4)]
    estimate = torch.zeros(12)
    norms = []
    for step in range(num_steps):
        each = gradient(x)
        norms.append(float(each.mean(dim=0).norm()))
        mean = torch.zeros(12)
        for rank in range(4):
            vector = each[rank].float()
            sent, states[rank] = memory.compress(vector, TopK(k=1), Key(step), Segments.whole(12), states[rank])
            decode(encode(sent)).add_to(mean, 0.25)
        if isinstance(memory, EF21):
            mean = estimate.add_(mean)
        x = x - 0.5 * mean
    return norms


def test_ef21_goes_below_the_floor_at_which_error_feedback_stalls() -> None:
    plain, estimated = descend(ErrorFeedback(), 300), descend(EF21(), 300)
    assert plain[0] == estimated[0] > 0.1
    # Error feedback sends in turns what differs between workers, and never comes to rest.
    assert min(plain) > 0.01
    assert float(np.mean(plain[200:])) > 0.5 * float(np.mean(plain[100:200]))
    assert estimated[-1] < 1e-5


class Field(nn.Module):
    """A matrix and a vector whose gradients are whatever they are given."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(5, 6))
        self.vector = nn.Parameter(torch.zeros(6))


# Whose memory takes a tenth of what is new at a time, comes to rest in ten rounds of all entries, so these are short.
SLOW = {"scalecom": "scalecom:density=20%"}
REMEMBERING = [
    f"{row.name}:warmup=5" if "warmup" in row.options else SLOW.get(row.name, row.name)
    for row in CATALOG
    if "residual" in parse_method(row.name).memory.init(torch.zeros(2))
]


@pytest.mark.parametrize("text", REMEMBERING)
def test_a_memory_of_unlike_shards_does_not_grow_for_ever(text: str) -> None:
    """Gradients that differ between workers by more than they have in common; what waits is sent in its turn."""
    method = parse_method(text)
    if needs_server(method):
        pytest.skip("its workers run on clocks of their own, the memory is the same")
    if isinstance(method, ModelAveraging):
        method = replace(method, schedule=Every(1))
    size, steps = 3, 160
    crew = Crew(method, size, lambda params: torch.optim.SGD(params, lr=0.1), Field)
    generator = torch.Generator().manual_seed(2)
    apart = torch.randn(size, 36, generator=generator)
    norms = []
    for _ in range(steps):
        common = torch.randn(36, generator=generator)
        for model, own in zip(crew.models, apart, strict=True):
            matrix, vector = torch.split(own + 0.1 * common, [30, 6])
            model.matrix.grad, model.vector.grad = matrix.view(5, 6).clone(), vector.clone()
        crew.simulation.run([worker.step() for worker in crew.workers])
        norms.append(max(worker.memory_norm() for worker in crew.workers))
    # What grows with every step is 2.1 times as large at the end.
    assert np.mean(norms[140:]) <= 1.5 * np.mean(norms[60:80]) + 1e-6

"""Muon for a whole model: the formulas of its two halves, and one optimizer to all who look at it."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from method_cases import Crew, backward, bits, flat, small_model
from numpy.typing import NDArray
from torch import nn

from thinwire.errors import ConfigError
from thinwire.experiments.optimizers import make_optimizer
from thinwire.methods import parse_method
from thinwire.optimizers import Muon, hidden_matrices

Array = NDArray[np.float64]


def newton_schulz(matrix: Array, steps: int) -> Array:
    """The quintic of Jordan et al. 2024, which brings singular values from (0, 1] near 1."""
    x = matrix / max(float(np.linalg.norm(matrix)), 1e-7)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("match_rms", [False, True])
@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (5, 5)])
def test_matrices_move_by_newton_schulz_and_the_rest_by_adamw(
    shape: tuple[int, int], match_rms: bool, nesterov: bool
) -> None:
    lr, decay, mu, steps = 0.02, 0.1, 0.9, 50
    generator = np.random.default_rng(0)
    w, b = generator.standard_normal(shape), generator.standard_normal(4)
    matrix, vector = (nn.Parameter(torch.from_numpy(each).float()) for each in (w, b))
    optimizer = Muon([matrix, vector], lr=lr, weight_decay=decay, momentum=mu, nesterov=nesterov, match_rms=match_rms)
    buffer, m, v = np.zeros(shape), np.zeros(4), np.zeros(4)
    scale = 0.2 * np.sqrt(max(shape)) if match_rms else np.sqrt(max(1.0, shape[0] / shape[1]))
    for t in range(1, steps + 1):
        g, h = generator.standard_normal(shape), generator.standard_normal(4)
        matrix.grad, vector.grad = torch.from_numpy(g).float(), torch.from_numpy(h).float()
        optimizer.step()
        buffer = mu * buffer + (1 - mu) * g
        update = (1 - mu) * g + mu * buffer if nesterov else buffer
        w = (1 - lr * decay) * w - lr * scale * newton_schulz(update, 5)
        m, v = 0.9 * m + 0.1 * h, 0.999 * v + 0.001 * h**2
        b = (1 - lr * decay) * b - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        assert np.abs(vector.detach().numpy() - b).max() < 1e-5
        # torch iterates in bf16: 2^-8 of a step whose singular values are near 1.
        drift = np.linalg.norm(matrix.detach().double().numpy() - w, 2)
        assert drift < 0.05 * lr * scale * t


def test_steps_are_torchs_own_bit_for_bit() -> None:
    model, other = small_model(), small_model()
    first, *others = other.parameters()
    muon, adamw = (
        torch.optim.Muon([first], lr=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.01, weight_decay=0.1),
    )
    optimizer = make_optimizer("muon", model, lr=0.01)
    for step in range(5):
        backward(model, 0, step)
        backward(other, 0, step)
        for each in (optimizer, muon, adamw):
            each.step()
        assert bits(flat(model)) == bits(flat(other))


@pytest.mark.parametrize("way", ["state_dict", "deepcopy"])
def test_a_copy_goes_on_as_the_original(way: str) -> None:
    model = small_model()
    optimizer: Any = make_optimizer("muon:momentum=0.8", model, lr=0.01)
    for step in range(3):
        backward(model, 0, step)
        optimizer.step()
    if way == "deepcopy":
        twin, other = copy.deepcopy((model, optimizer))
    else:
        twin = copy.deepcopy(model)
        other = make_optimizer("muon", twin, lr=0.5)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(3, 6):
        for each, stepper in ((model, optimizer), (twin, other)):
            backward(each, 0, step)
            stepper.step()
        assert bits(flat(model)) == bits(flat(twin))


def test_schedulers_and_added_groups_reach_both_halves() -> None:
    model = small_model()
    params = list(model.parameters())
    optimizer = Muon(params[:2], lr=1.0)
    optimizer.add_param_group({"params": params[2:], "lr": 4.0})
    assert [group["rule"] for group in optimizer.param_groups] == ["muon", "adamw", "muon", "adamw"]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5, 2.0, 2.0]
    backward(model, 0, 0)
    optimizer.step()
    scheduler.step()
    assert len(optimizer.state) == 4


def test_what_is_no_hidden_matrix_is_adamws() -> None:
    words, out = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
    tied = nn.ModuleList([words, nn.Linear(4, 4), out])
    out.weight = words.weight
    assert [tuple(each.shape) for each in hidden_matrices(tied)] == [(4, 4)]
    optimizer = make_optimizer("muon", nn.Linear(3, 2), lr=0.1)
    assert [group["rule"] for group in optimizer.param_groups] == ["adamw"]
    with pytest.raises(ConfigError, match=r"shape \(3,\) was given to Muon"):
        Muon([], matrices=[torch.zeros(3)])


@pytest.mark.parametrize("text", ["sgd", "muloco:every=3,bits=2"])
def test_workers_train_with_it_and_resume_bit_for_bit(text: str) -> None:
    method = parse_method(text)
    whole = Crew(method, 3, lambda params: Muon(params, lr=0.02)).run(8)
    begun = Crew(method, 3, lambda params: Muon(params, lr=0.02)).run(4)
    resumed = Crew(method, 3, lambda params: Muon(params, lr=0.02))
    for old, new in zip(begun.workers, resumed.workers, strict=True):
        new.model.load_state_dict(old.model.state_dict())
        new.optimizer.load_state_dict(copy.deepcopy(old.optimizer.state_dict()))
        new.load_state_dict(old.state_dict())
    resumed.run(4)
    for one, other in zip(whole.models, resumed.models, strict=True):
        assert bits(flat(one)) == bits(flat(other))

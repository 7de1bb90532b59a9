"""States of the local optimizer that are averaged, each at its own period: local Adam and DES-LOC."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from method_cases import OPTIMIZERS, Crew, backward, bits, flat, small_model
from numpy.typing import NDArray
from torch import Tensor, nn

from thinwire.errors import ConfigError, NumericsError
from thinwire.exchanges import Gossip
from thinwire.exchanges.graphs import Ring
from thinwire.methods import Consensus, Every, ModelAveraging, SyncedState, parse_method
from thinwire.optimizers import Muon
from thinwire.worker import Worker
from thinwire.worker.rounds import Rounds
from thinwire.worker.synced import state_names

Array = NDArray[np.float64]
LR, BETA1, BETA2, EPS = 0.01, 0.9, 0.999, 1e-8


def moment(worker: Worker, name: str) -> Tensor:
    """The worker's state of all parameters that have it."""
    states = (worker.optimizer.state[param] for param in worker.model.parameters())
    return torch.cat([state[name].reshape(-1) for state in states if name in state])


def gradient(model: nn.Module, at: Array, rank: int, step: int) -> Array:
    """In f64, of the same batch as the worker's."""
    model = model.double()
    nn.utils.vector_to_parameters(torch.from_numpy(at.copy()), model.parameters())
    backward(model, rank, step)
    grads = [param.grad for param in model.parameters()]
    found: Array = torch.cat([grad.reshape(-1) for grad in grads if grad is not None]).numpy()
    return found


@pytest.mark.parametrize("periods", [(4, 4, 4), (2, 6, 12), (5, 3, 7)], ids=str)
def test_it_is_local_adam_whose_moments_are_averaged_at_their_own_periods(periods: tuple[int, int, int]) -> None:
    """Iacob et al. 2025 in plain numpy; with equal periods it is local Adam with averaged moments."""
    size = 3
    crew = Crew(parse_method("des-loc:every={},momentum={},variance={}".format(*periods)), size, OPTIMIZERS["adam"])
    x = np.stack([flat(model).double().numpy() for model in crew.models])
    m, v, reference = np.zeros_like(x), np.zeros_like(x), small_model()
    for t in range(1, 61):
        crew.step()
        for rank in range(size):
            g = gradient(reference, x[rank], rank, t - 1)
            m[rank], v[rank] = BETA1 * m[rank] + (1 - BETA1) * g, BETA2 * v[rank] + (1 - BETA2) * g**2
            x[rank] -= LR * (m[rank] / (1 - BETA1**t)) / (np.sqrt(v[rank] / (1 - BETA2**t)) + EPS)
        for values, period in zip((x, m, v), periods, strict=True):
            if t % period == 0:
                values[:] = values.mean(axis=0)
        for rank, worker in enumerate(crew.workers):
            assert np.abs(moment(worker, "exp_avg").double().numpy() - m[rank]).max() < 1e-6
            assert np.abs(moment(worker, "exp_avg_sq").double().numpy() - v[rank]).max() < 1e-6
            # What f32 rounds off a small gradient, Adam divides by it.
            assert np.abs(flat(worker.model).double().numpy() - x[rank]).max() < 1e-5
        for name, period in (("exp_avg", periods[1]), ("exp_avg_sq", periods[2])):
            assert (len({bits(moment(worker, name)) for worker in crew.workers}) == 1) == (t % period == 0)


def test_each_state_costs_a_vector_whenever_it_is_due_and_the_count_of_exchanges_is_the_models() -> None:
    crew = Crew(parse_method("des-loc:every=2,momentum=3,variance=4"), 2).run(12)
    numel = flat(crew.models[0]).numel()
    assert {worker.message_bytes for worker in crew.workers} == {4 * numel * (6 + 4 + 3)}
    assert {worker.num_exchanges for worker in crew.workers} == {6}


def test_without_states_nothing_is_different() -> None:
    plain = Crew(parse_method("local-sgd:every=3"), 3, OPTIMIZERS["adam"]).run(7)
    none = Crew(parse_method("des-loc:every=3,momentum=0,variance=0"), 3, OPTIMIZERS["adam"]).run(7)
    assert [bits(flat(model)) for model in plain.models] == [bits(flat(model)) for model in none.models]
    assert plain.simulation.traffic == none.simulation.traffic


def test_states_of_fragments_and_between_exchanges_resume_bit_for_bit() -> None:
    method = ModelAveraging(
        schedule=Every(2), fragments=3, delay=1, states=(SyncedState(names=("exp_avg",), every=3),)
    )  # fmt: skip
    whole, begun, resumed = (Crew(method, 3, OPTIMIZERS["adam"]) for _ in range(3))
    whole.run(11)
    begun.run(5)
    for old, new in zip(begun.workers, resumed.workers, strict=True):
        new.model.load_state_dict(old.model.state_dict())
        new.optimizer.load_state_dict(copy.deepcopy(old.optimizer.state_dict()))
        new.load_state_dict(old.state_dict())
    resumed.run(6)
    for one, other in zip(whole.workers, resumed.workers, strict=True):
        assert bits(flat(one.model)) == bits(flat(other.model))
        assert bits(moment(one, "exp_avg")) == bits(moment(other, "exp_avg"))
        assert one.message_bytes == other.message_bytes


def test_what_matrices_and_others_call_their_momentum_is_averaged_alike() -> None:
    crew = Crew(parse_method("local-sgd"), 1)  # Muon is given below, which has no second moment of matrices
    method = ModelAveraging(states=(SyncedState(names=("exp_avg", "momentum_buffer"), every=2),))
    models = [small_model() for _ in range(2)]
    workers = [
        Worker(method, model, Muon(model.parameters(), lr=0.01), rank=rank, size=2, seed=0)
        for rank, model in enumerate(models)
    ]
    simulation = type(crew.simulation)(2)
    for step in range(4):
        for rank, model in enumerate(models):
            backward(model, rank, step)
        simulation.run([worker.step() for worker in workers])
        for name in ("exp_avg", "momentum_buffer"):
            assert (bits(moment(workers[0], name)) == bits(moment(workers[1], name))) == (step % 2 == 1)


def test_a_parameter_that_made_no_step_on_one_worker_counts_as_zeros_there() -> None:
    crew = Crew(parse_method("des-loc:every=1,momentum=1,variance=1"), 2)
    for rank, model in enumerate(crew.models):
        backward(model, rank, 0)
    (first, *_) = crew.models[1].parameters()
    first.grad = None
    grad = next(crew.models[0].parameters()).grad
    assert grad is not None
    own = 0.1 * grad.clone()
    crew.simulation.run([worker.step() for worker in crew.workers])
    assert not crew.workers[1].optimizer.state.get(first)
    kept: Any = crew.workers[0].optimizer.state[next(crew.models[0].parameters())]["exp_avg"]
    assert torch.allclose(kept, own / 2)


def test_a_frozen_layer_leaves_the_states_too() -> None:
    crew = Crew(parse_method("des-loc:every=2,momentum=3,variance=3"), 2).run(4)
    for model in crew.models:
        for param in list(model.parameters())[:2]:
            param.requires_grad_(False)
            param.grad = None
    crew.run(8)
    assert len({bits(moment(worker, "exp_avg")[-12:]) for worker in crew.workers}) == 1


def test_nan_in_a_state_stops_all_workers_and_names_the_parameter() -> None:
    crew = Crew(parse_method("des-loc:every=8,momentum=2,variance=8"), 3).run(1)
    param = list(crew.models[1].parameters())[2]
    crew.workers[1].optimizer.state[param]["exp_avg"][0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"NaN or inf in the optimizer's exp_avg of at least one worker, in '2.wei"):
        crew.step()


def test_what_an_optimizer_keeps_is_known_before_its_first_step() -> None:
    model = small_model()
    params = list(model.parameters())
    for optimizer, names in (
        (torch.optim.SGD(params, lr=1.0), set()),
        (torch.optim.SGD(params, lr=1.0, momentum=0.5), {"momentum_buffer"}),
        (torch.optim.RMSprop(params), {"square_avg"}),
        (torch.optim.Adagrad(params), {"sum"}),
    ):
        before = bits(flat(model)), dict(optimizer.state)
        assert [set(each) for each in state_names(optimizer).values()] == [names] * 4
        assert (bits(flat(model)), dict(optimizer.state)) == before
    with pytest.raises(ConfigError, match="whether LBFGS has a state to be averaged could not be tried"):
        state_names(torch.optim.LBFGS(params))


def test_what_cannot_be_averaged_is_refused() -> None:
    method, model = parse_method("des-loc"), small_model()
    for momentum in (0.0, 0.9):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
        with pytest.raises(ConfigError, match="SGD has no exp_avg"):
            Worker(method, model, optimizer, rank=0, size=2, seed=0)
    worker = Worker(method, model, torch.optim.Adam(model.parameters()), rank=0, size=2, seed=0)
    with pytest.raises(ConfigError, match="optimizer's state, which cannot be proposed first"):
        Rounds(worker)
    with pytest.raises(ConfigError, match="who have no common mean"):
        ModelAveraging(exchange=Gossip(graph=Ring()), update=Consensus(), states=method.states)  # type: ignore[union-attr]
    for given in ({"names": (), "every": 1}, {"names": ("exp_avg",), "every": 0}):
        with pytest.raises(ConfigError, match=r"no name|every = 0"):
            SyncedState(**given)  # type: ignore[arg-type]

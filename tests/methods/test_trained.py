"""What is trained changes in mid-training: frozen, unfrozen, unused, added, replaced and loaded parameters."""

import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from method_cases import CATALOGUE, Crew, backward, bits, flat, small_model, suited
from torch import Tensor, nn

from thinwire import Simulation, Worker
from thinwire.errors import ConfigError, NumericsError
from thinwire.methods import GradientAveraging, ModelAveraging, parse_method
from thinwire.worker import needs_server

FEW = {
    "demo": "demo:k=2", "diloco": "diloco:every=3", "streaming-diloco": "streaming-diloco:every=2,fragments=2",
    "sparseloco": "sparseloco:every=2", "muloco": "muloco:every=3", "des-loc": "des-loc:every=2",
    "dilocox": "dilocox:every=2,rank=2",
}  # fmt: skip
"""With numbers for a small model and a short training."""

TELLING = [
    FEW.get(name, name)
    for name in CATALOGUE
    if parse_method(name).exchange.workers_agree and not needs_server(parse_method(name))
]
"""Under which workers can tell each other what they train."""


def first_layer(model: nn.Module) -> list[nn.Parameter]:
    assert isinstance(model, nn.Sequential)
    return list(model[0].parameters())


def freeze(crew: Crew, *, frozen: bool) -> None:
    for model in crew.models:
        for param in first_layer(model):
            param.requires_grad_(not frozen)
            param.grad = None


def momentum(params: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.1)


def layer(model: nn.Module) -> Tensor:
    return torch.cat([param.detach().reshape(-1).clone() for param in first_layer(model)])


def is_bound(crew: Crew) -> bool:
    """Whether the method keeps something by the index of parameters in the vector."""
    tensors = crew.workers[-1].state_dict()["tensors"] | crew.workers[0].state_dict()["tensors"]
    return any(name.split(".", 2)[2].startswith("#") for name in tensors if not name.startswith("pending."))


def owed(worker: Worker) -> dict[str, Tensor]:
    tensors = worker.state_dict()["tensors"]
    return {name: each.clone() for name, each in tensors.items() if name.startswith("memory.") and ".0." in name}


@pytest.mark.parametrize("name", TELLING)
def test_a_frozen_layer_stays_where_it_is_and_is_owed_what_it_was(name: str) -> None:
    crew = Crew(parse_method(name), 2, momentum).run(4)
    freeze(crew, frozen=True)
    if is_bound(crew):
        with pytest.raises(ConfigError, match="by the index of each parameter"):
            crew.run(4)
        return
    if "sparseloco" in name and "density=20%" in name:
        with pytest.raises(ConfigError, match="is not a contraction on segments of 12 entries"):
            crew.run(4)
        return
    while "0.weight" in crew.workers[0].layout.names:
        crew.step()  # what was trained before is still averaged, once
        assert crew.num_steps < 20
    held, debts = [layer(model) for model in crew.models], [owed(worker) for worker in crew.workers]
    crew.run(7)
    for model, worker, before, debt in zip(crew.models, crew.workers, held, debts, strict=True):
        assert bits(layer(model)) == bits(before)
        assert all(param.grad is None for param in first_layer(model))
        assert owed(worker).keys() == debt.keys()
        assert all(torch.equal(each, debt[key]) for key, each in owed(worker).items())
    if isinstance(crew.workers[0].method, GradientAveraging):
        assert bits(flat(crew.models[0])) == bits(flat(crew.models[1]))
    freeze(crew, frozen=False)
    crew.run(8)
    assert "0.weight" in crew.workers[0].layout.names


def reference(size: int, num_steps: int, act: Callable[[nn.Module, int], None]) -> nn.Module:
    """Plain data-parallel training of one model, in which ``act`` comes before each step; None stays None."""
    model = small_model()
    optimizer = momentum(model.parameters())
    for step in range(num_steps):
        act(model, step)
        sums: list[Tensor | None] = [None for _ in model.parameters()]
        for rank in range(size):
            backward(model, rank, step)
            for place, param in enumerate(model.parameters()):
                if param.grad is not None:
                    before = sums[place]
                    sums[place] = param.grad.clone() if before is None else before + param.grad
        for param, total in zip(model.parameters(), sums, strict=True):
            param.grad = None if total is None else total / size
        optimizer.step()
    return model


@pytest.mark.parametrize("size", [1, 2, 3])
def test_plain_averaging_is_data_parallel_training_while_layers_freeze_and_thaw(size: int) -> None:
    def act(model: nn.Module, step: int) -> None:
        for param in first_layer(model):
            param.requires_grad_(step < 2 or step >= 5)
            param.grad = None

    crew = Crew(parse_method("sgd"), size, momentum)
    for step in range(8):
        for model in crew.models:
            act(model, step)
        crew.step()
    expected = reference(size, 8, act)
    for model in crew.models:
        assert bits(flat(model)) == bits(flat(expected))


class Branches(nn.Module):
    """Which of two layers is used is the batch's matter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other, self.never = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)

    def loss(self, names: str, rank: int) -> Tensor:
        x = torch.full((1, 3), 1.0 + rank)
        return sum((getattr(self, name)(x).square().sum() for name in names.split()), torch.zeros(()))


@pytest.mark.parametrize("method", ["sgd", "topk:density=100%", "qsgd:bits=8", "signtopk:density=50%", "ef-signsgd"])
def test_what_nobody_used_gets_no_gradient_and_what_some_used_gets_the_mean(method: str) -> None:
    uses = [("one", "one other"), ("one", "one"), ("other", "one"), ("one", "one other"), ("one other", "one other")]
    product = parse_method(method)
    if not isinstance(product, GradientAveraging):
        product = GradientAveraging(memory=product.memory, compressor=product.compressor, exchange=product.exchange)
    models = [Branches() for _ in range(2)]
    workers = [
        Worker(product, model, momentum(model.parameters()), rank=rank, size=2, seed=0)
        for rank, model in enumerate(models)
    ]
    exact, stepper = Branches(), momentum(Branches().parameters())
    exact = Branches()
    stepper = momentum(exact.parameters())
    for step, used in enumerate(uses):
        before = {name: param.detach().clone() for name, param in models[0].named_parameters()}
        for rank, model in enumerate(models):
            model.zero_grad()
            model.loss(used[rank], rank).backward()
        Simulation(2).run([worker.step() for worker in workers])
        anybody = set(" ".join(used).split())
        for name, param in models[0].named_parameters():
            assert (param.grad is None) == (name.split(".")[0] not in anybody), (step, name)
            if param.grad is None:
                assert torch.equal(param, before[name])
        for mine, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
            assert torch.equal(mine, theirs)
        exact.zero_grad()
        (sum((exact.loss(used[rank], rank) for rank in range(2)), torch.zeros(())) / 2).backward()
        stepper.step()
    if method == "sgd":
        for mine, theirs in zip(models[0].parameters(), exact.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs)


def test_a_gradient_that_comes_and_goes_costs_no_more_rounds_after_a_while() -> None:
    models = [Branches() for _ in range(2)]
    workers = [
        Worker(parse_method("sgd"), model, momentum(model.parameters()), rank=rank, size=2, seed=0)
        for rank, model in enumerate(models)
    ]
    simulation = Simulation(2)
    sent = []
    for step in range(12):
        for rank, model in enumerate(models):
            model.zero_grad()
            model.loss(("one", "other")[(step + rank) % 2], rank).backward()
        before = simulation.traffic[0].bytes_sent
        simulation.run([worker.step() for worker in workers])
        sent.append(simulation.traffic[0].bytes_sent - before)
    assert sent[1] > sent[-1]
    assert len(set(sent[-5:])) == 1


@pytest.mark.parametrize("name", TELLING)
def test_values_loaded_by_all_are_where_training_goes_on(name: str) -> None:
    def still(params: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=0.0)

    crew = Crew(parse_method(name), 2, still).run(4)
    loaded = {key: torch.full_like(value, 3.0) for key, value in crew.models[0].state_dict().items()}
    exact = all(each.compressor_at(0).traits(8).error == 0.0 for each in [parse_method(name)])
    for model in crew.models:
        model.load_state_dict(loaded)
    crew.run(8)
    method = crew.workers[0].method
    pulls = isinstance(method, ModelAveraging)
    for model in crew.models:
        for key, value in model.state_dict().items():
            if pulls or exact:
                torch.testing.assert_close(value, loaded[key], rtol=1e-3, atol=1e-3)
    assert all(
        torch.equal(one, other)
        for one, other in zip(*(model.state_dict().values() for model in crew.models), strict=True)
    )


@pytest.mark.parametrize("name", TELLING)
def test_values_loaded_by_one_worker_alone_are_refused_by_all(name: str) -> None:
    crew = Crew(parse_method(name), 2)
    crew.models[1].load_state_dict({key: value + 1.0 for key, value in crew.models[1].state_dict().items()})
    with pytest.raises(ConfigError, match=r"differ in the initial parameters|written|come apart"):
        crew.run(8)


def test_a_write_between_exchanges_that_only_some_made_is_their_own_work_and_said_once() -> None:
    crew = Crew(parse_method("local-sgd:every=4"), 2).run(6)
    with torch.no_grad():
        next(crew.models[1].parameters()).add_(1.0)
    with pytest.warns(UserWarning, match="its own work|own work"):
        crew.run(2)
    assert bits(flat(crew.models[0])) == bits(flat(crew.models[1]))


def test_weights_that_are_swapped_out_and_back_are_no_write() -> None:
    crew, plain = Crew(parse_method("topk:density=20%,every=3"), 2), Crew(parse_method("topk:density=20%,every=3"), 2)
    for _ in range(9):
        for model in crew.models:
            own = {key: value.clone() for key, value in model.state_dict().items()}
            model.load_state_dict({key: torch.zeros_like(value) for key, value in own.items()})
            model.load_state_dict(own)
        crew.step()
        plain.step()
    for one, other in zip(crew.models, plain.models, strict=True):
        assert bits(flat(one)) == bits(flat(other))


def train(workers: list[Worker], num_steps: int) -> None:
    simulation = Simulation(len(workers))
    for step in range(num_steps):
        for worker in workers:
            backward(worker.model, worker.rank, step)
        simulation.run([worker.step() for worker in workers])


@pytest.mark.parametrize("name", TELLING)
def test_workers_that_do_not_begin_alike_are_refused(name: str) -> None:
    method = parse_method(name)

    def crew(seeds: tuple[int, int], shift: float) -> list[Worker]:
        models = [small_model() for _ in range(2)]
        with torch.no_grad():
            next(models[1].parameters()).add_(shift)
        return [
            Worker(method, model, suited(method, momentum)(model.parameters()), rank=rank, size=2, seed=seeds[rank])
            for rank, model in enumerate(models)
        ]

    for workers, what in ((crew((0, 1), 0.0), "seed"), (crew((0, 0), 1.0), "initial parameters")):
        with pytest.raises(ConfigError, match=f"the workers differ in .*{what}"):
            train(workers, 8)


def test_numpy_integers_are_integers() -> None:
    def trained(convert: Callable[[int], int]) -> bytes:
        models = [small_model() for _ in range(2)]
        workers = [
            Worker(
                parse_method("qsgd:bits=2"), model, momentum(model.parameters()), rank=convert(rank), size=convert(2),
                seed=convert(3),
            )
            for rank, model in enumerate(models)
        ]  # fmt: skip
        for worker in workers:
            backward(worker.model, worker.rank, 0)
        Simulation(2).run([worker.step() for worker in workers])
        return bits(flat(models[0]))

    assert trained(int) == trained(np.int64)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sgd", "topk:density=20%", "local-sgd:every=3", "diloco:every=2", "signtopk:every=3"])
def test_a_layer_that_is_added_or_replaced_joins_on_all_workers(name: str) -> None:
    crew = Crew(parse_method(name), 2, momentum).run(3)
    for model, worker in zip(crew.models, crew.workers, strict=True):
        assert isinstance(model, nn.Sequential)
        torch.manual_seed(7)
        model[2] = nn.Linear(5, 2)  # in place of one
        worker.optimizer.param_groups[0]["params"][2:] = list(model[2].parameters())
        model.append(nn.Linear(2, 2))
        worker.optimizer.add_param_group({"params": model[3].parameters()})
    begun = flat(crew.models[0].get_submodule("3"))
    crew.run(6)
    for model, worker in zip(crew.models, crew.workers, strict=True):
        assert "3.weight" in worker.layout.names
        assert worker.parameters()["2.weight"] is model.get_parameter("2.weight")
    for one, other in zip(*(worker.shared_parameters().values() for worker in crew.workers), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(flat(crew.models[0].get_submodule("3")), begun)


def test_layers_that_differ_are_refused_by_all() -> None:
    for name in ("sgd", "local-sgd:every=3"):
        crew = Crew(parse_method(name), 2).run(3)
        for rank, (model, worker) in enumerate(zip(crew.models, crew.workers, strict=True)):
            assert isinstance(model, nn.Sequential)
            torch.manual_seed(rank)
            model.append(nn.Linear(2, 2))
            worker.optimizer.add_param_group({"params": model[3].parameters()})
        with pytest.raises(ConfigError, match=r"different values of parameters that join.*3\.weight"):
            crew.run(3)
        crew = Crew(parse_method(name), 2).run(3)
        first_layer(crew.models[1])[0].requires_grad_(False)
        with pytest.raises(ConfigError, match=r"train different parameters, such as '0\.weight'"):
            crew.run(3)


@pytest.mark.parametrize(
    "name", ["sgd", "topk:density=20%", "signtopk:density=20%,every=3", "diloco:every=2", "powersgd:rank=1"]
)
def test_a_state_with_frozen_layers_goes_on_with_the_same_bits(name: str) -> None:
    method = parse_method(name)

    def trained(cut: int | None) -> Crew:
        crew = Crew(method, 2, momentum)
        for step in range(14):
            if step in (4, 9):
                freeze(crew, frozen=step == 4)
            if step == cut:
                states = [(worker.state_dict(), worker.optimizer.state_dict()) for worker in crew.workers]
                buffer = io.BytesIO()
                torch.save((states, [model.state_dict() for model in crew.models], crew.num_steps), buffer)
                buffer.seek(0)
                states, models, num_steps = torch.load(buffer, weights_only=True)
                crew = Crew(method, 2, momentum)
                freeze(crew, frozen=4 <= step < 9)
                for worker, state in zip(crew.workers, states, strict=True):
                    worker.load_state_dict(state[0])
                    worker.optimizer.load_state_dict(state[1])
                for model, state in zip(crew.models, models, strict=True):
                    model.load_state_dict(state)
                crew.num_steps = num_steps
            crew.step()
        return crew

    whole = trained(None)
    for cut in (3, 7, 8, 11):
        resumed = trained(cut)
        for one, other in zip(whole.models, resumed.models, strict=True):
            assert bits(flat(one)) == bits(flat(other)), cut


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_last_exchange_leaves_nothing_unshared(name: str) -> None:
    method = parse_method(name)
    if needs_server(method):
        return
    crew = Crew(method, 2).run(5)
    crew.simulation.run([worker.finish() for worker in crew.workers])
    assert all(worker.num_unshared_steps == 0 for worker in crew.workers)
    counts = [worker.num_exchanges for worker in crew.workers]
    crew.simulation.run([worker.finish() for worker in crew.workers])
    assert [worker.num_exchanges for worker in crew.workers] == counts
    crew.run(5)


def test_what_was_done_after_the_last_exchange_is_shared_in_the_end() -> None:
    crew = Crew(parse_method("local-sgd:every=16"), 3).run(15)
    own = torch.stack([flat(model) for model in crew.models]).double().mean(dim=0)
    crew.simulation.run([worker.finish() for worker in crew.workers])
    for model in crew.models:
        torch.testing.assert_close(flat(model).double(), own, rtol=1e-5, atol=1e-6)


def test_sparse_gradients_are_averaged_as_dense_ones() -> None:
    found = {}
    for sparse in (False, True):
        torch.manual_seed(0)
        models = [nn.Embedding(9, 4, sparse=sparse) for _ in range(2)]
        models[1].load_state_dict(models[0].state_dict())
        workers = [
            Worker(
                parse_method("qsgd:bits=4"),
                model,
                torch.optim.SGD(model.parameters(), lr=0.1),
                rank=rank,
                size=2,
                seed=0,
            )
            for rank, model in enumerate(models)
        ]
        for _ in range(3):
            for rank, model in enumerate(models):
                model.zero_grad()
                model(torch.tensor([1 + rank, 2])).square().sum().backward()
            Simulation(2).run([worker.step() for worker in workers])
        found[sparse] = bits(flat(models[0]))
    assert found[True] == found[False]
    model = nn.Embedding(9, 4, sparse=True)
    with pytest.raises(ConfigError, match="SparseAdam takes sparse gradients"):
        Worker(parse_method("sgd"), model, torch.optim.SparseAdam(model.parameters()), rank=0, size=1, seed=0)


def test_the_error_of_a_gradient_that_is_not_finite_names_it_on_all_workers() -> None:
    for name in ("sgd", "topk:density=20%", "local-sgd:every=1"):
        crew = Crew(parse_method(name), 2).run(2)
        for rank, model in enumerate(crew.models):
            backward(model, rank, 2)
        param = crew.models[1].get_parameter("2.bias")
        assert param.grad is not None
        (param.grad if name == "sgd" or "topk" in name else param.data).fill_(torch.nan)
        with pytest.raises(NumericsError, match=r"'2\.bias'"):
            crew.simulation.run([worker.step() for worker in crew.workers])

"""Workers on clocks of their own: what is conserved, what repeats, and who waits for whom."""

import pytest
import torch
from method_cases import OPTIMIZERS, backward, bits, flat, saved, small_model
from torch import Tensor

from thinwire.compressors import QSGD, TopK
from thinwire.errors import ConfigError, NumericsError
from thinwire.exchanges import AsynchronousServer, Gather
from thinwire.machines import Machines
from thinwire.memory import ErrorFeedback
from thinwire.methods import ElasticFollow, Every, Follow, Method, ModelAveraging, parse_method
from thinwire.network import Network
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.steps import Steps, compute
from thinwire.worker import Server, Worker

LR = 0.1
UNEVEN = Machines(0.01, jitter=0.3, slow=((0, 3.0),))


class Farm:
    """Workers, a server and a simulation; what each worker's steps moved its own parameters by."""

    def __init__(self, method: Method, size: int, machines: Machines = UNEVEN, network: Network | None = None) -> None:
        self.workers = [self.worker(method, rank, size) for rank in range(size)]
        self.server = Server(method, small_model(), size=size)
        self.simulation = Simulation(size + 1, network)
        self.machines = machines
        self.moved = torch.zeros(flat(small_model()).numel(), dtype=torch.float64)
        self.order: list[int] = []
        self.ahead = 0

    def worker(self, method: Method, rank: int, size: int) -> Worker:
        model = small_model()
        return Worker(method, model, OPTIMIZERS["plain"](model.parameters()), rank=rank, size=size, seed=5)

    def run(self, num_messages: int) -> "Farm":
        until = self.server.num_merged + num_messages
        self.simulation.run([*(self.train(worker) for worker in self.workers), self.server.serve(until)])
        return self

    def train(self, worker: Worker) -> Steps[None]:
        while True:
            backward(worker.model, worker.rank, worker.num_steps)
            gradient = [p.grad.reshape(-1).double() for p in worker.model.parameters() if p.grad is not None]
            self.moved -= LR * torch.cat(gradient)
            yield from compute(self.machines.seconds(Key(3), worker.rank, worker.num_steps))
            before = worker.num_exchanges
            yield from worker.step()
            if worker.num_exchanges > before:
                self.order.append(worker.rank)
                counts = [each.num_exchanges for each in self.workers]
                self.ahead = max(self.ahead, max(counts) - min(counts))
                if worker.is_paused:
                    return

    def models(self) -> list[Tensor]:
        return [flat(worker.model).double() for worker in self.workers]

    def centre(self) -> Tensor:
        return torch.cat([each.reshape(-1) for each in self.server.shared_parameters().values()]).double()


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(
    "text", ["qsparse-async:density=20%", "qsparse-async:values=signs,density=10%", "local-sgd-async:"]
)
def test_the_servers_model_is_the_virtual_iterate_and_what_is_still_with_the_workers(text: str, every: int) -> None:
    """master - virtual = mean_r (m + x^(r) - xhat), where the virtual iterate takes every gradient over P."""
    size = 3
    farm = Farm(parse_method(text + ("" if text.endswith(":") else ",") + f"every={every}"), size)
    start = farm.centre()
    for _ in range(8):
        farm.run(5)
        held = torch.zeros_like(start)
        for worker, model in zip(farm.workers, farm.models(), strict=True):
            held += saved(worker, "update.reference").double() - model
            if "residual" in worker.channels[0].memory:
                held += saved(worker, "memory.residual").double()
        virtual = start + farm.moved / size
        assert float((farm.centre() - virtual - held / size).norm()) <= 2e-6 * float(start.norm())
    assert float(farm.moved.norm()) > 0.1
    assert farm.server.max_staleness > 1


def test_elastic_workers_and_centre_move_towards_each_other_and_keep_their_sum() -> None:
    farm = Farm(parse_method("easgd-async:every=2"), 4)
    total = farm.centre() + sum(farm.models())
    apart = []
    for _ in range(6):
        farm.run(7)
        now = farm.centre() + sum(farm.models())
        assert float((now - total - farm.moved).norm()) <= 1e-5 * float(total.norm())
        apart.append(max(float((model - farm.centre()).norm()) for model in farm.models()))
    assert max(apart) > 1e-3


@pytest.mark.parametrize(
    "text", ["qsparse-async:every=2,density=20%", "easgd-async:every=2", "local-sgd-async:staleness=1"]
)
def test_a_simulation_replays_from_its_seed_and_other_clocks_give_another_run(text: str) -> None:
    first, second = (Farm(parse_method(text), 3).run(20) for _ in range(2))
    assert first.order == second.order
    assert bits(first.centre()) == bits(second.centre())
    assert first.simulation.clocks == second.simulation.clocks
    other = Farm(parse_method(text), 3, machines=Machines(0.01, slow=((2, 3.0),))).run(20)
    assert other.order != first.order
    assert bits(other.centre()) != bits(first.centre())


def test_equal_clocks_take_turns_and_one_that_is_slow_holds_up_nobody() -> None:
    farm = Farm(parse_method("local-sgd-async:every=2"), 4, machines=Machines(1.0)).run(8)
    assert farm.order[:8] == [0, 1, 2, 3, 0, 1, 2, 3]
    slow = Farm(parse_method("local-sgd-async:every=2"), 4, machines=Machines(1.0, slow=((0, 100.0),)))
    slow.server.serve(0)
    slow.run(30)
    # Three workers make the 30 messages within 10 rounds of 2 s; worker 0's first one comes at 200 s.
    assert slow.simulation.clocks[1:4] == pytest.approx([20.0] * 3, abs=2.1)
    assert slow.order.count(0) == 1


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_nobody_is_further_ahead_than_the_bound(bound: int) -> None:
    machines = Machines(0.01, slow=((0, 6.0),))
    bounded = Farm(parse_method(f"local-sgd-async:every=2,staleness={bound}"), 3, machines).run(40)
    free = Farm(parse_method("local-sgd-async:every=2"), 3, machines).run(40)
    assert bounded.ahead <= bound + 1 < free.ahead
    assert max(bounded.simulation.clocks) > 1.5 * max(free.simulation.clocks[1:3])


def test_the_staleness_that_is_reported_is_what_was_merged_in_between() -> None:
    farm = Farm(parse_method("local-sgd-async:every=2"), 3).run(40)
    fetched, stale = [0] * 3, []
    # The order of answers is that of messages: each is answered at once.
    for number, rank in enumerate(farm.order):
        stale.append(number - fetched[rank])
        fetched[rank] = number + 1
    assert farm.server.num_merged == len(farm.order)
    assert farm.server.mean_staleness == pytest.approx(sum(stale) / len(stale))
    assert farm.server.max_staleness == max(stale)


def guarded(program: Steps[None]) -> Steps[str]:
    try:
        yield from program
    except NumericsError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize(
    "text", ["qsparse-async:density=20%", "easgd-async:every=1", "local-sgd-async:every=1,staleness=0"]
)
def test_nan_or_infinity_stops_the_server_and_every_worker(text: str) -> None:
    farm = Farm(parse_method(text), 3, machines=Machines(0.01)).run(6)
    merged = farm.server.num_merged

    def poisoned(worker: Worker) -> Steps[None]:
        while not worker.is_paused or worker.num_steps < 30:
            backward(worker.model, worker.rank, worker.num_steps)
            if worker.rank == 0:
                grad = worker.model.get_parameter("2.bias").grad
                assert grad is not None
                grad[1] = float("nan")
            yield from compute(0.01 if worker.rank == 0 else 0.02)
            yield from worker.step()

    programs = [*(poisoned(worker) for worker in farm.workers), farm.server.serve(1000)]
    told = farm.simulation.run([guarded(program) for program in programs])
    assert all("NaN or inf" in each for each in told)
    assert all("'2.bias'" in each for each in told[:3])
    # Worker 0's first message is not merged, nor is any after it.
    assert merged <= farm.server.num_merged <= merged + 2
    assert bool(farm.centre().isfinite().all())
    for worker in farm.workers:
        assert all(bool(tensor.isfinite().all()) for tensor in worker.state_dict()["tensors"].values())


def test_parts_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not go with exchange=Gather"):
        ModelAveraging(exchange=Gather(), update=Follow())
    with pytest.raises(ConfigError, match="have a server's side only"):
        ModelAveraging(exchange=AsynchronousServer())
    with pytest.raises(ConfigError, match="sends parameters as they are"):
        ModelAveraging(exchange=AsynchronousServer(), update=ElasticFollow(), compressor=QSGD(levels=3))
    with pytest.raises(ConfigError, match="fragments, delay and states have no meaning"):
        ModelAveraging(exchange=AsynchronousServer(), update=Follow(), fragments=2)
    with pytest.raises(ConfigError, match="a staleness of at most -1"):
        AsynchronousServer(-1)
    with pytest.raises(ConfigError, match=r"beta = 1\.5"):
        ElasticFollow(beta=1.5)
    with pytest.raises(ConfigError, match="has no server"):
        Server(parse_method("sgd"), small_model(), size=2)


def test_the_state_of_another_server_is_refused() -> None:
    method = ModelAveraging(
        schedule=Every(2), memory=ErrorFeedback(), compressor=TopK(k=3), exchange=AsynchronousServer(), update=Follow()
    )
    state = Server(method, small_model(), size=2).state_dict()
    for other, message in (
        (Server(method, small_model(), size=3), "size 2, but this server has size 3"),
        (Server(parse_method("easgd-async"), small_model(), size=2), "of method ModelAveraging"),
        (Server(method, torch.nn.Sequential(torch.nn.Linear(6, 5)), size=2), "of another model"),
    ):
        with pytest.raises(ConfigError, match=message):
            other.load_state_dict(state)


@pytest.mark.parametrize("bound", [None, 1])
def test_each_worker_leaves_after_its_own_number_of_messages(bound: int | None) -> None:
    """Also when the others waited for one that has left: nobody waits for what will never come."""
    method = parse_method("qsparse-async:density=20%,every=2" + ("" if bound is None else f",staleness={bound}"))
    farm = Farm(method, 3)
    quotas = [2, 5, 9]  # the slow one has the fewest

    def steps(worker: Worker, quota: int) -> Steps[None]:
        while worker.num_exchanges < quota:
            assert not worker.is_paused
            backward(worker.model, worker.rank, worker.num_steps)
            yield from compute(farm.machines.seconds(Key(3), worker.rank, worker.num_steps))
            yield from worker.step()

    programs = [steps(worker, quota) for worker, quota in zip(farm.workers, quotas, strict=True)]
    farm.simulation.run([*programs, farm.server.serve(sum(quotas), quotas)])
    assert farm.server.num_merged == sum(quotas)
    assert all(worker.is_paused for worker in farm.workers)

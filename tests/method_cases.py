"""Methods, optimizers and a crew of workers that the suites of the methods share."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from thinwire.exchanges import AllReduce, Gather, ParameterServer
from thinwire.methods import CATALOG, DirectedUpdate, GradientAveraging, Method, ModelAveraging, Outer
from thinwire.simulator import Simulation
from thinwire.steps import Steps, compute
from thinwire.worker import Server, Worker, needs_server

CATALOGUE = [
    *(row.name for row in CATALOG),
    "topk:density=20%,every=3",
    "signtopk:density=20%,every=3,granularity=tensor",
    "qsparse:select=random,density=20%,every=2",
    "qsparse:density=20%,values=signs,exchange=gather",
    "mem-sgd:select=random,k=0.5",
    "mem-sgd:density=10%,memory=none,exchange=server",
    "qsgd:bits=2,granularity=tensor,exchange=server",
    "ef-signsgd:every=2,exchange=server",
    "ef-signsgd:every=2,exchange=median",
    "qsgd:bits=4,exchange=trimmed",
    "post-local-sgd:switch=2,every=2",
    "qsparse:density=20%,every=3,gaps=random",
    "sparse-averaging:fragments=3",
    "sparq:density=20%,every=2,level=1",
    "noloco:every=2",
    "d-psgd:graph=exponential",
    "motef:density=20%,momentum=0.5",
    "easgd:every=2,beta=0.8,alpha=0.3",
    "diloco:every=2",
    "streaming-diloco:every=1,fragments=3,delay=2",
    "sparseloco:every=2,density=20%,mean=contributors,clip=median",
    "muloco:every=2,bits=2",
    "diloco:every=2,overlap=late",
    "diloco:every=2,overlap=eager",
    "diloco:every=2,weights=norm,max_norm=0.1",
    "dilocox:every=2,rank=1",
    "sparta:density=20%",
    "cocktailsgd:random=50%,density=40%,every=2",
    "des-loc:every=2,momentum=3,variance=4",
    "signtopk:density=20%,every=3,residual_dtype=bf16",
    "dgc:density=20%,residual_dtype=bf16",
    "ef21-plus:k=2,exchange=server",
    "01-adam:warmup=2,kappa=1,period=2,most=4",
    "1bit-adam:warmup=2",
    "1bit-adam:warmup=3,correct=yes,exchange=gather",
    "1bit-lamb:warmup=2",
    "signed-lion:step=mean,exchange=gather",
    "dion:rank=1",
    "dion2:share=40%",
]
EXCHANGES = (AllReduce(), Gather(), ParameterServer())

Optimizer = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "plain": lambda params: torch.optim.SGD(params, lr=0.1),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "nesterov and decay": lambda params: torch.optim.SGD(
        params, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
}


def suited(method: Method, optimizer: Optimizer) -> Optimizer:
    """The optimizer, or Adam for a method that averages what Adam remembers, or plain SGD for one that is Adam."""
    if isinstance(method, ModelAveraging) and isinstance(method.update, DirectedUpdate):

        def plain(params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
            held = list(params)
            return torch.optim.SGD(held, lr=min(optimizer(held).param_groups[0]["lr"], 0.01))

        return plain
    if not isinstance(method, ModelAveraging) or not method.states:
        return optimizer

    def adam(params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        held = list(params)
        rate = optimizer(held).param_groups[0]["lr"]
        return torch.optim.Adam(held, lr=min(rate, 0.01))

    return adam


class Crew:
    """Workers in a simulation on least squares through a small network; the batch depends on rank and step alone."""

    def __init__(
        self,
        method: Method,
        size: int,
        optimizer: Optimizer = OPTIMIZERS["plain"],
        model: Callable[[], nn.Module] | None = None,
    ) -> None:
        optimizer = suited(method, optimizer)
        self.models = [(model or small_model)() for _ in range(size)]
        self.workers = [
            Worker(method, model, optimizer(model.parameters()), rank=rank, size=size, seed=5)
            for rank, model in enumerate(self.models)
        ]
        self.server = Server(method, (model or small_model)(), size=size) if needs_server(method) else None
        self.simulation = Simulation(size + (self.server is not None))
        self.num_steps = 0

    def step(self) -> None:
        """One step of each worker; with a server, as many messages as that would send, and each worker's next one."""
        self.num_steps += 1
        if self.server is not None:
            programs = [self.until_paused(worker) for worker in self.workers]
            self.simulation.run([*programs, self.server.serve(self.num_messages())])
            return
        for rank, worker in enumerate(self.workers):
            backward(self.models[rank], rank, worker.num_steps)
        self.simulation.run([worker.step() for worker in self.workers])

    def num_messages(self) -> int:
        method = self.workers[0].method
        assert isinstance(method, ModelAveraging)
        steps = range(1, self.num_steps + 1)
        return sum(method.schedule.due(step, worker.rank) for worker in self.workers for step in steps)

    def until_paused(self, worker: Worker) -> Steps[None]:
        while True:
            backward(worker.model, worker.rank, worker.num_steps)
            yield from compute(1.0 + 0.1 * worker.rank)
            before = worker.num_exchanges
            yield from worker.step()
            if worker.num_exchanges > before and worker.is_paused:
                return

    def run(self, num_steps: int) -> "Crew":
        for _ in range(num_steps):
            self.step()
        return self


def ends_with_one_model(method: Method) -> bool:
    """Whether every worker holds the common model after each exchange: not if elastic, mixed, late, or in parts."""
    if not method.exchange.workers_agree or isinstance(method, GradientAveraging):
        return method.exchange.workers_agree
    at_once = method.fragments == 1 and method.delay == 0
    returns_point = isinstance(method.update, DirectedUpdate) or (
        isinstance(method.update, Outer) and method.update.mix == 0.0
    )
    return at_once and returns_point


def small_model() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=generator) * 0.5)
    return model


def backward(model: nn.Module, rank: int, step: int) -> None:
    """The gradient of a batch that depends on rank and step alone, with the same bits wherever the model lies.

    Of a model on a device it is computed on the CPU, of what the parameters hold, and written beside them: a device's
    own products, sums and tanh round in another way, and what the suites compare is what is done with a gradient.
    """
    generator, like = torch.Generator().manual_seed(1000 * rank + step), next(model.parameters())
    x, noise = (torch.randn(8, count, generator=generator).to(like.dtype) for count in (6, 2))
    model.zero_grad()
    named: dict[str, Tensor] = dict(model.named_parameters())
    on_host = named
    if not like.is_cpu:
        on_host = {name: param.detach().cpu().requires_grad_(param.requires_grad) for name, param in named.items()}
    result = torch.func.functional_call(model, on_host, (x,))
    ((result - x[:, :2].sin() - 0.1 * noise) ** 2).mean().backward()
    for name, param in named.items():
        grad = on_host[name].grad
        if grad is not None and on_host[name] is not param:
            param.grad = grad.to(param.device)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([param.detach().reshape(-1) for param in model.parameters()])


def shared(worker: Worker) -> Tensor:
    return torch.cat([each.reshape(-1) for each in worker.shared_parameters().values()])


def saved(worker: Worker, part: str) -> Tensor:
    tensors = worker.state_dict()["tensors"]
    return torch.cat([each.reshape(-1) for name, each in tensors.items() if name.startswith(part)])


def bits(x: Tensor) -> bytes:
    x = x.detach()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy().tobytes()


def data_parallel(size: int, num_steps: int, optimizer: Optimizer, model: nn.Module | None = None) -> Tensor:
    """Plain data-parallel training: one model, gradients summed in rank order over P."""
    model = model or small_model()
    stepper = optimizer(model.parameters())
    for step in range(num_steps):
        totals: list[Tensor] = []
        for rank in range(size):
            backward(model, rank, step)
            grads = [param.grad.clone() for param in model.parameters() if param.grad is not None]
            totals = [a + b for a, b in zip(totals, grads, strict=True)] if totals else grads
        for param, total in zip(model.parameters(), totals, strict=True):
            param.grad = total / size
        stepper.step()
    return flat(model)

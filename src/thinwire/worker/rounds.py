"""A worker's exchanges in two steps: what came back counts later. For drivers under which machines come and go."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.memory import ErrorFeedback, NoMemory
from thinwire.payloads import Sparse
from thinwire.steps import Steps
from thinwire.worker.averaging import Proposal
from thinwire.worker.exchange_runner import check_same
from thinwire.worker.resize import refuse_kept
from thinwire.worker.round_kinds import ModelRounds, kind_of
from thinwire.worker.trained import checksum
from thinwire.worker.worker import Worker


class Rounds:
    """Proposes exchanges of a worker, and makes them count or not; the worker itself must not run any meanwhile.

    Of models a round is: local steps, each followed by :meth:`count_step`; :meth:`propose`; then :meth:`accept`, if all
    have what came back, or nothing at all: then the worker is as it was, and proposes again. Who was not among those
    whose messages were averaged runs :meth:`follow` in its place. With ``D_p`` the drift that worker ``p`` has handed
    in and ``m_p`` its residual, ``x_0 - x_T = sum_p (D_p - m_p) / P`` holds at the common point at any time, whoever
    was late.

    Of gradients a round is :meth:`propose` and :meth:`accept` before the optimizer's own step, which all then make.

    Args:
        worker: under gradient averaging, or model averaging with an outer step, by a mean that all have in common.

    Raises:
        ConfigError: the method is another one, or its exchange keeps something between exchanges, which may be bound
            to a worker or to their number.

    Example:
        >>> from thinwire.methods import parse_method
        >>> from thinwire.simulator import Simulation
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> worker = Worker(parse_method("local-sgd:every=1"), model, optimizer, rank=0, size=1, seed=0)
        >>> rounds = Rounds(worker)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> rounds.count_step()
        True
        >>> (proposal,) = Simulation(1).run([rounds.propose()])
        >>> worker.num_exchanges
        0
        >>> rounds.accept(proposal)
        >>> worker.num_exchanges
        1
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._kind = kind_of(worker)
        refuse_kept(worker.channels)

    @property
    def precedes_step(self) -> bool:
        """Whether exchanges come before the optimizer's own step, and are of something that every worker has then."""
        return self._kind.precedes_step

    def begin_step(self) -> None:
        """Before the optimizer's own step: notice what the script has done since the last one."""
        self._worker.look()

    def count_step(self) -> bool:
        """After the optimizer's own step: it counts, and results that are due are applied; whether to exchange now."""
        return self._kind.count_step()

    def propose(self, *, skips: bool = False) -> Steps[Proposal]:
        """Exchange the gradients, or the fragment whose turn it is. Nothing is remembered; it can be run again.

        Args:
            skips: whether gradients whose mean is not finite are no error; the proposal says so then, and cannot be
                accepted.

        Raises:
            NumericsError: NaN or inf in what some worker would exchange: on every worker.
        """
        return self._kind.propose(skips)

    def accept(self, proposal: Proposal, *, at_once: bool = False) -> None:
        """What was exchanged counts: memory, counters, and the common point or the gradients follow.

        Args:
            proposal: the last one.
            at_once: whether the mean is applied now although the method applies it later, at the end of training.
        """
        self._kind.accept(proposal, at_once)
        self._worker.accept_values()

    @torch.no_grad()
    def follow(self, proposal: Proposal) -> None:
        """The others have averaged what they sent, without this worker's message; for models.

        The common point moves, and the worker's own parameters move as far. So what it did since its last exchange
        that counted is still what its model is short of the common point, and the next message has it. The memory
        stays as it is, since nothing was sent.

        Args:
            proposal: with what came back; what this worker's message said in it plays no part.

        Raises:
            ConfigError: the method averages gradients.
        """
        if not isinstance(self._kind, ModelRounds):
            raise ConfigError("a step by gradients has those of all workers; take a method that averages models")
        self._kind.follow(proposal)
        self._worker.accept_values()

    @torch.no_grad()
    def resize(self, rank: int, size: int) -> None:
        """Be another one of another number of workers from now on.

        A residual counts as ``m / size`` in the mean, so it becomes ``m * size / (size before)``: what each worker that
        stays owes the common point is what it owed (see :func:`thinwire.worker.resize.resized`).

        Raises:
            ConfigError: the exchange refuses the number; nothing has changed.
        """
        worker = self._worker
        if not 0 <= rank < size:
            raise ConfigError(f"rank {rank} of {size} workers was given; ranks go from 0 to size - 1")
        worker.resize(rank, size)

    def checksum(self) -> int:
        """Of the common point and of all that is common beside it; the same number on workers that agree."""
        return checksum(self.common_state()["tensors"])

    def common_state(self) -> dict[str, Any]:
        """What all workers have in common, for one that comes back: counters, and tensors by parameter name.

        Results that wait to be applied are in it already. The tensors may be views of what is live.

        Raises:
            ConfigError: gradients are averaged, and the optimizer keeps something that is no tensor and no number.
        """
        worker = self._worker
        tensors, beside = self._kind.common()
        identity = {name: value for name, value in worker.runner.identity().items() if name in ("method", "seed")}
        return {
            "counters": {**identity, "num_steps": worker.num_steps, "num_exchanges": worker.num_exchanges, **beside},
            "tensors": tensors,
        }

    @torch.no_grad()
    def take_common(self, state: Mapping[str, Any], *, keeps_drift: bool) -> None:
        """Stand where the others do, by :meth:`common_state` of one of them. Memory and optimizer stay as they are.

        Args:
            state: of the other worker.
            keeps_drift: whether what this worker did since its last exchange that counted is still to be exchanged, as
                in :meth:`follow`; if not, its parameters become those of the common point. Gradients become zeros.

        Raises:
            ConfigError: it is of another method, seed or model; nothing has changed.
        """
        worker, counters = self._worker, state["counters"]
        identity = worker.runner.identity()
        check_same(counters, {name: identity[name] for name in ("method", "seed")}, "worker")
        self._kind.take(counters, state["tensors"], keeps_drift)
        worker.runner.num_steps, worker.runner.num_exchanges = counters["num_steps"], counters["num_exchanges"]
        worker.accept_values()

    @torch.no_grad()
    def drop_drift(self, place: int) -> None:
        """What a message of channel ``place`` had in it counted after all: it is not to be sent again."""
        self._kind.drop_drift(place)

    def taking_back(self, proposal: Proposal) -> Callable[[], None] | None:
        """What lets that be sent again which a proposal's message had; None if nothing can.

        To be asked for before the proposal is accepted, and called should it turn out not to have counted elsewhere.
        """
        memory = self._worker.method.memory
        if isinstance(memory, NoMemory):
            return self._kind.taking_back(proposal)
        if not isinstance(memory, ErrorFeedback):
            return None
        place, size, sent = proposal.place, self._worker.size, proposal.outcome.aggregate.sent

        @torch.no_grad()
        def put_back() -> None:
            channel = self._worker.channels[place]
            residual = channel.memory["residual"]
            raised = residual.float().clone()
            sent.add_to(raised, self._worker.size / size)
            channel.memory = {**channel.memory, "residual": raised.to(residual.dtype)}

        return put_back

    def memory(self) -> dict[str, Tensor]:
        """What this worker's memory holds, by parameter name: views of it."""
        live = self._worker.exchanged.keeper.live()
        return {name: tensor for name, tensor in live.items() if name.startswith("memory.")}

    def memory_after(self, proposal: Proposal) -> dict[str, Tensor]:
        """What :meth:`memory` will be once a proposal is accepted."""
        channel, after = proposal.channel, proposal.outcome.memory
        assert after is not None
        present, channel.memory = channel.memory, after
        try:
            return self.memory()
        finally:
            channel.memory = present

    @torch.no_grad()
    def take_memory(self, tensors: Mapping[str, Tensor]) -> None:
        """Let the memory hold what :meth:`memory` or :meth:`memory_after` gave.

        Raises:
            ConfigError: it is of another model or method; nothing has changed.
        """
        own = self.memory()
        if {name: tensor.shape for name, tensor in own.items()} != {n: tensor.shape for n, tensor in tensors.items()}:
            raise ConfigError("the memory is of another model or method, or of another number of fragments")
        self._worker.exchanged.keeper.fill(tensors)


def checksum_of_mean(proposal: Proposal) -> int:
    """Of what came back: equal on workers that got the same.

    Args:
        proposal: of any of them.
    """
    result = proposal.outcome.aggregate.result
    if isinstance(result, Sparse):
        return checksum({"indices": result.indices.cpu(), "values": result.kept().cpu()})
    return checksum({"mean": result.cpu()})

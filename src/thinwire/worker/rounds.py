"""A worker's exchanges in two steps: what came back counts later. For drivers under which machines come and go."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thinwire.arrays import copy_of
from thinwire.errors import ConfigError
from thinwire.methods import ModelAveraging, Outer
from thinwire.payloads import Sparse
from thinwire.steps import Steps
from thinwire.worker.averaging import ModelMeans, Proposal
from thinwire.worker.exchange_runner import check_same
from thinwire.worker.resize import refuse_kept
from thinwire.worker.trained import checksum
from thinwire.worker.worker import Worker

_COMMON = "update."


class Rounds:
    """Proposes exchanges of a worker, and makes them count or not; the worker itself must not run any meanwhile.

    A round is: local steps, each followed by :meth:`count_step`; :meth:`propose`; then :meth:`accept`, if all have what
    came back, or nothing at all: then the worker is as it was, and proposes again. Who was not among those whose
    messages were averaged runs :meth:`follow` in its place. With ``D_p`` the drift that worker ``p`` has handed in and
    ``m_p`` its residual, ``x_0 - x_T = sum_p (D_p - m_p) / P`` holds at the common point at any time, whoever was late.

    Args:
        worker: under a method of model averaging, with an outer step by a mean that all have in common.

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
        method = worker.method
        if not isinstance(method, ModelAveraging) or not isinstance(method.update, Outer):
            raise ConfigError(
                f"{method} was given where exchanges may fail; take a method that averages models, with one mean for "
                "all workers, such as local-sgd, diloco, qsparse or signtopk with every=2 or more"
            )
        if method.states:
            raise ConfigError(
                f"{method} averages the optimizer's state, which cannot be proposed first; where exchanges may fail "
                "take a method that averages models alone, such as local-sgd or diloco"
            )
        refuse_kept(worker.channels)
        self._worker = worker
        self._method = method
        self._models = ModelMeans(method, worker.exchanged, worker.agreement, worker.runner)

    def begin_step(self) -> None:
        """Before the optimizer's own step, where under model averaging nothing is asked of others."""
        for op in self._worker.before_step():
            raise AssertionError(op)

    def count_step(self) -> bool:
        """After the optimizer's own step: it counts, and results that are due are applied; whether to exchange now."""
        self._worker.runner.num_steps += 1
        with torch.no_grad():
            is_due = self._models.is_due()
        self._worker.accept_values()
        return is_due

    def propose(self) -> Steps[Proposal]:
        """Exchange the fragment whose turn it is. Nothing is remembered, and it can be run again.

        Raises:
            NumericsError: NaN or inf in the model of some worker: on every worker.
        """
        return self._models.propose()

    def accept(self, proposal: Proposal, *, at_once: bool = False) -> None:
        """What was exchanged counts: memory, counters, the common point and the parameters follow.

        Args:
            proposal: the last one.
            at_once: whether the mean is applied now although the method applies it later, at the end of training.
        """
        self._models.accept(proposal, 0 if at_once else self._method.delay)
        self._worker.accept_values()

    @torch.no_grad()
    def follow(self, proposal: Proposal) -> None:
        """The others have averaged what they sent, without this worker's message.

        The common point moves, and the worker's own parameters move as far. So what it did since its last exchange
        that counted is still what its model is short of the common point, and the next message has it. The memory
        stays as it is, since nothing was sent.

        Args:
            proposal: with what came back; what this worker's message said in it plays no part.
        """
        channel, runner = proposal.channel, self._worker.runner
        reference = channel.update["reference"]
        before, own = copy_of(reference), channel.local()
        self._method.update.apply(proposal.outcome.aggregate, channel.local, channel.update)
        channel.write_params(own.add_(reference).sub_(before))
        self._worker.exchanged.stands = False
        runner.num_exchanges += 1
        runner.count(proposal.outcome)
        self._worker.agreement.let_go(runner.num_exchanges)
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
        """
        worker = self._worker
        tensors = self._common_tensors()
        identity = {name: value for name, value in worker.runner.identity().items() if name in ("method", "seed")}
        return {
            "counters": {**identity, "num_steps": worker.num_steps, "num_exchanges": worker.num_exchanges},
            "tensors": tensors,
        }

    @torch.no_grad()
    def _common_tensors(self) -> dict[str, Tensor]:
        channels = self._worker.exchanged.channels
        present = [channel.update for channel in channels]
        try:
            for channel in channels:
                if channel.pending is not None:
                    channel.update = {name: copy_of(tensor) for name, tensor in channel.update.items()}
                    self._method.update.apply(channel.pending.aggregate, channel.local, channel.update)
            live = self._worker.exchanged.keeper.live()
        finally:
            for channel, update in zip(channels, present, strict=True):
                channel.update = update
        return {name: tensor for name, tensor in live.items() if name.startswith(_COMMON)}

    @torch.no_grad()
    def take_common(self, state: Mapping[str, Any], *, keeps_drift: bool) -> None:
        """Stand where the others do, by :meth:`common_state` of one of them. Memory and optimizer stay as they are.

        Args:
            state: of the other worker.
            keeps_drift: whether what this worker did since its last exchange that counted is still to be exchanged, as
                in :meth:`follow`; if not, its parameters become those of the common point.

        Raises:
            ConfigError: it is of another method, seed or model; nothing has changed.
        """
        worker, counters, tensors = self._worker, state["counters"], state["tensors"]
        identity = worker.runner.identity()
        check_same(counters, {name: identity[name] for name in ("method", "seed")}, "worker")
        live = worker.exchanged.keeper.live()
        expected = {name: tensor.shape for name, tensor in live.items() if name.startswith(_COMMON)}
        if expected != {name: tensor.shape for name, tensor in tensors.items()}:
            raise ConfigError("the common state is of another model or method; all must train the same")
        drifts = [channel.update["reference"] - channel.local() for channel in worker.exchanged.channels]
        worker.exchanged.keeper.fill(tensors)
        for channel, drift in zip(worker.exchanged.channels, drifts, strict=True):
            channel.pending = None
            reference = channel.update["reference"]
            channel.write_params(reference - drift if keeps_drift else reference)
        worker.exchanged.stands = not keeps_drift and len(worker.exchanged.channels) == 1
        worker.runner.num_steps, worker.runner.num_exchanges = counters["num_steps"], counters["num_exchanges"]
        worker.exchanged.exchanged_at = [worker.num_steps - int(keeps_drift)] * len(worker.exchanged.channels)
        worker.accept_values()

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

"""Participants in threads of this process, under a lighthouse of torchft; each has its own model and links."""

import functools
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thinwire
from thinwire.plugins import import_package

os.environ.setdefault("RUST_LOG", "error")  # each quorum is several lines else

DEADLINE_S = 60.0
QUORUM_S = 45.0
"""Less than the deadline: who waits in vain then says what for."""
NUM_INPUTS = 12


class Lighthouse:
    """One of this process; quick to give up who is gone, since nobody here is on a slow link."""

    def __init__(self, min_replicas: int, port: int = 0) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that torchft imports
            coordination = import_package("torchft.coordination", "these tests", "torchft")
        self._server = coordination.LighthouseServer(
            bind=f"127.0.0.1:{port}", min_replicas=min_replicas, join_timeout_ms=500, quorum_tick_ms=20,
            heartbeat_timeout_ms=1000,
        )  # fmt: skip
        self.port = int(self._server.address().rpartition(":")[2])
        self.address = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()


def network(seed: int = 0, frozen: bool = False) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(NUM_INPUTS, 16), nn.Tanh(), nn.Linear(16, 1))
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.randn(param.shape, generator=generator) * 0.3)
    if frozen:
        model[0].requires_grad_(False)
    return model


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.05, momentum=0.5)


def loss_of(model: nn.Module, number: int, step: int) -> Tensor:
    x = torch.randn(8, NUM_INPUTS, generator=torch.Generator().manual_seed(1000 * number + step))
    loss: Tensor = (model(x) - x.sum(1, keepdim=True).sin()).square().mean()
    return loss


class Member:
    """A participant."""

    def __init__(self, lighthouse: Lighthouse, number: int, method: str, *, seed: int = 0, **options: Any) -> None:
        self.number = number
        self.model = network(seed)
        self.optimizer = sgd(self.model)
        options = {
            "name": f"member-{number}", "timeout": timedelta(seconds=10),
            "quorum_timeout": timedelta(seconds=QUORUM_S), **options,
        }  # fmt: skip
        self.handle = thinwire.fault_tolerant(
            self.optimizer, self.model, method, lighthouse=lighthouse.address, **options
        )

    def train(self, until: int) -> None:
        while self.handle.num_steps < until:
            self.optimizer.zero_grad()
            loss_of(self.model, self.number, self.handle.num_steps).backward()
            self.optimizer.step()

    def train_until_joined(self, size: int) -> None:
        """Until so many have exchanged: all of them end at the same step."""
        if self.handle.session.participant.rounds.precedes_step:
            self.train(self.handle.num_steps + 1)  # those that were there wait for its gradient
        while len(self.handle.participation.names) < size:
            self.train(self.handle.num_steps + 1)

    def train_beside(self, until: "Until") -> None:
        while self.handle.num_steps < until.step:
            self.train(self.handle.num_steps + 1)

    def train_and_stay(self, until: int) -> None:
        """So far, and then for as long as another needs this one: its last exchange may have counted here alone."""
        self.train(until)
        self.handle.session.finish()

    def shared(self) -> Tensor:
        return vector(self.handle.shared_parameters())


def vector(named: dict[str, Tensor]) -> Tensor:
    return torch.cat([each.detach().reshape(-1).clone() for each in named.values()])


def together(mains: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each returns, run in a thread of its own; the error of one that raises."""
    found: list[Any] = [None] * len(mains)

    def run(place: int) -> None:
        try:
            found[place] = mains[place]()
        except BaseException as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=(place,), daemon=True) for place in range(len(mains))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    hanging = [thread for thread in threads if thread.is_alive()]
    assert not hanging, f"a participant hangs, and these have ended: {found}\n{_where(hanging)}"
    return found


def _where(threads: Sequence[threading.Thread]) -> str:
    """What each is doing now."""
    frames = sys._current_frames()
    return "\n".join("".join(traceback.format_stack(frames.get(thread.ident or 0))) for thread in threads)


def values(found: Sequence[Any]) -> list[Any]:
    """The same, where none may have raised."""
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return list(found)


def begin(lighthouse: Lighthouse, size: int, method: str, **options: Any) -> list[Member]:
    """So many participants that have met, and stand at the same step: some may have begun before others came."""

    def main(number: int) -> Member:
        member = Member(lighthouse, number, method, **options)
        member.train_until_joined(size)
        return member

    return values(together([functools.partial(main, number) for number in range(size)]))


class Until:
    """The step at which those end that train beside something else: it is known once that is over."""

    def __init__(self, members: "Sequence[Member]", every: int) -> None:
        self.step = 10**6
        self._members, self._every = members, every

    def end(self) -> None:
        last = max(member.handle.num_steps for member in self._members)
        self.step = (last // self._every + 2) * self._every


def beside(members: Sequence[Member], every: int, main: Callable[[], Any]) -> Any:
    """What it returns, or the error that it raises, while these train on; all end at the same step."""
    until = Until(members, every)

    def run() -> Any:
        try:
            return main()
        finally:
            until.end()

    found, *others = together([run, *(functools.partial(member.train_beside, until) for member in members)])
    values(others)
    return found


def train_all(members: Sequence[Member], until: int) -> None:
    values(together([functools.partial(member.train, until) for member in members]))


def close_all(members: Sequence[Member]) -> None:
    values(together([member.handle.close for member in members]))


def state_files(folder: Path, size: int) -> list[Path]:
    return [folder / f"state-{number}.pt" for number in range(size)]

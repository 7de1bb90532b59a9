"""A worker over a folder in a process of its own, which may be killed while it hands in a message."""

import os
import signal
import sys
from pathlib import Path

import torch
from method_cases import flat
from store_crews import Script, Trainee, Watched

from thinwire.stores import FolderStore

NAME, EVERY, NUM_ROUNDS = "signtopk:density=20%,every=2", 2, 6


class Deadly(Watched):
    def __init__(self, path: Path, last: str) -> None:
        super().__init__(FolderStore(path))
        self.last = last

    def put(self, name: str, contents: bytes | memoryview) -> None:
        super().put(name, contents)
        if name == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: str, rank: str, dies_in: str) -> None:
    path = Path(folder)
    last = f"test/rounds/{int(dies_in):08d}/rank-{rank}" if dies_in else ""
    store = Deadly(path / "store", last)
    trainee = Trainee(NAME, int(rank), 2, store, Script(2), state_file=path / f"state-{rank}")
    trainee.train(NUM_ROUNDS * EVERY)
    result = {"model": flat(trainee.model), "message_bytes": trainee.handle.message_bytes}
    torch.save(result, path / f"result-{rank}")


if __name__ == "__main__":
    main(*sys.argv[1:])

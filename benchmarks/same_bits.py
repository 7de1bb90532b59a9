"""Whether another version of thinwire sends and computes the same bits: a line for each method of the catalogue.

Each method trains a small model on ``digits`` in the simulator. The line has the method, the bytes of its messages and
of the links, and a hash of all messages, in the order in which they were sent, and of the parameters at the end. Run
it with either version and compare:

    python benchmarks/same_bits.py > before.txt
    git switch my-branch
    python benchmarks/same_bits.py | diff before.txt -

The hashes are those of one machine: a processor of another kind may add in another order inside torch's own operations.
"""

import argparse
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.session import Session
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import load_task
from thinwire.methods import CATALOG, parse_method
from thinwire.network import Network, Traffic
from thinwire.steps import AllGather, AllReduce, Op, Send, Steps
from thinwire.worker import needs_server

WORKERS = 4


class ListeningEngine:
    """A simulator that hashes what its workers send."""

    def __init__(self, served: bool) -> None:
        self._inner = SimulatedEngine(WORKERS, Network(), served)
        self.size, self.serves, self.local_ranks = self._inner.size, self._inner.serves, self._inner.local_ranks
        self.heard = hashlib.sha256()

    def run(self, programs: Sequence[Steps[Any]]) -> list[Any]:
        return self._inner.run([self._listen(rank, program) for rank, program in enumerate(programs)])

    def _listen(self, rank: int, program: Steps[Any]) -> Steps[Any]:
        reply = None
        while True:
            try:
                op = program.send(reply)
            except StopIteration as ended:
                return ended.value
            self._hash(rank, op)
            reply = yield op

    def _hash(self, rank: int, op: Op) -> None:
        match op:
            case AllReduce(tensor=tensor) | AllGather(message=tensor) | Send(message=tensor):
                self.heard.update(b"%d" % rank + bits(tensor))
            case _:
                pass

    def seconds(self) -> float:
        return self._inner.seconds()

    def traffic(self) -> list[Traffic]:
        return self._inner.traffic()

    def share(self, values: Sequence[float]) -> list[list[float]]:
        return self._inner.share(values)

    def state_dict(self) -> dict[str, Any]:
        return self._inner.state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self._inner.load_state_dict(saved)


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def line(method: str, num_steps: int) -> str:
    """What a method sent in so many steps, and where it arrived."""
    task = load_task("digits")
    comparison = Comparison(
        methods=(method,), task="digits", workers=WORKERS, lrs=(0.05,), steps=num_steps, tune_steps=1,
        evaluate_every=num_steps, batch_size=task.batch_size,
    )  # fmt: skip
    engine = ListeningEngine(needs_server(parse_method(method)))
    with tempfile.TemporaryDirectory() as folder:
        session = Session(
            comparison, Run(method, comparison.settings(method)[0], 0, "final", num_steps), task, engine, Path(folder)
        )
        session.train(0, num_steps)
    for worker in session.workers:
        for param in worker.model.parameters():
            engine.heard.update(bits(param))
    message_bytes = sum(worker.message_bytes for worker in session.workers)
    sent = sum(link.bytes_sent for link in engine.traffic())
    received = sum(link.bytes_received for link in engine.traffic())
    return f"{method} {message_bytes} {sent} {received} {engine.heard.hexdigest()[:32]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--methods", nargs="*", default=[row.name for row in CATALOG])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for method in args.methods:
        print(line(method, args.steps), flush=True)


if __name__ == "__main__":
    main()

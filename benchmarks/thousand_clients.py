"""1,000 clients of whom 20 take part in each round, in one process: seconds a round, and the peak of its memory.

Clients take part in turn, so that after so many rounds as have room for all of them each has a memory that waits.
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch

from thinwire.experiments.clients.engine import simulating_engine
from thinwire.experiments.clients.round_log import read_rounds
from thinwire.experiments.clients.setting import Clients
from thinwire.experiments.session import Session
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import load_task
from thinwire.methods import parse_method
from thinwire.methods.participation import Cyclic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="stdlib-lm")
    parser.add_argument("--method", default="topk:density=1%,every=2")
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--per-round", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=55)
    parser.add_argument("--steps-a-round", type=int, default=2, help="as the method says")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--optimizer", default="sgd")
    args = parser.parse_args()
    torch.set_num_threads(1)
    task = load_task(args.task)
    steps = args.rounds * args.steps_a_round
    comparison = Comparison(
        methods=(args.method,), task=args.task, workers=args.per_round, lrs=(0.05,), steps=steps, tune_steps=1,
        clients=Clients(count=args.clients, participation=Cyclic(args.per_round)), evaluate_every=steps,
        batch_size=args.batch_size, optimizers=(args.optimizer,),
    )  # fmt: skip
    run = Run(args.method, comparison.settings(args.method)[0], 0, "final", steps)
    with tempfile.TemporaryDirectory() as folder:
        engine = simulating_engine(comparison, parse_method(args.method))
        session = Session(comparison, run, task, engine, Path(folder))
        numel, seconds = session.workers[0].layout.numel, []
        for number in range(args.rounds):
            begin = time.perf_counter()
            session.train(number * args.steps_a_round, (number + 1) * args.steps_a_round)
            seconds.append(time.perf_counter() - begin)
        assert session.crew is not None
        session.crew.log.write(folder)
        rounds = read_rounds(folder)
        waiting = len(session.crew.absent.residuals())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    up = statistics.mean(statistics.mean(each["message_bytes"]) for each in rounds)
    down = statistics.mean(statistics.mean(each["model_bytes"]) for each in rounds[1:])
    print(
        f"{args.method}: {args.clients:,} clients, {args.per_round} a round, d = {numel:,}: "
        f"{statistics.median(seconds):.2f} s a round (median of {args.rounds}), {waiting:,} residuals wait; "
        f"peak memory {peak:.2f} GiB; a client and round: a message of {up:,.0f} B, a model of {down:,.0f} B"
    )


if __name__ == "__main__":
    main()

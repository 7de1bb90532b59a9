"""What compressed messages between shards cost in loss and in bytes: a transformer on the standard library's text.

Run it with ``torchrun --standalone --nproc-per-node 2 benchmarks/sharded.py``. Every case trains the same model on the
same batches. Bytes are those that each process sends to the others; dense ones are 4 an entry, for gradients once a
step and for weights at every gather.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

import thinwire
from thinwire.compressors import QSGD
from thinwire.exchanges import Gather
from thinwire.layout import Chunks
from thinwire.memory import ErrorFeedback
from thinwire.methods import GradientAveraging
from thinwire.worker.parameters import local_part

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import hsdp

WITH_MEMORY = GradientAveraging(
    memory=ErrorFeedback(), compressor=QSGD(bits=4, norm="max", scaled=True), exchange=Gather(), granularity=Chunks(256)
)
FOUR_BITS: dict[str, Any] = {
    "gradients": "qsgd:bits=4,granularity=256", "weights": "qsgd:bits=4,granularity=256", "weight_differences": True,
}  # fmt: skip
EMBEDDINGS_TOO = {"policy": thinwire.DensePolicy(embeddings=False)}
CASES: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "gradients 4 bits": {"gradients": "qsgd:bits=4,granularity=256"},
    "gradients 4 bits, error feedback": {"gradients": WITH_MEMORY},
    "weights 8 bits": {"weights": "qsgd:bits=8,granularity=256"},
    "weights 4 bits": {"weights": "qsgd:bits=4,granularity=256"},
    "weights 4 bits of differences": {"weights": "qsgd:bits=4,granularity=256", "weight_differences": True},
    "gradients 4 bits, weights 8 bits": {
        "gradients": "qsgd:bits=4,granularity=256", "weights": "qsgd:bits=8,granularity=256",
    },
    "gradients 4 bits, weights 4 bits of differences": FOUR_BITS,
    "gradients 4 bits, weights 4 bits of differences, embeddings too": FOUR_BITS | EMBEDDINGS_TOO,
    "gradients 4 bits with error feedback, weights 4 bits of differences, embeddings too": {
        **FOUR_BITS, **EMBEDDINGS_TOO, "gradients": WITH_MEMORY,
    },
}  # fmt: skip


def train(kind: dict[str, Any] | None, num_steps: int, seed: int) -> tuple[float, tuple[int, int], int]:
    """The loss on text that was not seen, the bytes about gradients and about weights, and entries of a shard."""
    text, seen = hsdp.texts()
    torch.manual_seed(seed)
    model = hsdp.Decoder()
    for layer in (*model.blocks, model):
        fully_shard(layer)
    own = sum(local_part(param.detach()).numel() for param in model.parameters())
    handle = None if kind is None else thinwire.compress_shards(model, seed=seed, **kind)
    hsdp.fit(model, text, seen, num_steps, seed)
    sent = (0, 0) if handle is None else handle.message_bytes
    loss = hsdp.held_out_loss(model, text, seen)
    if handle is not None:
        handle.close()
    return loss, sent, own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    for name in args.cases:
        for seed in args.seeds:
            loss, (gradients, weights), own = train(CASES[name], args.steps, seed)
            if dist.get_rank() == 0:
                dense = 4 * own * (dist.get_world_size() - 1) * args.steps
                rates = " ".join(
                    f"{what} {sent:,} bytes ({dense / sent:.2f} times fewer than once in full a step)"
                    for what, sent in (("gradients", gradients), ("weights", weights))
                    if sent
                )
                print(f"{name}, seed {seed}: loss {loss:.4f} {rates}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

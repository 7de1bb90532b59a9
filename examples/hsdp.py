"""Islands: FSDP2 shards a transformer inside an island, thinwire compresses what goes between islands. Run it with

torchrun --standalone --nproc-per-node 4 examples/hsdp.py
torchrun --standalone --nproc-per-node 4 examples/hsdp.py plain

where with ``plain`` FSDP2 itself averages over the islands. It learns the text of Python's standard library.
"""

import sys
import sysconfig
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

import thinwire
from thinwire.distributed import ShardedGradients

CONTEXT, WIDTH, HEADS = 32, 64, 4


class Block(nn.Module):
    """Causal attention and a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.queries_keys_values, self.mix = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.feed = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.queries_keys_values(self.first(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.mix(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        found: Tensor = x + self.feed(self.second(x))
        return found


class Decoder(nn.Module):
    """Bytes in, logits of the next byte out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, 256)

    def forward(self, text: Tensor) -> Tensor:
        x = self.bytes(text) + self.places.weight
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.head(x)
        return found


def texts() -> tuple[Tensor, int]:
    """The text, and how much of it is learnt; the rest is for the loss in the end."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8)
    return text, len(text) * 9 // 10


def loss_of(model: nn.Module, text: Tensor, starts: Tensor) -> Tensor:
    windows = text[starts[:, None] + torch.arange(CONTEXT + 1)].long()
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def fit(model: nn.Module, text: Tensor, seen: int, num_steps: int, seed: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    generator = torch.Generator().manual_seed(1000 * seed + dist.get_rank())
    for _ in range(num_steps):
        starts = torch.randint(seen - CONTEXT - 1, (8,), generator=generator)
        optimizer.zero_grad()
        loss_of(model, text, starts).backward()
        optimizer.step()


@torch.no_grad()
def held_out_loss(model: nn.Module, text: Tensor, seen: int) -> float:
    return loss_of(model, text, torch.linspace(seen, len(text) - CONTEXT - 1, 256).long()).item()


def made(mesh: DeviceMesh, method: str, seed: int = 0) -> tuple[nn.Module, ShardedGradients | None]:
    torch.manual_seed(seed)
    model = Decoder()
    over = mesh if method == "plain" else mesh["shard"]
    for layer in (*model.blocks, model):
        fully_shard(layer, mesh=over)
    if method == "plain":
        return model, None
    policy = thinwire.DensePolicy(embeddings=False)  # of so few bytes its gradient is dense
    return model, thinwire.compress_fsdp(model, method, mesh=mesh["replicate"], policy=policy, seed=seed)  # the line


def main(method: str = "signtopk:density=10%", *, num_steps: int = 100) -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("replicate", "shard"))
    text, seen = texts()
    model, handle = made(mesh, method)
    fit(model, text, seen, num_steps, seed=0)
    loss = held_out_loss(model, text, seen)
    if dist.get_rank() == 0:
        sent = 0 if handle is None else handle.message_bytes
        dense = 4 * num_steps * sum(param.numel() for param in model.parameters()) // mesh["shard"].size()
        print(f"{method}: loss {loss:.3f}, {sent:,} message bytes; dense gradients: {dense:,}")
    if handle is not None:
        handle.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:2])

"""What the processes of the link's tests run; a module of its own, so that they can import it by name."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed import Transport
from thinwire.distributed.dense_watch import IGNORED_STEPS, WATCHED_STEPS, DenseWatch
from thinwire.distributed.link_speed import measure_link
from thinwire.distributed.probe import Cost, Prober
from thinwire.errors import ConfigError
from thinwire.methods import parse_method
from thinwire.network import Network

STEPS = IGNORED_STEPS + WATCHED_STEPS + 3
METHOD = "topk:density=5%"
# On the first nothing beats dense, on the second everything does: neither depends on how fast this machine is.
LINKS = {"ideal": Network(1e18, 0.0), "hopeless": Network(1.0, 100.0)}
SIZES = (40_000, 17, 19_000, 983)
SUMMED = ("des-loc:every=3,momentum=6,variance=12", "marina:density=25%")
PROBED = ("sgd", "topk:density=1%", "local-sgd:every=3", "topk:density=1%,every=8", "topk:k=30000", *SUMMED)
LIMITS = {"ample": 600.0, "none": 0.0}


def measure_everything(folder: str, transport: Transport) -> None:
    found = {
        "networks": [measure_link(transport) for _ in range(2)],
        "traffic": transport.traffic,
        "hooks": {name: train(link) for name, link in LINKS.items()} | {"own": train(None), "off": train(None, False)},
        "costs": {name: probe(transport, limit_s) for name, limit_s in LIMITS.items()},
        "fast": probe_dense(transport),
        "refusal": refusal(transport),
    }
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))


def train(link: Network | None, warn_if_slower: bool = True) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3))
    wrapped = DistributedDataParallel(model, bucket_cap_mb=0.0005)
    hook = thinwire.compress_ddp(wrapped, METHOD, warn_if_slower=warn_if_slower)
    network = None if hook._exchange.watch is None else hook._exchange.watch.network
    if link is not None:
        transport = hook.transport
        hook._exchange.watch = DenseWatch(link, transport.size, transport.rank == 0, transport.share)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(STEPS):
            wrapped(torch.ones(2, 6)).square().mean().backward()
    hook.close()
    messages = [str(each.message) for each in caught if each.category.__name__ == "SlowerThanDense"]
    return {"network": network, "messages": messages, "traffic": hook.traffic, "grad": model[0].weight.grad}


def probe(transport: Transport, limit_s: float) -> dict[str, Cost]:
    generator = torch.Generator().manual_seed(transport.rank)
    vectors = [torch.randn(sum(SIZES), generator=generator) for _ in range(2)]
    prober = Prober(transport, LINKS["hopeless"], vectors, SIZES, limit_s)
    return {"dense": prober.dense()} | {method: prober.step(parse_method(method)) for method in PROBED}


def probe_dense(transport: Transport) -> dict[str, Cost]:
    generator = torch.Generator().manual_seed(transport.rank)
    prober = Prober(transport, LINKS["ideal"], [torch.randn(sum(SIZES), generator=generator)], SIZES)
    return {"float32": prober.dense(), "bfloat16": prober.dense(torch.bfloat16)}


def refusal(transport: Transport) -> str:
    try:
        Prober(transport, LINKS["ideal"], [torch.zeros(4)], [4]).step(parse_method("easgd-async"))
    except ConfigError as error:
        return str(error)
    return ""

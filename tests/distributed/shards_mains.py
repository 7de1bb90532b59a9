"""What the processes of the tests of compressed shards run: a model that two of them share."""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsdp_mains
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import thinwire
from thinwire.compressors import QSGD
from thinwire.distributed import CompressedShards, DensePolicy, Transport
from thinwire.errors import ConfigError
from thinwire.exchanges import Gather
from thinwire.layout import Chunks
from thinwire.memory import ErrorFeedback
from thinwire.methods import GradientAveraging

WITH_MEMORY = GradientAveraging(
    memory=ErrorFeedback(), compressor=QSGD(bits=4, norm="max", scaled=True), exchange=Gather(), granularity=Chunks(64)
)
EVERYTHING: dict[str, Any] = {"gradients": WITH_MEMORY, "weights": "qsgd:bits=4", "weight_differences": True}


def all_laws(folder: str, transport: Transport) -> None:
    found = {
        "identity": [trained(None), trained({"gradients": "sgd"})],
        "bf16": [trained(None, torch.bfloat16), trained({"gradients": "sgd"}, torch.bfloat16)],
        "conserved": conserved(),
        "thrown away": thrown_away(),
        "weights": weights(),
        "differences": differences(),
        "bytes": num_bytes(),
        "resumed": [resumed(kind, cut) for kind in (EVERYTHING, {"weights": "qsgd:bits=8"}) for cut in (False, True)],
        "refused": refused(),
    }
    torch.save(found, Path(folder, f"rank-{transport.rank}.pt"))


def made(
    kind: dict[str, Any] | None, reduced: torch.dtype | None = None, policy: DensePolicy = fsdp_mains.NOTHING_DENSE
) -> tuple[Any, torch.optim.Optimizer, CompressedShards | None]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = fsdp_mains.shard(fsdp_mains.network(), mesh, MixedPrecisionPolicy(reduce_dtype=reduced))
    handle = None if kind is None else thinwire.compress_shards(model, policy=policy, seed=3, **kind)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5), handle


def backward(model: nn.Module, step: int) -> None:
    fsdp_mains.loss_of(model, step, dist.get_rank()).backward()


def trained(kind: dict[str, Any] | None, reduced: torch.dtype | None = None) -> dict[str, Tensor]:
    model, optimizer, handle = made(kind, reduced)
    for step in range(4):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
    if handle is not None:
        handle.close()
    return fsdp_mains.local(dict(model.named_parameters()))


def conserved() -> dict[str, Any]:
    """Sums over five backward passes of a fixed model, which add up in ``.grad``."""
    sums = []
    memory: dict[str, Tensor] = {}
    for kind in (None, {"gradients": WITH_MEMORY}):
        model, _, handle = made(kind)
        for step in range(5):
            backward(model, step)
        sums.append({name: param.grad.to_local().clone() for name, param in model.named_parameters()})
        if handle is not None:
            torch.optim.SGD(model.parameters(), lr=0.0).step()
            memory = handle.state_dict()["tensors"]
            handle.close()
    return {"dense": sums[0], "applied": sums[1], "memory": memory}


def thrown_away() -> list[dict[str, Tensor]]:
    """The memory after two steps, and after gradients that no optimizer took."""
    model, optimizer, handle = made({"gradients": WITH_MEMORY})
    assert handle is not None
    for step in range(2):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
    found = [handle.state_dict()["tensors"]]
    for step in range(2, 4):
        optimizer.zero_grad()
        backward(model, step)
    optimizer.zero_grad()
    backward(model, 4)
    found.append(handle.state_dict()["tensors"])
    handle.close()
    return found


def seen(model: Any) -> Callable[[], dict[str, Tensor]]:
    """Runs the model; the weights that its layers computed with."""
    found: dict[str, Tensor] = {}

    def look(name: str) -> Callable[..., None]:
        def hook(layer: Any, args: Any) -> None:
            for kind in ("weight", "bias"):
                found[f"{name}.{kind}"] = getattr(layer, kind).detach().clone()

        return hook

    for name in ("0", "2", "4"):
        model.get_submodule(name).register_forward_pre_hook(look(name))

    def run() -> dict[str, Tensor]:
        with torch.no_grad():
            model(torch.ones(1, 6))
        return dict(found)

    return run


def weights() -> dict[str, Any]:
    model, _, handle = made({"weights": "qsgd:bits=8,granularity=64"})
    assert handle is not None
    run = seen(model)
    first, second = run(), run()
    handle.close()
    exact = {name: fsdp_mains.network().get_parameter(name).detach() for name in first}
    return {"first": first, "second": second, "exact": exact}


def differences() -> list[dict[str, Any]]:
    """After each step: what all compute with, what is meant, and the bytes so far."""
    model, optimizer, handle = made({"weights": "qsgd:bits=4,granularity=64", "weight_differences": True})
    assert handle is not None
    run = seen(model)
    found = []
    for step in range(8):
        optimizer.zero_grad()
        backward(model, step)
        before = handle.message_bytes
        used = run()  # nothing has changed since forward
        assert handle.message_bytes == before
        optimizer.step()
        exact = {name: fsdp_mains.whole(model.get_parameter(name)) for name in used}
        found.append({"used": used, "exact": exact, "bytes": before[1]})
    handle.close()
    return found


class Wide(nn.Sequential):
    """Enough parameters that headers do not count."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(192, 256), nn.Tanh(), nn.Linear(256, 192))


def num_bytes() -> dict[str, Any]:
    """Of one step, about gradients and about weights, beside what f32 would take, and what crossed the link."""
    torch.manual_seed(0)
    model: Any = Wide()
    for layer in (model[0], model[2], model):
        fully_shard(layer)
    handle = thinwire.compress_shards(model, gradients="qsgd:bits=4", weights="qsgd:bits=4")
    model(torch.ones(1, 192)).sum().backward()
    sent = handle.message_bytes
    link = [handle.traffic.bytes_sent, handle.traffic.bytes_received]
    handle.close()
    own = sum(param.to_local().numel() for param in model.parameters())
    return {"sent": sent, "own": own, "link": link}


def resumed(kind: dict[str, Any], cut: bool) -> dict[str, Any]:
    model, optimizer, handle = made(kind)
    for step in range(5):
        if cut and step == 3:
            assert handle is not None
            file = io.BytesIO()
            parts = {"m": fsdp_mains.local(dict(model.named_parameters())), "o": optimizer.state_dict()}
            torch.save({**parts, "h": handle.state_dict()}, file)
            handle.close()
            saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
            model, optimizer, handle = made(kind)
            with torch.no_grad():
                for name, param in model.named_parameters():
                    param.copy_(torch.zeros_like(param))  # writes are noticed
                    param.to_local().copy_(saved["m"][name])
            optimizer.load_state_dict(saved["o"])
            assert handle is not None
            handle.load_state_dict(saved["h"])
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()
    assert handle is not None
    counts = [*handle.message_bytes, handle.traffic.bytes_sent, handle.traffic.bytes_received]
    handle.close()
    return {"model": fsdp_mains.local(dict(model.named_parameters())), "counts": counts}


def refused() -> dict[str, str]:
    said = {}
    cases: dict[str, dict[str, Any]] = {
        "nothing": {},
        "local steps": {"gradients": "topk:density=1%,every=4"},
        "exchange": {"gradients": "powersgd"},
        "server": {"gradients": "ef-signsgd:exchange=server"},
        "memory": {"weights": "topk:density=1%"},
        "no weights": {"gradients": "qsgd:bits=4", "weight_differences": True},
    }
    for name, kind in cases.items():
        said[name] = message_of(functools.partial(made, kind))
    said["plain"] = message_of(lambda: thinwire.compress_shards(nn.Linear(2, 2), gradients="qsgd:bits=4"))
    model, _, handle = made({"gradients": "qsgd:bits=4"})
    assert handle is not None
    said["state"] = message_of(lambda: loaded(handle.state_dict(), {"gradients": "qsgd:bits=8"}))
    state = whole_state()
    for part in ("memory", "reference"):
        name = next(each for each in state["tensors"] if part in each)
        less = {each: tensor for each, tensor in state["tensors"].items() if each != name}
        for case, tensors in ((f"no {part}", less), (f"short {part}", {**less, name: torch.zeros(1)})):
            said[case] = message_of(functools.partial(loaded, {**state, "tensors": tensors}, EVERYTHING))
    more = {**state["tensors"], "memory.residual.0.nobody": torch.zeros(1)}
    said["more"] = message_of(lambda: loaded({**state, "tensors": more}, EVERYTHING))
    fewer = {**state["counters"], "calls": state["counters"]["calls"][:-1]}
    said["fewer layers"] = message_of(lambda: loaded({**state, "counters": fewer}, EVERYTHING))
    one = {name: tensor for name, tensor in state["tensors"].items() if "reference.1" not in name}
    said["one reference"] = message_of(lambda: loaded({**state, "tensors": one}, EVERYTHING))
    for layer in (model[0], model[2], model[4]):
        layer.set_gradient_divide_factor(3.0)
    said["factor"] = message_of(lambda: backward(model, 0))
    handle.close()
    return said


def whole_state() -> dict[str, Any]:
    """One of which nothing is missing."""
    model, optimizer, handle = made(EVERYTHING)
    assert handle is not None
    backward(model, 0)
    optimizer.step()
    state = handle.state_dict()
    handle.close()
    loaded(state, EVERYTHING)
    return state


def loaded(state: dict[str, Any], kind: dict[str, Any]) -> None:
    _, _, handle = made(kind)
    assert handle is not None
    before = handle.state_dict()
    try:
        handle.load_state_dict(state)
    except ConfigError:
        assert handle.state_dict() == before, "a state that is refused changes nothing"
        raise
    finally:
        handle.close()


def message_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except ConfigError as error:
        return str(error)
    return ""

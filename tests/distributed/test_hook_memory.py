"""What a hook keeps until it is known which exchanges count: the bucket, or the memory's next state beside it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.distributed.buckets import BucketSizes
from thinwire.distributed.comm_hook import can_overlap
from thinwire.distributed.settling import Held
from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import parse_method
from thinwire.methods.catalog import CATALOG
from thinwire.random import Key
from thinwire.simulator import Simulation
from thinwire.worker.channel import Channel

pytestmark = [
    pytest.mark.usefixtures("alone"),
    pytest.mark.filterwarnings("ignore::thinwire.NothingCompressed", "ignore::thinwire.LittleCompressed"),
]

METHODS = [
    *(row.name for row in CATALOG if can_overlap(parse_method(row.name))),
    "topk:density=2%", "signtopk:density=2%", "dgc:density=2%", "mem-sgd:select=random,density=2%",
    "signtopk:density=2%,residual_dtype=bf16", "dgc:density=2%,residual_dtype=bf16",
    "1bit-adam:warmup=1,eps=1,exchange=gather", "1bit-lamb:warmup=1,eps=1,exchange=gather",
]  # fmt: skip
EVERYTHING = thinwire.DensePolicy(vectors=False, embeddings=False, below=0)


class Training:
    """Layers with weights and biases, whose buckets are of one layer or so from the second step on."""

    def __init__(self, method: str, *, views: bool, layers: nn.Sequential | None = None, static: bool = False) -> None:
        torch.manual_seed(3)
        self.layers = layers or nn.Sequential(*(nn.Linear(40, 40) for _ in range(4)))
        self.model = DistributedDataParallel(
            self.layers, bucket_cap_mb=0.005, gradient_as_bucket_view=views, static_graph=static
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.hook = thinwire.compress_ddp(self.model, method, policy=EVERYTHING, warn_if_slower=False)
        self.generator = torch.Generator().manual_seed(4)

    def backward(self) -> None:
        self.model(torch.randn(8, 40, generator=self.generator)).pow(2).mean().backward()

    def bits(self) -> dict[str, bytes]:
        found: dict[str, Tensor] = {
            **dict(self.layers.named_parameters()),
            **{f"grad {name}": torch.zeros(0, dtype=torch.float32) if param.grad is None else param.grad
               for name, param in self.layers.named_parameters()},
            **self.hook.state_dict()["tensors"],
        }  # fmt: skip
        return {name: tensor.detach().contiguous().float().numpy().tobytes() for name, tensor in found.items()}


class Folded(nn.Module):
    """Images of 40 entries, for convolutions between linear layers."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), 4, 2, 5) if x.dim() == 2 else x.flatten(1)


class In16(nn.Module):
    """A layer of bfloat16 between others."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(40, 40, dtype=torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.bfloat16()).float()  # type: ignore[no-any-return]


def with_channels_last() -> nn.Sequential:
    torch.manual_seed(5)
    layers = nn.Sequential(
        nn.Linear(40, 40), Folded(), nn.Conv2d(4, 12, 1), nn.Conv2d(12, 4, (1, 3), padding="same"), Folded(),
        nn.Linear(40, 40),
    )  # fmt: skip
    layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return layers


def with_two_formats() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(40, 40), In16(), nn.Linear(40, 40))


def plain(training: Training) -> None:
    training.backward()
    training.optimizer.step()
    training.optimizer.zero_grad()


def thrown_away(training: Training) -> None:
    training.backward()
    training.optimizer.zero_grad()
    plain(training)


def second_before_the_step(training: Training) -> None:
    training.backward()
    plain(training)


def added_up_without_exchange(training: Training) -> None:
    with training.model.no_sync():
        training.backward()
    plain(training)


def some_thrown_away(training: Training) -> None:
    training.backward()
    training.layers[1].weight.grad = None
    training.optimizer.step()
    training.optimizer.zero_grad()


def looked_at_before_the_step(training: Training) -> None:
    training.backward()
    with torch.no_grad():
        training.model(torch.zeros(1, 40))
    training.model(torch.zeros(1, 40))
    training.optimizer.step()
    training.optimizer.zero_grad()


WAYS = [
    plain, thrown_away, second_before_the_step, added_up_without_exchange, some_thrown_away, looked_at_before_the_step,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_kept_in_the_bucket_makes_the_memory_that_would_have_been_kept_beside_it(
    method: str, way: Callable[[Training], None]
) -> None:
    kept, beside = Training(method, views=False), Training(method, views=True)
    for _ in range(4):
        way(kept)
        way(beside)
        assert kept.bits() == beside.bits()
    assert kept.hook.num_steps == beside.hook.num_steps > 0
    kept.hook.close()
    beside.hook.close()


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("layers", [with_channels_last, with_two_formats])
@pytest.mark.parametrize("method", ["topk:density=2%", "signtopk:density=2%"])
def test_of_any_order_in_memory_and_any_format_gradients_are_those_that_would_have_been(
    method: str, layers: Callable[[], nn.Sequential], static: bool
) -> None:
    kept = Training(method, views=False, layers=layers(), static=static)
    beside = Training(method, views=True, layers=layers(), static=static)
    for _ in range(4):
        plain(kept)
        plain(beside)
        assert kept.bits() == beside.bits()
    kept.hook.close()
    beside.hook.close()


def test_what_is_sent_of_a_gradient_is_at_its_own_place() -> None:
    training = Training("topk:density=2%", views=False, layers=with_channels_last())
    plain_copy = with_channels_last()
    plain_copy(torch.randn(8, 40, generator=torch.Generator().manual_seed(4))).pow(2).mean().backward()
    training.backward()
    for mine, theirs in zip(training.layers.parameters(), plain_copy.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        sent = mine.grad != 0
        assert sent.any()
        assert torch.equal(mine.grad[sent], theirs.grad[sent])
    training.hook.close()


def test_a_gradient_that_lies_in_the_bucket_is_written_once_the_memory_is_made() -> None:
    """As DDP would have it if it gave views although it was asked for none."""
    layout = Layout(("w",), (torch.Size([200]),))
    method = parse_method("topk:k=3")
    found = []
    for is_in_bucket in (False, True):
        channel = Channel(method, layout, [torch.zeros(200, dtype=torch.float32)], 0, 1, Key(0))
        bucket = torch.arange(200.0, dtype=torch.float32)
        x, finite = channel.gather([bucket])
        (outcome,) = Simulation(1).run([channel.run(x, method.compressor, finite, 0, forgets=True)])
        assert outcome.memory is None
        held = Held(channel, outcome, [bucket], 1.0)
        grad = bucket[:] if is_in_bucket else bucket.clone()
        held.write_to({"w": grad})
        assert grad.count_nonzero() == 3
        held.complete(in_place=True)
        assert held.outcome.memory is not None
        found.append(held.outcome.memory["residual"])
    assert torch.equal(*found)
    assert found[0].count_nonzero() == 196  # what was sent, and the 0


def test_a_bucket_that_is_filled_anew_without_the_model_knowing_is_refused() -> None:
    training = Training("topk:density=2%", views=False)
    training.backward()
    with pytest.raises(ConfigError, match=r"call model\(\.\.\.\)"):
        training.model.forward(torch.ones(8, 40)).sum().backward()
    training.hook.close()


def test_the_first_bucket_is_exchanged_in_those_parts_that_follow() -> None:
    training = Training("topk:density=2%", views=False)
    cuts: list[Any] = []
    for _ in range(3):
        plain(training)
        cuts.append(training.hook.state_dict()["counters"]["buckets"])
    assert len(cuts[0]) > 1
    assert sorted(cuts[0]) == sorted(cuts[1]) == sorted(cuts[2])
    training.hook.close()


def test_buckets_are_cut_as_ddp_cuts_them() -> None:
    training = Training("topk:density=2%", views=False)
    plain(training)
    plain(training)
    names = {id(param): name for name, param in training.layers.named_parameters()}
    theirs = [
        {names[id(param)] for param in bucket.parameters()}
        for bucket in training.model.reducer._get_zeros_like_grad_buckets()
    ]
    sizes = {name: param.nbytes for name, param in training.layers.named_parameters()}
    known = BucketSizes.of(training.model)
    assert known is not None
    assert [set(names) for names in known.cut(sizes)] == theirs
    training.hook.close()

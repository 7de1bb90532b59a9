"""A model with two optimizers, and two models with one each: states apart, resumed with the same bits."""

import copy
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from thinwire.errors import ConfigError
from thinwire.integrations.attachment import Attachment, parsed

METHOD = "topk:k=2,every=2"
needs_accelerate = pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="it is one of the extras")
needs_lightning = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="it is one of the extras")

pytestmark = [
    pytest.mark.filterwarnings("ignore:. local step:UserWarning"),  # they end between two exchanges on purpose
    pytest.mark.filterwarnings("ignore::thinwire.NothingCompressed"),
]


class Body(nn.Module):
    """Its matrices go to one optimizer and its vectors to another, as with Muon."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x).tanh())
        return out

    def optimizers(self) -> list[torch.optim.Optimizer]:
        matrices = [param for param in self.parameters() if param.ndim == 2]
        vectors = [param for param in self.parameters() if param.ndim == 1]
        return [torch.optim.SGD(matrices, lr=0.1, momentum=0.9), torch.optim.Adam(vectors, lr=0.01)]


def batch(step: int) -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(step))


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def train(model: nn.Module, optimizers: list[Any], begin: int, end: int) -> None:
    for step in range(begin, end):
        for optimizer in optimizers:
            optimizer.zero_grad()
        model(batch(step)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.usefixtures("group")
def test_each_optimizer_exchanges_what_it_has(tmp_path: Path) -> None:
    model = Body()
    optimizers = model.optimizers()
    attachment = Attachment(model, optimizers, parsed(METHOD), seed=0)
    train(model, optimizers, 0, 5)
    assert [sorted(handle.exchanged()) for handle in attachment.handles] == [
        ["first.weight", "second.weight"],
        ["first.bias", "second.bias"],
    ]
    assert attachment.message_bytes == sum(handle.message_bytes for handle in attachment.handles) > 0
    own, common = copy.deepcopy(model.state_dict()), attachment.shared_state()
    assert not any(torch.equal(own[name], common[name]) for name in own)
    attachment.show_shared()
    assert same(dict(model.state_dict()), common)
    attachment.save(tmp_path / "x", step=5)
    train(model, optimizers, 5, 9)
    ended = copy.deepcopy(model.state_dict())
    attachment.close()
    again = Body()
    fresh = again.optimizers()
    other = Attachment(again, fresh, parsed(METHOD), seed=0)
    other.load(tmp_path / "x", step=5)
    assert same(dict(again.state_dict()), dict(own))
    train(again, fresh, 5, 9)
    assert same(dict(again.state_dict()), dict(ended))
    other.close()


@needs_accelerate
@pytest.mark.usefixtures("group")
def test_accelerate_takes_further_optimizers_and_further_models(tmp_path: Path) -> None:
    from accelerate import Accelerator

    from thinwire.integrations.accelerate import prepare

    def run(resumed: bool) -> list[Any]:
        accelerator = Accelerator(cpu=True)
        body, critic = Body(), nn.Linear(2, 1)
        with torch.no_grad():
            critic.weight.fill_(0.5)
            critic.bias.zero_()
        matrices, vectors = body.optimizers()
        scheduler = torch.optim.lr_scheduler.StepLR(vectors, 1, gamma=0.5)
        with pytest.raises(ConfigError, match="several models were given; call prepare once for each"):
            prepare(accelerator, METHOD, body, matrices, critic)
        first, model, matrices, scheduler, vectors = prepare(accelerator, METHOD, body, matrices, scheduler, vectors)
        judge = torch.optim.SGD(critic.parameters(), lr=0.1)
        second, critic, judge = prepare(accelerator, METHOD, critic, judge)
        optimizers = [matrices, vectors, judge]
        if resumed:
            accelerator.load_state(str(tmp_path / "x"))
        else:
            train(nn.Sequential(model, critic), optimizers, 0, 3)
            accelerator.save_state(str(tmp_path / "x"))
        train(nn.Sequential(model, critic), optimizers, 3, 7)
        scheduler.step()
        state = [copy.deepcopy(each.state_dict()) for each in (model, critic, *optimizers)]
        assert vectors.param_groups[0]["lr"] == 0.005
        counts = first.message_bytes, second.message_bytes
        first.close()
        second.close()
        return [*state, counts]

    whole = run(resumed=False)
    assert sorted(each.name for each in (tmp_path / "x").glob("thinwire*")) == ["thinwire", "thinwire-2"]
    assert same(whole, run(resumed=True))


@needs_lightning
@pytest.mark.filterwarnings("ignore")
def test_lightning_takes_a_module_with_two_optimizers(tmp_path: Path) -> None:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from thinwire.integrations.lightning import ThinwireStrategy

    class Pair(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.body = Body()

        def configure_optimizers(self) -> Any:
            return self.body.optimizers()

        def training_step(self, x: Tensor, index: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(self.body(x).square().mean())
            for optimizer in self.optimizers():
                optimizer.step()

    def run(folder: Path, epochs: int, resumed: str | None = None) -> tuple[dict[str, Tensor], int]:
        strategy = ThinwireStrategy(METHOD)
        saves = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
        trainer = Trainer(
            accelerator="cpu", devices=1, strategy=strategy, max_epochs=epochs, logger=False, callbacks=[saves],
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        module = Pair()
        rows: Any = torch.cat([batch(step) for step in range(3)])  # a data set for all that a loader does with it
        loader: Any = torch.utils.data.DataLoader(rows, batch_size=5)
        trainer.fit(module, loader, ckpt_path=resumed)
        return copy.deepcopy(module.body.state_dict()), strategy.message_bytes

    try:
        whole = run(tmp_path / "whole", 2)
        assert {each.name for each in (tmp_path / "whole").glob("*.thinwire")} == {
            "epoch=0.ckpt.thinwire",
            "epoch=1.ckpt.thinwire",
        }
        resumed = run(tmp_path / "resumed", 2, str(tmp_path / "whole" / "epoch=0.ckpt"))
        assert same(dict(whole[0]), dict(resumed[0]))
        assert whole[1] == resumed[1] > 0
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_a_checkpoint_that_is_saved_again_is_there_at_every_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attachment = Attachment(model, [optimizer], parsed("topk:k=1"), seed=0)
    attachment.save(tmp_path / "last", step=6)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.rename", killed)
        with pytest.raises(KeyboardInterrupt):
            attachment.save(tmp_path / "last", step=9)
    attachment.load(tmp_path / "last", step=6)
    # Where the framework's own part follows, that of the save before fits until it is there.
    attachment.save(tmp_path / "last", step=9, keep=2)
    attachment.load(tmp_path / "last", step=6)
    attachment.load(tmp_path / "last", step=9)
    attachment.save(tmp_path / "last", step=3)
    attachment.load(tmp_path / "last", step=3)
    with pytest.raises(ConfigError, match="no state of step 9, only of step 3"):
        attachment.load(tmp_path / "last", step=9)
    attachment.close()

"""Small scripts around the hook that once went wrong, with what is right."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import life_mains as mains
import links_mains
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import thinwire

SIZE = 2

# Layers that are unfrozen, frozen, unused or replaced, and weights that are loaded.

pytestmark = pytest.mark.filterwarnings("ignore::thinwire.NothingCompressed")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    outcomes = links_mains.run(tmp_path_factory.mktemp("scripts"), mains.scripts, SIZE)
    assert [(each.error, each.text) for each in outcomes] == [("", "")] * SIZE
    return [each.value for each in outcomes]


@pytest.mark.parametrize("script", ["unfreeze", "head replaced"])
def test_a_layer_that_is_unfrozen_or_replaced_joins(script: str, scripts: list[dict[str, Any]]) -> None:
    (one, has_moved), (other, _) = (found[script] for found in scripts)
    assert torch.equal(one, other)
    assert has_moved


def test_what_is_frozen_or_unused_does_not_move(scripts: list[dict[str, Any]]) -> None:
    for found in scripts:
        assert found["frozen moves"]["used"] > 0.0
        assert found["frozen moves"]["spare"] == 0.0
        assert found["frozen moves"]["frozen"] == 0.0


@pytest.mark.parametrize("rank", [0, 1])
def test_weights_that_one_process_loads_are_noticed(rank: int, scripts: list[dict[str, Any]]) -> None:
    (one, said), (other, also_said) = (found[f"loaded by {rank}"] for found in scripts)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))
    for messages in (said, also_said):
        (message,) = messages
        assert f"by the processes [{rank}], and were not equal on all; all have taken those of process 0" in message


def test_weights_that_all_processes_load_are_kept(scripts: list[dict[str, Any]]) -> None:
    assert [found["loaded by all"] for found in scripts] == [True, True]


def test_processes_may_join_early(scripts: list[dict[str, Any]]) -> None:
    (one, steps), (other, also_steps) = (found["join"] for found in scripts)
    assert torch.equal(one, other)
    assert steps == also_steps == 4


# Errors keep their class and their text.


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    outcomes = links_mains.run(tmp_path_factory.mktemp("errors"), mains.errors, SIZE)
    assert [(each.error, each.text) for each in outcomes] == [("", "")] * SIZE
    return [each.value for each in outcomes]


TEXTS = {
    "DivergenceError": "replicas have come apart, found at step 2: 'first.weight' of process 1 is not",
    "WorkerError": "worker 1 raised ValueError: a bad batch",
    "ConfigError": "this handle is closed, so that gradients are not exchanged any more; call compress_ddp again",
    "OSError": "the disk is full",
    "NumericsError": "found at step 3; no memory has taken anything of it",
}


@pytest.mark.parametrize("scenario", [name for name in mains.ERRORS if name != "one freezes"])
def test_an_error_has_its_class_and_its_text_on_every_process(scenario: str, failed: list[dict[str, Any]]) -> None:
    kind = scenario.split(",")[0]
    for found in failed:
        assert found[scenario][0] == kind
        assert TEXTS[kind] in found[scenario][1]


def test_a_layer_that_one_process_freezes_is_an_error_on_all(failed: list[dict[str, Any]]) -> None:
    zero, one = (found["one freezes"] for found in failed)
    assert one[0] == "ConfigError"
    assert "processes train different parameters from step 3 on" in one[1]
    assert zero[0] in ("WorkerError", "WireError", "ProtocolError", "ConfigError")


# Copies.


@pytest.mark.usefixtures("alone")
def test_a_copy_is_a_plain_ddp_and_the_model_goes_on() -> None:
    model, wrapped, hook, optimizer = mains.training()
    with hook:
        mains.one_step(wrapped, optimizer, 0, 0)
        read = torch.load(mains.saved(wrapped), weights_only=False)
        others: list[Any] = [copy.deepcopy(wrapped), read, torch.optim.swa_utils.AveragedModel(wrapped).module]
        for other in others:
            assert torch.equal(other.module.first.weight, model.first.weight)
            mains.loss_of(other, 1, 0).backward()
            dense = torch.autograd.grad(mains.loss_of(model, 1, 0), list(model.parameters()))
            for param, grad in zip(other.module.parameters(), dense, strict=True):
                assert param.grad is not None
                assert torch.allclose(param.grad, grad)
            assert hook.num_steps == 1
            with thinwire.compress_ddp(other, "topk:density=10%", warn_if_slower=False) as second:
                other.zero_grad()
                mains.loss_of(other, 1, 0).backward()
                assert second.message_bytes > 0
        mains.one_step(wrapped, optimizer, 1, 0)
        assert hook.num_steps == 2


@pytest.mark.usefixtures("alone")
def test_a_closed_model_is_copied_and_saved_too() -> None:
    wrapped, hook = mains.hooked(mains.net())
    hook.close()
    hook.close()
    copy.deepcopy(wrapped)
    torch.save(wrapped, io.BytesIO())


# What a model in DDP is.


@pytest.mark.usefixtures("alone")
def test_ddp_is_found_in_other_wrappers() -> None:
    wraps: list[Callable[[nn.Module], Any]] = [
        lambda ddp: torch.compile(ddp, backend="eager"),
        nn.Sequential,
        lambda ddp: ddp,
    ]
    for wrap in wraps:
        ddp = DistributedDataParallel(mains.net())
        model = wrap(ddp)
        with thinwire.compress_ddp(model, "topk:density=10%", warn_if_slower=False) as hook:
            mains.loss_of(model, 0, 0).backward()
            assert hook.message_bytes > 0


@pytest.mark.usefixtures("alone")
def test_what_is_no_ddp_is_refused_with_what_to_give() -> None:
    plain = mains.net()
    ddp = DistributedDataParallel(plain)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    several = nn.ModuleList([ddp, DistributedDataParallel(mains.net())])
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: thinwire.compress_ddp(plain, "sgd"), r"Net is not a DistributedDataParallel"),
        (lambda: thinwire.compress_ddp(ddp.module, "sgd"), r"itself, not its \.module"),
        (lambda: thinwire.compress_ddp(several, "sgd"), r"has 2 models in DistributedDataParallel"),
        (lambda: thinwire.compress_ddp(optimizer, "sgd"), r"an optimizer \(SGD\) was given as the model"),  # type: ignore[arg-type]
        (lambda: thinwire.compress_ddp("sgd", ddp), r"the text 'sgd' was given as the model"),  # type: ignore[arg-type]
        (lambda: thinwire.compress_ddp(ddp, None), r"method = None was given; give a method string"),  # type: ignore[arg-type]
        (lambda: thinwire.compress_ddp(ddp, optimizer), r"give a method string such as"),  # type: ignore[arg-type]
    ]
    for call, message in calls:
        with pytest.raises(thinwire.ConfigError, match=message):
            call()
    first = thinwire.compress_ddp(ddp, "sgd", warn_if_slower=False)
    with pytest.raises(thinwire.ConfigError, match="compressed already"):
        thinwire.compress_ddp(ddp, "sgd", warn_if_slower=False)
    first.close()
    other = DistributedDataParallel(mains.net())
    other.register_comm_hook(None, lambda state, bucket: bucket)
    with pytest.raises(thinwire.ConfigError, match="has another communication hook"):
        thinwire.compress_ddp(other, "sgd")


@pytest.mark.usefixtures("alone")
def test_names_have_no_marks_of_wrappers(tmp_path: Path) -> None:
    """In states, policies and reports; states with marks, as they were once saved, are read too."""

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 64))

    report = thinwire.LayerReport(sink=thinwire.JsonLines(tmp_path / "layers.jsonl"), every=1)
    compiled, hook = mains.hooked(torch.compile(model(), backend="eager"), layer_report=report)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(compiled.parameters(), lr=0.1)
    with hook:
        compiled(torch.ones(1, 64)).sum().backward()
        optimizer.step()
        state = hook.state_dict()
    assert set(state["tensors"]) == {"memory.residual.0.weight", "memory.residual.0.bias"}
    assert '"name": "0.weight"' in (tmp_path / "layers.jsonl").read_text()
    marked = {
        "counters": state["counters"] | {"buckets": [["_orig_mod.0.weight", "_orig_mod.0.bias"]]},
        "tensors": {name.replace(".0.", "._orig_mod.0."): each for name, each in state["tensors"].items()},
    }
    _, plain = mains.hooked(model())
    with plain:
        for each in (state, marked):
            plain.load_state_dict(each)
            assert plain.state_dict()["tensors"].keys() == state["tensors"].keys()
        plain.load_resized([state], [{"module._orig_mod.0.weight": torch.ones(1)}])
    for pattern in ("0.*", "_orig_mod.0.*"):
        policy = thinwire.DensePolicy(patterns=(pattern,), vectors=False, below=0)
        _, dense = mains.hooked(torch.compile(model(), backend="eager"), policy=policy)  # type: ignore[arg-type]
        dense.close()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_sparse_embeddings_are_refused_by_name(kind: type[nn.Module]) -> None:
    words = nn.ModuleDict({"words": kind(9, 4, sparse=True)})
    with pytest.raises(thinwire.ConfigError, match=r"words is an embedding with sparse=True"):
        thinwire.compress_ddp(DistributedDataParallel(words), "signtopk:density=1%")


@pytest.mark.usefixtures("alone")
def test_after_close_nothing_blocks(tmp_path: Path) -> None:
    model = mains.net()
    wrapped, hook = mains.hooked(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with hook:
        mains.one_step(wrapped, optimizer, 0, 0)
        checkpoints = thinwire.Checkpoints(tmp_path, {"model": model, "thinwire": hook})
    for act in (lambda: checkpoints.save(1), lambda: hook.transport.share([1.0])):
        with pytest.raises(thinwire.ConfigError, match="this handle is closed"):
            act()
    with pytest.raises(thinwire.ConfigError, match="this handle is closed"):
        mains.loss_of(wrapped, 1, 0).backward()

"""What a policy leaves to compress, and that it is said if that is nothing."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import thinwire
from thinwire.compressors import Identity
from thinwire.distributed.comm_hook import can_overlap
from thinwire.methods import CATALOG, GradientAveraging, parse_method

SMALL = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
HOOKED = [
    row.name
    for row in CATALOG
    if isinstance(parse_method(row.name), GradientAveraging) and can_overlap(parse_method(row.name))
]


class Adapted(nn.Module):
    """A frozen layer with a low-rank correction, as in LoRA: only the correction is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(100, 100).requires_grad_(False)
        self.down, self.up = nn.Linear(100, 4, bias=False), nn.Linear(4, 100, bias=False)


def told(policy: thinwire.DensePolicy, model: nn.Module, name: str = "qsgd", *, warns: bool = True) -> list[str]:
    method = parse_method(name)
    assert isinstance(method, GradientAveraging)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert policy.names_for(method, model, warns=warns) == policy.dense_names(model)
    assert all(each.category is thinwire.NothingCompressed for each in caught)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("name", HOOKED)
def test_every_method_that_compresses_says_so_where_nothing_is_left(name: str) -> None:
    method = parse_method(name)
    assert isinstance(method, GradientAveraging)
    compresses = not isinstance(method.compressor, Identity) and not method.exchange.needs_linear
    assert len(told(thinwire.DensePolicy(), SMALL, name)) == compresses
    assert told(thinwire.DensePolicy(), SMALL, name, warns=False) == []
    assert told(thinwire.DensePolicy(below=0), SMALL, name) == []


def test_the_numbers_and_a_way_out_are_told() -> None:
    (text,) = told(thinwire.DensePolicy(), SMALL)
    numel = sum(param.numel() for param in SMALL.parameters())
    assert f"all that is trained, 4 parameters of {numel} entries" in text
    assert "2 (300 entries) of few entries (below=); 2 (25 entries) of fewer than two dimensions" in text
    assert "thinwire.DensePolicy(below=0)" in text


def test_frozen_parameters_do_not_count() -> None:
    assert len(told(thinwire.DensePolicy(), Adapted())) == 1
    assert told(thinwire.DensePolicy(below=400), Adapted()) == []
    assert told(thinwire.DensePolicy(), Adapted().requires_grad_(False)) == []


@pytest.mark.parametrize(
    ("policy", "model", "remedy"),
    [
        (thinwire.DensePolicy(), nn.ModuleDict({"words": nn.Embedding(500, 8)}), "embeddings=False"),
        (thinwire.DensePolicy(), nn.LayerNorm(5000), "vectors=False, below=0"),
        (thinwire.DensePolicy(patterns=("*weight",)), nn.Linear(100, 100), "patterns=()"),
        (thinwire.DensePolicy(below=20_000), nn.Linear(100, 100), "below=0"),
    ],
    ids=["embeddings", "vectors", "patterns", "below"],
)
def test_the_way_out_is_a_way_out(policy: thinwire.DensePolicy, model: nn.Module, remedy: str) -> None:
    (text,) = told(policy, model)
    assert f"thinwire.DensePolicy({remedy})" in text
    follows = eval(f"thinwire.DensePolicy({remedy})", {"thinwire": thinwire})
    assert told(follows, model) == []


def test_large_embeddings_are_told_where_they_leave_little_to_save() -> None:
    method = parse_method("ef-sgd")
    assert isinstance(method, GradientAveraging)
    rest = nn.Linear(1024, 1024)
    large = nn.ModuleDict({"words": nn.Embedding(1 << 14, 64), "rest": rest})
    with pytest.warns(thinwire.LittleCompressed) as caught:
        thinwire.DensePolicy().names_for(method, large, warns=True)
    (text,) = (str(each.message) for each in caught)
    full, total = (1 << 20) + 1024, (1 << 20) + 1024 * 1024 + 1024
    assert f"{full:,} of {total:,} entries" in text
    assert f"at most {total / full:.3g} times shorter" in text
    assert "policy=thinwire.DensePolicy(embeddings=False)" in text
    # Warnings are errors: nothing is said of less than a million entries, nor where they are compressed.
    smaller = nn.ModuleDict({"words": nn.Embedding((1 << 14) - 32, 64), "rest": rest})
    thinwire.DensePolicy().names_for(method, smaller, warns=True)
    thinwire.DensePolicy(embeddings=False).names_for(method, large, warns=True)
    thinwire.DensePolicy().names_for(method, large, warns=False)


@pytest.mark.usefixtures("alone")
def test_the_hook_says_it_once_at_the_line_of_the_script() -> None:
    model = DistributedDataParallel(nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5)))
    with pytest.warns(thinwire.NothingCompressed) as caught:
        hook = thinwire.compress_ddp(model, "topk:density=1%", warn_if_slower=False)
    model(torch.ones(2, 10)).sum().backward()
    hook.close()
    assert [each.filename for each in caught] == [__file__]

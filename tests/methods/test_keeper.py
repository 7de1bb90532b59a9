"""What is remembered has names that no cut of the parameters changes, and waits for parameters that are not there."""

import pytest
import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.layout import Layout
from thinwire.methods import parse_method
from thinwire.random import Key
from thinwire.worker.channel import Channel
from thinwire.worker.fragments import make_channels
from thinwire.worker.keeper import Keeper


def parameters() -> dict[str, Tensor]:
    return {"a": torch.zeros(4, 3), "empty": torch.zeros(0), "b": torch.zeros(5), "c": torch.zeros(2, 2)}


def fragments(count: int) -> Keeper:
    named = parameters()
    keeper = Keeper(Layout.of(named))
    method = parse_method(f"sparse-averaging:every=1,fragments={count}")
    keeper.add(make_channels(method, named, 0, 2, Key(0)))
    return keeper


def numbered(keeper: Keeper) -> dict[str, Tensor]:
    """Other numbers in everything that has a name."""
    known = {
        name: torch.arange(tensor.numel()).view(tensor.shape) + 100.0 * place
        for place, (name, tensor) in enumerate(sorted(keeper.live().items()))
    }
    keeper.fill(known)
    return known


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_what_is_of_parameters_has_names_and_shapes_that_no_cut_changes(count: int) -> None:
    keeper = fragments(count)
    known = numbered(keeper)
    found = keeper.tensors()
    assert found.keys() == known.keys()
    assert all(torch.equal(found[name], known[name]) for name in known)
    whole = fragments(1)
    # Of a parameter without entries there is nothing to cut.
    shapes = {name: tensor.shape for name, tensor in whole.live().items() if tensor.numel()}
    assert {name: tensor.shape for name, tensor in found.items() if tensor.numel()} == shapes
    whole.load(found, [None])
    assert all(torch.equal(whole.tensors()[name], known[name]) for name in known)
    again = fragments(count)
    again.load(whole.tensors(), [None] * count)
    assert all(torch.equal(again.tensors()[name], known[name]) for name in known)


def test_what_a_channel_remembers_waits_until_another_has_the_parameter() -> None:
    method = parse_method("dgc")
    named = parameters()
    names = list(named)

    def channel(*which: str) -> Channel:
        return Channel(method, Layout.of({name: named[name] for name in which}), [], 0, 2, Key(0))

    keeper = Keeper(None)
    keeper.add([channel(*names)])
    known = numbered(keeper)
    keeper.park(keeper.channels)
    assert not keeper.channels
    assert keeper.waiting.keys() == known.keys()
    keeper.add([channel("c", "a")])
    assert keeper.waiting.keys() == {name for name in known if name.endswith((".b", ".empty"))}
    keeper.add([channel("empty", "b")])
    assert not keeper.waiting
    assert all(torch.equal(keeper.tensors()[name], known[name]) for name in known)


def test_a_state_of_other_parameters_is_refused_and_changes_nothing() -> None:
    keeper = fragments(2)
    known = numbered(keeper)
    name = next(iter(known))
    others: tuple[dict[str, torch.Tensor], ...] = (
        {**known, f"{name}.more": known[name]},
        {**known, name: torch.zeros(7)},
        {},
    )
    for other in others:
        with pytest.raises(ConfigError, match="the saved state is of another model"):
            keeper.load(other, [None, None])
    assert all(torch.equal(keeper.tensors()[each], known[each]) for each in known)
    for count in (1, 3, 4, 9):
        with pytest.raises(ConfigError) as raised:
            keeper.load(
                {**known, **{f"memory.residual.more{number}": known[name] for number in range(count)}}, [None, None]
            )
        assert str(raised.value).count("memory.residual.more") == min(count, 3)
        assert str(raised.value).endswith(" and others") == (count > 3)

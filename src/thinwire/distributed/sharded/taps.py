"""Where FSDP2 hands over gradients: a hook before they are written, and one for each parameter after that.

``set_all_reduce_hook`` is FSDP2's place for an all-reduce of one's own. It is called once the gradients of a layer are
reduced to this process's shard, before they are added to what ``.grad`` holds; a parameter's own hook is called after
that, with its name, its shape and without padding. So the first puts aside what ``.grad`` holds, and the second finds
the new gradients alone, in the parameter's format and divided as FSDP2 divides them. Nothing is read of how FSDP2 lays
them out.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from thinwire.distributed.sharded.sharded_model import ShardedModel
from thinwire.errors import ConfigError
from thinwire.worker.parameters import local_part

Grads = dict[str, Tensor]


class Taker(Protocol):
    """Who is told of gradients."""

    def layer_begins(self) -> None:
        """The gradients of a layer are there, and not written yet; those that were are set aside after this."""
        ...

    def wait_for(self, names: Mapping[str, Tensor]) -> None:
        """These parameters get another gradient in the same backward pass: what was taken of them must be done."""
        ...

    def take(self, grads: Grads) -> None:
        """All new gradients of a layer, by the parameter's name."""
        ...


class Taps:
    """The hooks in a model, and the gradients that were put aside.

    Args:
        model: sharded.
        taker: is handed the gradients.
    """

    def __init__(self, model: ShardedModel, taker: Taker) -> None:
        self._model = model
        self._taker = taker
        self._own = {layer: set(model.own_of(layer)) for layer in model.layers}
        self._layer = ""
        self._found: Grads = {}
        self._seen: set[str] = set()
        self._aside: Grads = {}
        for name, layer in model.layers.items():
            _attach(layer, functools.partial(self._before, name))
        self._handles = [_register(param, _Hook(self, name)) for name, param in model.params.items()]

    def begin(self) -> None:
        """A backward pass begins: what ``.grad`` holds of any parameter is of before it."""
        self._found, self._seen, self._aside = {}, set(), {}
        self._put_aside(self._model.params)

    def end(self) -> Grads:
        """Hand over what is left; what was put aside, by name, is the caller's now."""
        self._hand_over()
        aside, self._aside = self._aside, {}
        return aside

    def close(self) -> None:
        """Take no more gradients; whoever makes some is told by the hook that stays."""
        for handle in self._handles:
            handle.remove()

    def is_whole(self, names: Any) -> bool:
        """Whether these are all trained parameters of the layer whose gradients are at hand."""
        return {each for each in self._own[self._layer] if self._model.params[each].requires_grad} == set(names)

    def _before(self, layer: str, reduced: Tensor) -> None:
        self._taker.layer_begins()  # what is left of a backward pass that failed is forgotten here
        self._hand_over()
        self._layer = layer
        again = self._own[layer] & self._seen
        if again:
            self._taker.wait_for({name: self._model.params[name] for name in again})
            self._put_aside(again)

    @torch.no_grad()
    def _put_aside(self, names: Any) -> None:
        for name in names:
            param = self._model.params[name]
            if param.grad is None:
                continue
            before = self._aside.get(name)
            if before is None:
                self._aside[name] = param.grad
            else:
                local_part(before).add_(local_part(param.grad))
            param.grad = None

    def found(self, name: str, param: nn.Parameter) -> None:
        """FSDP2 has written the new gradient of a parameter."""
        own = self._own[self._layer]
        if name not in own:  # layers that were sharded together have one hook, that of the last of them
            if name in self._seen:
                raise ConfigError(
                    f"parameter {name!r} has had a gradient in this backward pass already, and one is sharded together "
                    "with it; call fully_shard for each layer by itself"
                )
            own.add(name)
        assert param.grad is not None
        self._seen.add(name)
        self._found[name] = param.grad
        if len(_hooks(param)) > 1:
            raise ConfigError(
                f"parameter {name!r} has a post-accumulate-grad hook of the script's, as for an optimizer's step in "
                "backward, and its gradient is averaged only by the end of backward; step after backward"
            )
        if self.is_whole(self._found):
            self._hand_over()

    def _hand_over(self) -> None:
        found, self._found = self._found, {}
        if found:
            self._taker.take(found)


class _Hook:
    """A parameter's hook; by its class it is known that a handle is there."""

    def __init__(self, taps: Taps, name: str) -> None:
        self.taps = taps
        self._name = name

    def __call__(self, param: nn.Parameter) -> None:
        self.taps.found(self._name, param)


def is_tapped(model: ShardedModel) -> bool:
    """Whether a handle that is open takes this model's gradients."""
    return any(isinstance(hook, _Hook) for param in model.params.values() for hook in _hooks(param))


def refuse_hooks(model: ShardedModel) -> None:
    """Raise :class:`ConfigError` if another handle, or the script, takes gradients as they are written."""
    if is_tapped(model):
        raise ConfigError("the model's gradients are compressed already; close() that handle before the second call")
    for name, param in model.params.items():
        if _hooks(param):
            raise ConfigError(
                f"parameter {name!r} has a post-accumulate-grad hook, as for an optimizer's step in backward, and its "
                "gradient is averaged only by the end of backward; leave it out and step after backward"
            )


def _hooks(param: Tensor) -> list[object]:
    return list((param._post_accumulate_grad_hooks or {}).values())


def _register(param: nn.Parameter, hook: _Hook) -> Any:
    """The hook stays on a parameter that is frozen now, since layers may be unfrozen later."""
    was = param.requires_grad
    param.requires_grad_(True)
    handle = param.register_post_accumulate_grad_hook(hook)
    param.requires_grad_(was)
    return handle


def _attach(layer: Any, hook: Callable[[Tensor], None]) -> None:
    try:
        layer.set_all_reduce_hook(hook)
    except ValueError as error:
        raise ConfigError(
            f"FSDP2 gives a layer whose parameters lie on several meshes (shard_placement_fn) no hook ({error}); shard "
            "these in layers of their own"
        ) from error

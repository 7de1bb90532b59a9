"""The states of workers for another number of workers."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thinwire.errors import ConfigError
from thinwire.memory import ErrorFeedback, RoundedMemory
from thinwire.methods import Method, ModelAveraging
from thinwire.methods.updates import Outer
from thinwire.worker.channel import Channel
from thinwire.worker.parameters import plain_name

Tensors = Mapping[str, Tensor]


def resized(
    method: Method, saved: Sequence[Mapping[str, Any]], models: Sequence[Tensors], rank: int, size: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state and the parameters of worker ``rank`` of ``size``, from those of all workers of a run that was saved.

    What the old workers P still owe the common model, their mean residual, the new workers Q owe:
    ``1/Q sum_q m'_q = 1/P sum_p m_p``, up to the rounding of f32. A mean is what an exchange applies, so the virtual
    iterate ``x - 1/P sum_p m_p`` of the proofs does not move. Workers that stay keep their own residual and share
    what those that leave have left, ``m'_q = Q/P (m_q + 1/Q sum of those that leave)``; new ones begin with zeros.
    Any other memory follows the same rule. What is common to all workers is copied.

    Between two exchanges of a method with local steps every worker has drifted from the common model by ``d_p``. The
    new workers begin at the common model, and ``d_p`` is added to ``m_p``, so that it is not lost.

    Args:
        method: that of the saved run.
        saved: :meth:`thinwire.worker.Worker.state_dict` of every worker, in rank order.
        models: the trained parameters of every worker, by name.
        rank: of the new worker.
        size: number of new workers.

    Returns:
        The state of the new worker, and its parameters by name, f32.

    Raises:
        ConfigError: workers that hold something of their own which has no meaning for another number of them.
    """
    tensors = [dict(each["tensors"]) for each in saved]
    counters = [each["counters"] for each in saved]
    _check(counters)
    exact = [_exact(model, each) for model, each in zip(models, tensors, strict=True)]
    _hand_over(method, tensors, exact)
    common = {name: tensor.clone() for name, tensor in _common(exact).items()}
    names = dict.fromkeys(name for each in tensors for name in each)
    found = {name: _of_rank(name, [each.get(name) for each in tensors], rank, size) for name in names}
    state = {name: tensor for name, tensor in found.items() if tensor is not None}
    own = counters[rank] if rank < len(counters) else {**counters[0], "message_bytes": 0}
    return {"counters": {**own, "rank": rank, "size": size}, "tensors": state}, common


def of_known(known: Collection[str], models: Sequence[Tensors]) -> list[dict[str, Tensor]]:
    """Of every saved model the tensors of these parameters, by their names without the marks of wrappers.

    Example:
        >>> of_known(["w"], [{"module.w": torch.ones(1), "count": torch.ones(1)}])
        [{'w': tensor([1.])}]
    """
    named = [{plain_name(name): tensor for name, tensor in model.items()} for model in models]
    return [{name: tensor for name, tensor in model.items() if name in known} for model in named]


def conserve_mean(parts: Sequence[Tensor], rank: int, size: int) -> Tensor:
    """Part ``rank`` of ``size`` parts with the mean of ``parts``, see :func:`resized`.

    Example:
        >>> parts = [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([6.0])]
        >>> [conserve_mean(parts, rank, 2).item() for rank in range(2)]
        [2.6666667461395264, 3.3333332538604736]
        >>> [conserve_mean(parts, rank, 6).item() for rank in range(6)]
        [2.0, 4.0, 12.0, 0.0, 0.0, 0.0]
    """
    count = len(parts)
    if rank >= count:
        return torch.zeros_like(parts[0])
    own = parts[rank].double()
    for left in parts[size:]:
        own += left.double() / size
    return (own * (size / count)).to(parts[0].dtype)


def _check(counters: Sequence[Mapping[str, Any]]) -> None:
    for name in ("num_steps", "num_exchanges", "method", "seed"):
        values = {each.get(name) for each in counters}
        if len(values) > 1:
            raise ConfigError(f"the saved workers differ in {name}: {sorted(map(str, values))}; give those of one step")
    if any(due is not None for each in counters for due in each.get("pending", ())):
        raise ConfigError(
            "an exchange whose result is applied later was under way when this was saved; another number of workers "
            "can go on from a checkpoint that was made when none is"
        )


def _exact(model: Tensors, tensors: Tensors) -> dict[str, Tensor]:
    """Parameters in f32, with what rounding took from those of fewer bits."""
    return {name: param.float() + tensors.get(f"rounding.lost.{name}", 0.0) for name, param in model.items()}


def _hand_over(method: Method, tensors: Sequence[dict[str, Tensor]], models: Sequence[dict[str, Tensor]]) -> None:
    """Put what every worker has done since the last exchange into its memory, and let it stand at the reference."""
    prefix = "update.reference."
    names = [name.removeprefix(prefix) for name in tensors[0] if name.startswith(prefix)]
    for rank, model in enumerate(models):
        for name in names:
            drift = tensors[rank][prefix + name] - model[name]
            if drift.any():
                tensors[rank][f"memory.residual.{name}"] = _added(method, tensors[rank], name, drift)
    for model in models:
        for name in names:
            model[name] = tensors[0][prefix + name]


def _added(method: Method, tensors: Tensors, name: str, drift: Tensor) -> Tensor:
    plain = isinstance(method, ModelAveraging) and isinstance(method.update, Outer) and method.update.mix == 0.0
    if not plain or not isinstance(method.memory, ErrorFeedback):
        raise ConfigError(
            f"workers have moved from the common model (in {name!r}) since their last exchange, and {method} has no "
            "residual that would keep this for another number of workers; resume with as many workers as before, or "
            "from a checkpoint that was made right after an exchange"
        )
    # The next exchange sends decay * m + (what is done from now on).
    return tensors[f"memory.residual.{name}"] + drift / method.memory.decay


def _common(models: Sequence[Tensors]) -> Tensors:
    for model in models[1:]:
        for name, tensor in models[0].items():
            if not torch.equal(model[name], tensor):
                raise ConfigError(
                    f"the saved workers have models of their own, which differ in {name!r}; such a run can only be "
                    "resumed with as many workers as before"
                )
    return models[0]


def _of_rank(name: str, parts: Sequence[Tensor | None], rank: int, size: int) -> Tensor | None:
    """A worker's tensor from those of the old workers; None if it has none of this name."""
    held = [part for part in parts if part is not None]
    (first, *_) = held
    if name.startswith("rounding."):  # of the new parameters; whoever writes them finds it
        return torch.zeros_like(first)
    if len(held) == len(parts):
        if name.startswith("memory."):
            return conserve_mean(held, rank, size)
        if all(part.shape == first.shape and torch.equal(part, first) for part in held):
            return first.clone()
    elif len(held) == 1 and _holder(parts) < size:  # a server's, which remains the server
        return first.clone() if rank == _holder(parts) else None
    raise no_meaning(name, len(parts))


def _holder(parts: Sequence[Tensor | None]) -> int:
    return next(rank for rank, part in enumerate(parts) if part is not None)


def no_meaning(name: str, count: int) -> ConfigError:
    """The error for what every worker has of its own."""
    return ConfigError(
        f"{name!r} is each saved worker's own and has no meaning for another number of workers; resume with {count} "
        "workers"
    )


def refuse_bound(state: Mapping[str, Any], own: Tensors, count: int) -> None:
    """Raise :class:`ConfigError` if an exchange keeps something of another shape for this number of workers."""
    for name, tensor in state["tensors"].items():
        if name in own and own[name].shape != tensor.shape and name.startswith("exchange."):
            raise no_meaning(name, count)


def refuse_kept(channels: Sequence[Channel]) -> None:
    """Raise :class:`ConfigError` if an exchange keeps something, which may be bound to a worker or to their number."""
    for channel in channels:
        if channel.exchange:
            raise ConfigError(
                f"{channel.method.exchange} keeps {', '.join(channel.exchange)} between exchanges, which has no "
                "meaning for another number of workers; take exchange=gather where workers come and go"
            )


def scale_memory(channel: Channel, factor: float) -> None:
    """What a worker owes a mean is its memory over their number: with ``factor`` times as many, as much more memory."""
    memory, key = channel.method.memory, channel.key.fold("resize", channel.size, "rank", channel.rank)
    scaled = {name: tensor.to(torch.float32) * factor for name, tensor in channel.memory.items()}
    channel.memory = memory.keep(scaled, channel.memory, key) if isinstance(memory, RoundedMemory) else scaled

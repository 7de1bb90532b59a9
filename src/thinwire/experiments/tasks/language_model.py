"""Language models on a text in memory: what ``stdlib-lm`` and ``gpt`` have in common."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinwire.arrays import CPU
from thinwire.experiments.tasks.base import Evaluation, Metric, Split
from thinwire.experiments.tasks.models import held_out, seeded, watched

_BYTES = 256
_EVALUATION_BATCH = 64
_EVALUATION_SCORES = 1 << 25
"""As many scores are in memory at a time, 128 MiB of them, and those of one window at least."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LanguageModelTask:
    """A :class:`~thinwire.experiments.tasks.base.Task`: predict each token of a text from those before it.

    Example ``i`` is the window of ``context + 1`` tokens that starts at token ``i * context``: windows share
    one token, and each token but the first is predicted once. The loss is the mean cross entropy in nats a token, the
    metric the same in bits a byte of text, so that vocabularies compare.

    Args:
        name: the name in tables and records.
        windows: uint8 or int32 ``[num_train, context + 1]``; may be an overlapping view.
        labels: int64 ``[num_train]``, the number of the file in which each window begins, so that sorted
            shards are contiguous text.
        validation: like ``windows``, ``[m, context + 1]``, on which learning rates are chosen.
        test: like ``windows``, ``[m, context + 1]``, on which results are measured.
        token_num_bytes: int64 ``[vocabulary]``, how many bytes of text each token stands for; None if tokens are bytes.
        build: makes the model, which maps tokens int64 ``[b, t]`` to scores ``[b, t, vocabulary]``; a function of a
            module, or a partial one, so that tasks can be sent to other processes. If it draws masks for dropout from
            torch's global generator, a run is as reproducible as its caller's use of that generator.
        batch_size: windows per worker and step.
        learning_rates: ascending.
    """

    name: str
    windows: Tensor
    labels: Tensor
    validation: Tensor
    test: Tensor
    token_num_bytes: Tensor | None
    build: Callable[[], nn.Module]
    batch_size: int
    learning_rates: tuple[float, ...]

    @property
    def metric(self) -> Metric:
        """Bits per byte: 8 is no knowledge at all."""
        return Metric("bits per byte", higher_is_better=False, best=0.0)

    @property
    def num_train(self) -> int:
        """Number of training windows."""
        return len(self.windows)

    def model(self, seed: int) -> nn.Module:
        """A fresh transformer; equal seeds give equal bits."""
        return seeded(seed, self.build)

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        """Mean cross entropy per token, in nats, of the training windows at ``indices``."""
        return _cross_entropy(model, self.windows.index_select(0, indices))

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        """Mean cross entropy in nats a token, and the same in bits per byte, over the held-out windows."""
        windows = held_out(split, validation=self.validation, test=self.test)
        vocabulary, bytes_per_token = _BYTES, 1.0
        if self.token_num_bytes is not None:
            vocabulary = len(self.token_num_bytes)
            bytes_per_token = float(self.token_num_bytes[windows[:, 1:].long()].double().mean())
        num_scores = (windows.shape[1] - 1) * vocabulary
        batch_size = max(1, min(_EVALUATION_BATCH, _EVALUATION_SCORES // num_scores))
        loss = watched(model, partial(_mean_loss, model, windows, batch_size))
        return Evaluation(loss=loss, value=loss / math.log(2) / bytes_per_token)


def windows_of(tokens: Tensor, context: int) -> Tensor:
    """A view ``[num, context + 1]``, in which neighbours share a token: a window costs no memory of its own."""
    return tokens.unfold(0, context + 1, context)


def spread(windows: Tensor, count: int) -> Tensor:
    """At most ``count`` of the windows, at even distances."""
    count = min(count, len(windows))
    return windows.index_select(0, torch.arange(count, dtype=torch.int64, device=CPU) * len(windows) // count)


def file_of_each(lengths: Tensor, num_windows: int, context: int) -> Tensor:
    """int64 ``[num_windows]``: the number of the file in which each window begins.

    Args:
        lengths: of the files, in tokens, int64.
        num_windows: how many windows there are.
        context: from the beginning of one to that of the next.

    Example:
        >>> file_of_each(torch.tensor([3, 5]), 3, 2).tolist()
        [0, 0, 1]
    """
    ends = lengths.cumsum(0)
    return torch.searchsorted(ends, torch.arange(num_windows, dtype=torch.int64, device=CPU) * context, right=True)


def _cross_entropy(model: nn.Module, windows: Tensor) -> Tensor:
    tokens = windows.long()
    scores: Tensor = model(tokens[:, :-1])
    return F.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())


def _mean_loss(model: nn.Module, windows: Tensor, batch_size: int) -> float:
    total = 0.0
    for batch in torch.split(windows, batch_size):
        total += float(_cross_entropy(model, batch)) * len(batch)
    return total / len(windows)

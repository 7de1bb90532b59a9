"""Which parameters are compressed, and which are sent as they are beside them."""

import fnmatch
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thinwire.compressors import Compressor, Traits, segment_traits
from thinwire.compressors.base import compress_residual
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.payloads import Dense, Joined, Payload
from thinwire.random import Key


@dataclass(frozen=True, slots=True)
class DensePolicy:
    """Parameters that are sent in full: what is small, and what compression tends to harm.

    Args:
        patterns: names, with ``*`` and ``?``, of parameters that are sent in full.
        vectors: whether parameters of fewer than two dimensions are (biases, scales of normalisation layers).
        embeddings: whether the weights of ``nn.Embedding`` are.
        below: parameters of fewer entries are.

    Example:
        >>> model = nn.ModuleDict({"words": nn.Embedding(9, 4), "body": nn.Linear(40, 40), "head": nn.Linear(40, 2)})
        >>> sorted(DensePolicy(patterns=("head.*",)).dense_names(model))
        ['body.bias', 'head.bias', 'head.weight', 'words.weight']
    """

    patterns: tuple[str, ...] = ()
    vectors: bool = True
    embeddings: bool = True
    below: int = 1024

    def dense_names(self, model: nn.Module) -> frozenset[str]:
        """The names of the parameters of ``model`` that are sent in full.

        Raises:
            ConfigError: a pattern that fits no parameter.
        """
        named = dict(model.named_parameters())
        for pattern in self.patterns:
            if not fnmatch.filter(named, pattern):
                raise ConfigError(
                    f"the pattern {pattern!r} fits no parameter of the model; its first are "
                    f"{', '.join(list(named)[:5])}"
                )
        embedded = {
            id(module.weight) for module in model.modules() if self.embeddings and isinstance(module, nn.Embedding)
        }
        return frozenset(
            name
            for name, param in named.items()
            if (self.vectors and param.dim() < 2)
            or param.numel() < self.below
            or id(param) in embedded
            or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns)
        )


@dataclass(frozen=True, slots=True)
class PartlyDense:
    """``compressor`` on the first entries, the others as they are.

    Args:
        compressor: of the first ``segments.numel`` entries.
        segments: their cut.
        num_dense: how many entries follow.
    """

    compressor: Compressor
    segments: Segments
    num_dense: int

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """Both parts in one message; its own cut counts."""
        first = self.compressor.compress(x[: self.segments.numel], key, self.segments)
        return Joined((first, Dense(x[self.segments.numel :].clone())))

    def compress_residual(
        self, x: Tensor, residual: Tensor, decay: float, out: Tensor, key: Key, segments: Segments
    ) -> Payload:
        """As :meth:`thinwire.compressors.FusedCompressor.compress_residual`; what is sent in full leaves nothing."""
        numel = self.segments.numel
        first = compress_residual(
            self.compressor, x[:numel], residual[:numel], decay, out[:numel], key, self.segments
        )  # fmt: skip
        # The residual of these entries is 0, but for what was left of them when they were not sent in full.
        rest = residual[numel:] * decay + x[numel:]
        out[numel:] = 0.0
        return Joined((first, Dense(rest)))

    def outline(self, segments: Segments) -> Payload:
        """Both outlines."""
        return Joined(
            (
                self.compressor.outline(self.segments),
                Dense(torch.empty(self.num_dense, dtype=torch.float32, device="meta")),
            )
        )

    def traits(self, numel: int) -> Traits:
        """Those of the compressed part."""
        return segment_traits(self.compressor, self.segments)

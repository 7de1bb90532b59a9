"""Which parameters are compressed, and which are sent as they are beside them."""

import fnmatch
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from thinwire.compressors import Compressor, Identity, Traits, segment_traits
from thinwire.compressors.base import compress_residual
from thinwire.errors import ConfigError
from thinwire.layout import Segments
from thinwire.methods import GradientAveraging
from thinwire.payloads import Concat, Dense, Payload
from thinwire.random import Key
from thinwire.worker.parameters import named_parameters, plain_name


class NothingCompressed(UserWarning):
    """All that is trained is sent in full, so that compression saves nothing; the message holds the numbers."""


class LittleCompressed(UserWarning):
    """So much of what is trained is sent in full that compression saves little; the message holds the numbers."""


_LARGE_NUMEL, _LARGE_SHARE = 1 << 20, 0.1
"""What is sent in full is told where it is 4 MB a step and more, and a tenth of all."""


@dataclass(frozen=True, slots=True)
class DensePolicy:
    """Parameters that are sent in full: what is small, and what compression tends to harm.

    Args:
        patterns: names, with ``*`` and ``?``, of parameters that are sent in full; without what wrappers, as of
            ``torch.compile``, put before names.
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
        return frozenset(self._reasons(model))

    def names_for(self, method: GradientAveraging, model: nn.Module, *, warns: bool) -> frozenset[str]:
        """:meth:`dense_names`; a warning says so if nothing, or too little, of what is trained is left.

        Args:
            method: what is to compress the rest.
            model: whose parameters are exchanged.
            warns: whether this process is the one that says it.

        Warns:
            NothingCompressed: all is sent in full.
            LittleCompressed: a tenth or more of all is, and a million entries or more, such as large embeddings.
        """
        reasons = self._reasons(model)
        trained = {name: param.numel() for name, param in named_parameters(model).items() if param.requires_grad}
        # A method that sends everything as it is has nothing to lose, and one that sums messages takes no policy.
        is_meant = not isinstance(method.compressor, Identity) and not method.exchange.needs_linear
        full = {name: numel for name, numel in trained.items() if name in reasons}
        if warns and is_meant and full:
            self._warn(full, trained, reasons)
        return frozenset(reasons)

    def _warn(self, full: Mapping[str, int], trained: Mapping[str, int], reasons: "Mapping[str, _Reason]") -> None:
        """If there is cause to.

        Args:
            full: entries of what is trained and sent in full.
            trained: entries of all that is trained.
            reasons: why each is sent in full.
        """
        entries = Counter[_Reason]()
        for name, numel in full.items():
            entries[reasons[name]] += numel
        counts = Counter(reasons[name] for name in full)
        listed = "; ".join(f"{counts[why]} ({entries[why]:,} entries) {why.value}" for why in entries)
        remedy = f"thinwire.DensePolicy({_REMEDIES[entries.most_common(1)[0][0]]})"
        if len(full) == len(trained):
            warnings.warn(
                f"all that is trained, {len(trained)} parameters of {entries.total():,} entries, is sent in full by "
                f"{self}, so that compression saves nothing: {listed}. Give a policy= that leaves more to compress, "
                f"such as {remedy}, or train with plain DDP",
                NothingCompressed,
                stacklevel=5,
            )
        elif entries.total() >= max(_LARGE_NUMEL, _LARGE_SHARE * sum(trained.values())):
            numel, total = entries.total(), sum(trained.values())
            warnings.warn(
                f"{numel:,} of {total:,} entries that are trained are sent in full by {self}, {4e-6 * numel:.3g} MB a "
                f"step, so that messages are at most {total / numel:.3g} times shorter than dense ones: {listed}. If "
                "these may be compressed (an embedding that is also the output layer has a dense gradient), give "
                f"policy={remedy}",
                LittleCompressed,
                stacklevel=5,
            )

    def _reasons(self, model: nn.Module) -> "dict[str, _Reason]":
        """Why each parameter that is sent in full is."""
        named = named_parameters(model)
        patterns = [plain_name(pattern) for pattern in self.patterns]
        for pattern in patterns:
            if not fnmatch.filter(named, pattern):
                raise ConfigError(
                    f"the pattern {pattern!r} fits no parameter of the model; its first are "
                    f"{', '.join(list(named)[:5])}"
                )
        embedded = {
            id(module.weight) for module in model.modules() if self.embeddings and isinstance(module, nn.Embedding)
        }
        found = {}
        for name, param in named.items():
            if self.vectors and param.dim() < 2:
                found[name] = _Reason.VECTOR
            elif id(param) in embedded:
                found[name] = _Reason.EMBEDDING
            elif param.numel() < self.below:
                found[name] = _Reason.SMALL
            elif any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                found[name] = _Reason.PATTERN
        return found


class _Reason(Enum):
    """Why a parameter is sent in full."""

    VECTOR = "of fewer than two dimensions"
    EMBEDDING = "of embeddings"
    SMALL = "of few entries (below=)"
    PATTERN = "named by patterns="


_REMEDIES = {
    _Reason.VECTOR: "vectors=False, below=0",
    _Reason.EMBEDDING: "embeddings=False",
    _Reason.SMALL: "below=0",
    _Reason.PATTERN: "patterns=()",
}


@dataclass(frozen=True, slots=True)
class PartlyDense:
    """``compressor`` on the first entries, the others as they are.

    Args:
        compressor: of the first ``segments.numel`` entries.
        segments: those of the vector.
        num_dense: how many entries follow.
    """

    compressor: Compressor
    segments: Segments
    num_dense: int

    def compress(self, x: Tensor, key: Key, segments: Segments) -> Payload:
        """Both parts in one message; its own segments count."""
        first = self.compressor.compress(x[: self.segments.numel], key, self.segments)
        return Concat((first, Dense(x[self.segments.numel :].clone())))

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
        return Concat((first, Dense(rest)))

    def outline(self, segments: Segments) -> Payload:
        """Both outlines."""
        return Concat(
            (
                self.compressor.outline(self.segments),
                Dense(torch.empty(self.num_dense, dtype=torch.float32, device="meta")),
            )
        )

    def traits(self, numel: int) -> Traits:
        """Those of the compressed part."""
        return segment_traits(self.compressor, self.segments)

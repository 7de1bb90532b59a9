"""Which tensors make up the weights, as words of four formats, cut into blocks."""

import functools
import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from thinwire.arrays import empty_array, tensor_of
from thinwire.errors import ConfigError, WireError
from thinwire.kernels.entropy.word_steps import Words
from thinwire.staging import stage

BLOCK = 1 << 21
"""Words that are coded on their own: what is under way takes so much memory, however large the model is."""

DIGEST_NUM_BYTES = 16
MAX_LAYOUT_NUM_BYTES = 1 << 24
"""Of the names and shapes of a model, written down."""

FORMATS = (Words(16, 7, 8), Words(16, 10, 5), Words(32, 23, 8), Words(8, 0, 0))
"""bf16, f16, f32, and the bytes of everything else."""
_FORMAT_OF = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
_BITS = {8: np.uint8, 16: np.int16, 32: np.int32}
_INTEGERS = {8: torch.uint8, 16: torch.int16, 32: torch.int32}

Named: TypeAlias = nn.Module | Mapping[str, Tensor]
"""A model, or tensors by name."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive words of a tensor: its number, and the first and the last word but one."""

    tensor: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Block:
    """Words that are coded together, all of one format.

    Args:
        format: its number in :data:`FORMATS`.
        pieces: what they are, one after the other.
        numel: how many.
    """

    format: int
    pieces: tuple[Piece, ...]
    numel: int

    @property
    def words(self) -> Words:
        """Their format."""
        return FORMATS[self.format]


@dataclass(frozen=True)
class WeightLayout:
    """Names, types and shapes, in order.

    Example:
        >>> layout = WeightLayout.of({"w": torch.zeros(2, 3, dtype=torch.bfloat16), "n": torch.tensor(5)})
        >>> [(block.format, block.numel) for block in layout.blocks]
        [(0, 6), (3, 8)]
        >>> WeightLayout.from_bytes(layout.to_bytes()) == layout
        True
    """

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> "WeightLayout":
        """That of named tensors, in their own order."""
        dtypes = tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
        return WeightLayout(tuple(tensors), dtypes, tuple(tuple(tensor.shape) for tensor in tensors.values()))

    @staticmethod
    def from_bytes(data: bytes) -> "WeightLayout":
        """Read what :meth:`to_bytes` wrote.

        Raises:
            WireError: anything else.
        """
        if len(data) > MAX_LAYOUT_NUM_BYTES:
            raise WireError(f"a list of tensors of {len(data)} bytes is declared; {MAX_LAYOUT_NUM_BYTES} are accepted")
        try:
            rows = [(str(name), str(dtype), tuple(map(int, shape))) for name, dtype, shape in json.loads(data)]
        except (ValueError, TypeError, RecursionError) as error:
            raise WireError(f"the list of tensors cannot be read ({error})") from error
        names, dtypes, shapes = zip(*rows, strict=True) if rows else ((), (), ())
        if (
            not _dtypes().keys() >= set(dtypes)
            or len(set(names)) < len(names)
            or any(size < 0 for shape in shapes for size in shape)
        ):
            raise WireError("the list of tensors has an unknown type, a name twice or a negative size")
        return WeightLayout(names, dtypes, shapes)

    def to_bytes(self) -> bytes:
        """JSON: a name, a type and a shape for each tensor."""
        return json.dumps(list(zip(self.names, self.dtypes, self.shapes, strict=True))).encode()

    @functools.cached_property
    def digest(self) -> bytes:
        """BLAKE2b of :meth:`to_bytes`."""
        return hashlib.blake2b(self.to_bytes(), digest_size=DIGEST_NUM_BYTES).digest()

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All words, format by format, in order."""
        found = []
        for number in range(len(FORMATS)):
            pieces: list[Piece] = []
            left = BLOCK
            for tensor, numel in enumerate(self._numels(number)):
                start = 0
                while start < numel:
                    stop = min(numel, start + left)
                    pieces.append(Piece(tensor, start, stop))
                    left -= stop - start
                    start = stop
                    if left == 0:
                        found.append(Block(number, tuple(pieces), BLOCK))
                        pieces, left = [], BLOCK
            if pieces:
                found.append(Block(number, tuple(pieces), BLOCK - left))
        return tuple(found)

    @property
    def numel(self) -> int:
        """Numbers of all tensors."""
        return sum(map(math.prod, self.shapes))

    def difference(self, other: "WeightLayout") -> str:
        """The first difference, in words; empty if there is none."""
        ours, theirs = (
            dict(zip(each.names, zip(each.dtypes, each.shapes, strict=True), strict=True)) for each in (self, other)
        )
        for name in ours.keys() | theirs.keys():
            if name not in theirs or name not in ours:
                return f"{name!r} is {'only here' if name in ours else 'only there'}"
        for name, (dtype, shape) in ours.items():
            if theirs[name] != (dtype, shape):
                return f"{name!r} is {dtype} {list(shape)} here and {theirs[name][0]} {list(theirs[name][1])} there"
        return "" if self.names == other.names else "the tensors are in another order"

    def _numels(self, number: int) -> list[int]:
        """Words of this format in each tensor."""
        numels = []
        for dtype, shape in zip(self.dtypes, self.shapes, strict=True):
            kind = _dtypes()[dtype]
            own = _FORMAT_OF.get(kind, len(FORMATS) - 1) == number
            num_bytes = math.prod(shape) * kind.itemsize if own else 0
            numels.append(num_bytes * 8 // FORMATS[number].bits)
        return numels


def tensors_of(weights: Named) -> dict[str, Tensor]:
    """The tensors of a model's state, or those given; of those that share their memory (tied weights) the first.

    Raises:
        ConfigError: a tensor that is not a plain one with memory of its own process.

    Example:
        >>> list(tensors_of(nn.BatchNorm1d(2)))
        ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """
    state = weights.state_dict(keep_vars=True) if isinstance(weights, nn.Module) else weights
    tensors: dict[str, Tensor] = {}
    seen = set()
    for name, value in state.items():
        tensor = value.detach() if isinstance(value, Tensor) else value
        if not _is_plain(tensor):
            raise ConfigError(
                f"{name!r} is a {type(value).__name__} that is not a plain dense tensor with data; give a mapping of "
                "names to plain tensors (of a sharded one its full_tensor())"
            )
        place = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() == 0 or place not in seen:
            tensors[name] = tensor
        seen.add(place)
    return tensors


def _is_plain(tensor: object) -> bool:
    sharded = sys.modules.get("torch.distributed.tensor")  # where nobody imported it no tensor is one of its own
    if not isinstance(tensor, Tensor) or (sharded is not None and isinstance(tensor, sharded.DTensor)):
        return False
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized


def gather(blocks: Sequence[Block], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The words of each block as vectors of integers on the CPU, copied."""
    parts = [
        [_flat(tensors[piece.tensor], block)[piece.start : piece.stop] for piece in block.pieces] for block in blocks
    ]
    staged = iter(stage([part for each in parts for part in each]).wait())
    gathered = []
    for block in blocks:
        words = empty_array(block.numel, _BITS[block.words.bits])
        end = 0
        for piece in block.pieces:
            start, end = end, end + piece.stop - piece.start
            # numpy copies in this thread: to wake others for each of many small tensors takes longer.
            words[start:end] = next(staged).numpy()
        gathered.append(tensor_of(words))
    return gathered


def scatter(block: Block, words: Tensor, places: Tensor, tensors: Sequence[Tensor]) -> set[int]:
    """Write a block's words to its tensors, where any of them is new.

    Args:
        block: which words.
        words: all of them.
        places: those that are new, ascending: int32.
        tensors: to be written to.

    Returns:
        The numbers of the tensors that were written to.
    """
    borders = np.cumsum([0, *(piece.stop - piece.start for piece in block.pieces)])
    touched = np.flatnonzero(np.diff(np.searchsorted(places.numpy(), borders)))
    for number in touched:
        piece = block.pieces[number]
        tensor = tensors[piece.tensor]
        flat = _flat(tensor, block)
        target, source = flat[piece.start : piece.stop], words[borders[number] : borders[number + 1]]
        if target.is_cpu:
            target.numpy()[:] = source.numpy()
        else:
            target.copy_(source)
        if not tensor.is_contiguous():  # then it is a copy that was written to
            tensor.copy_(flat.view(tensor.dtype).view(tensor.shape))
    return {block.pieces[number].tensor for number in touched}


def _flat(tensor: Tensor, block: Block) -> Tensor:
    return tensor.reshape(-1).view(_INTEGERS[block.words.bits])


@functools.cache
def _dtypes() -> Mapping[str, torch.dtype]:
    """By name."""
    found = (value for value in vars(torch).values() if isinstance(value, torch.dtype))
    return {str(dtype).removeprefix("torch."): dtype for dtype in found}

"""A byte-pair vocabulary of a text, by the library ``tokenizers``; what takes long is kept for the next time."""

import hashlib
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.files import StrPath, write_beside
from thinwire.plugins import import_package

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LEAST = 257
"""Every byte, and the end of a file."""


@dataclass(frozen=True, slots=True, eq=False)
class BytePairs:
    """Tokens for the bytes of a text: first the 256 bytes, then merges, the most frequent first; the last ends a file.

    Args:
        tokenizer: for all but the last.
        size: of the vocabulary. If the text is too short for so many merges, some tokens stand for nothing.

    Example:
        >>> vocabulary = BytePairs.trained([b"to be, or not to be"], size=260)
        >>> tokens = vocabulary.tokens([b"to be"])[0]
        >>> tokens[-1].item(), int(vocabulary.num_bytes()[tokens.long()].sum())
        (259, 5)
    """

    tokenizer: "Tokenizer"
    size: int

    @staticmethod
    def trained(texts: Sequence[bytes], size: int) -> "BytePairs":
        """The vocabulary of some texts in UTF-8, split into words as GPT-2's; the same texts give the same one.

        Raises:
            ConfigError: fewer than 257 tokens, or tokenizers is not installed.
        """
        if size < _LEAST:
            raise ConfigError(f"a vocabulary of {size} was given; {_LEAST} tokens, the bytes and an end, are the least")
        package = import_package("tokenizers", "a byte-pair vocabulary", "thinwire[text]")
        tokenizer = package.Tokenizer(package.models.BPE())
        words = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = words
        trainer = package.trainers.BpeTrainer(
            vocab_size=size - 1, initial_alphabet=sorted(words.alphabet()), show_progress=False
        )
        tokenizer.train_from_iterator((text.decode() for text in texts), trainer)
        return BytePairs(tokenizer, size)

    def tokens(self, texts: Sequence[bytes]) -> list[Tensor]:
        """int32 tokens of each text, with an end after each."""
        coded = self.tokenizer.encode_batch_fast([text.decode() for text in texts])
        return [torch.tensor([*each.ids, self.size - 1], dtype=torch.int32, device=CPU) for each in coded]

    def num_bytes(self) -> Tensor:
        """int64 ``[size]``: how many bytes each token stands for, 0 for the end of a file."""
        counts = torch.zeros(self.size, dtype=torch.int64, device=CPU)
        for token, place in self.tokenizer.get_vocab().items():
            counts[place] = len(token)  # one character of its alphabet for each byte
        return counts


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """A text in tokens.

    Args:
        splits: int32 tokens of each part, file after file.
        lengths: of the files of each part, int64.
        num_bytes: int64 ``[vocabulary]``, see :meth:`BytePairs.num_bytes`.
    """

    splits: Mapping[str, Tensor]
    lengths: Mapping[str, Tensor]
    num_bytes: Tensor


def tokenised(splits: Mapping[str, Sequence[bytes]], size: int, folder: StrPath | None = None) -> Tokens:
    """The parts of a text in the vocabulary of its ``train``, or what was kept of an earlier call with the same text.

    Args:
        splits: files in UTF-8 by part.
        size: of the vocabulary.
        folder: where the tokens are kept, in a file whose name is a hash of all that they depend on; None:
            ``.cache/thinwire`` in the user's home. Where nothing can be written a UserWarning says so.

    Raises:
        ConfigError: see :meth:`BytePairs.trained`.
    """
    path = (
        Path.home() / ".cache" / "thinwire" if folder is None else Path(folder)
    ) / f"tokens-{_digest(splits, size)}.pt"
    kept = _read(path)
    if kept is not None:
        return kept
    pairs = BytePairs.trained(splits["train"], size)
    files = {name: pairs.tokens(texts) for name, texts in splits.items()}
    made: dict[str, Any] = {
        "splits": {
            name: torch.cat([torch.empty(0, dtype=torch.int32, device=CPU), *tokens]) for name, tokens in files.items()
        },
        "lengths": {
            name: torch.tensor([len(each) for each in tokens], dtype=torch.int64, device=CPU)
            for name, tokens in files.items()
        },
        "num_bytes": pairs.num_bytes(),
    }
    try:
        write_beside(path, partial(torch.save, made))
    except ConfigError as error:
        warnings.warn(f"the tokens of the text are made again each time: {error}", stacklevel=2)
    return Tokens(**made)


def _digest(splits: Mapping[str, Sequence[bytes]], size: int) -> str:
    try:
        version = metadata.version("tokenizers")
    except metadata.PackageNotFoundError:
        version = ""  # what needs it says so
    state = hashlib.blake2b(f"{size} {version}".encode(), digest_size=16)
    for name, texts in splits.items():
        for text in texts:
            state.update(f"{name} {len(text)} ".encode())
            state.update(text)
    return state.hexdigest()


def _read(path: Path) -> Tokens | None:
    """What is kept; None if it is not there, or damaged: then it is made again."""
    try:
        found: dict[str, Any] = torch.load(path, weights_only=True)
        return Tokens(**found)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, TypeError):
        return None

"""``stdlib-lm``: a byte-level transformer on the source text of Python's own standard library."""

import hashlib
import math
import os
import sysconfig
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinwire.errors import ConfigError
from thinwire.experiments.tasks.base import Evaluation, Metric, Split
from thinwire.experiments.tasks.models import held_out, seeded, watched
from thinwire.experiments.tasks.transformer import Transformer
from thinwire.files import StrPath

_MAX_BYTES = 6_000_000
_MIN_BYTES = 100_000
_EVALUATION_WINDOWS = 256
_EVALUATION_BATCH = 64

# Foreign packages, tests, and tables or data that are not source text one would want to predict.
_SKIPPED_FOLDERS = frozenset(
    (
        *("site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"),
        *("idlelib", "turtledemo", "encodings", "lib2to3", "pydoc_data"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LanguageModelTask:
    """A :class:`~thinwire.experiments.tasks.base.Task`: predict each byte of a text from those before it.

    Example ``i`` is the window of ``context + 1`` bytes that starts at byte ``i * context``: windows share
    one byte, and each byte but the first is predicted once. The loss is the mean cross entropy in nats, the
    metric the same in bits per byte.

    Args:
        name: the name in tables and records.
        windows: uint8 ``[num_train, context + 1]``; may be an overlapping view.
        labels: int64 ``[num_train]``, the number of the file in which each window begins, so that sorted
            shards are contiguous text.
        validation: uint8 ``[m, context + 1]``, on which learning rates are chosen.
        test: uint8 ``[m, context + 1]``, on which results are measured.
        dropout: probability, 0 or more and below 1. Above 0, the masks come from torch's global generator,
            and a run is as reproducible as its caller's use of that generator.
        batch_size: windows per worker and step.
        learning_rates: ascending.
    """

    name: str
    windows: Tensor
    labels: Tensor
    validation: Tensor
    test: Tensor
    dropout: float
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
        return seeded(seed, partial(Transformer, context=self.windows.shape[1] - 1, dropout=self.dropout))

    def loss(self, model: nn.Module, indices: Tensor) -> Tensor:
        """Mean cross entropy per byte, in nats, of the training windows at ``indices``."""
        return _cross_entropy(model, self.windows.index_select(0, indices))

    def evaluate(self, model: nn.Module, split: Split) -> Evaluation:
        """Mean cross entropy in nats, and the same in bits per byte, over the held-out windows."""
        windows = held_out(split, validation=self.validation, test=self.test)
        return watched(model, partial(_evaluate, model, windows))


def stdlib_lm(*, context: int = 128, dropout: float = 0.0, folder: StrPath | None = None) -> LanguageModelTask:
    """The source files of the interpreter's own standard library, and a transformer of 476,416 parameters.

    All ``*.py`` files of the library, without installed packages, tests, ``idlelib`` and files that are
    mostly tables or made for one machine, in the order of their relative paths, until 6 MB are read. A hash
    of its relative path puts each file into training (about 90 %), validation or test (about 5 % each): no
    file is in two splits. Evaluation reads 256 windows spread evenly over the held-out text. There is nothing
    to download; since the text is that of the interpreter, numbers compare only between runs on the same
    version of Python.

    Args:
        context: bytes that the model sees, at least 1.
        dropout: probability, 0 or more and below 1; see :class:`LanguageModelTask`.
        folder: another folder of Python files; None: the standard library.

    Raises:
        ConfigError: the folder has less than 100 kB of source text (an interpreter that keeps its library in
            a zip archive or as byte code alone), a split has no whole window, or an argument is out of range.
    """
    if context < 1 or not 0 <= dropout < 1:
        raise ConfigError(f"context is {context} and dropout {dropout}; context >= 1 and 0 <= dropout < 1.")
    root = Path(sysconfig.get_path("stdlib") if folder is None else folder)
    splits = _read_splits(root)
    num_bytes = sum(len(text) for files in splits.values() for text in files)
    if num_bytes < _MIN_BYTES:
        raise ConfigError(
            f"stdlib-lm found {num_bytes:,} bytes of Python source in {root}, and needs {_MIN_BYTES:,}. "
            "It learns from the *.py files of the standard library; run it with an interpreter that has them "
            "as plain files, neither zipped nor as byte code alone."
        )
    short = [name for name, files in splits.items() if sum(map(len, files)) <= context]
    if short:
        raise ConfigError(f"{root} has no {context + 1} bytes for {' and '.join(short)}; lower the context.")
    windows = _windows(splits["train"], context)
    ends = torch.tensor([len(text) for text in splits["train"]], dtype=torch.int64).cumsum(0)
    starts = torch.arange(len(windows), dtype=torch.int64) * context
    return LanguageModelTask(
        name="stdlib-lm",
        windows=windows,
        labels=torch.searchsorted(ends, starts, right=True),
        validation=_spread(_windows(splits["validation"], context)),
        test=_spread(_windows(splits["test"], context)),
        dropout=dropout,
        batch_size=8,
        learning_rates=(0.03, 0.1, 0.3, 1.0),
    )


def _read_splits(root: Path) -> dict[str, list[bytes]]:
    splits: dict[str, list[bytes]] = {"train": [], "validation": [], "test": []}
    num_bytes = 0
    for name in _file_names(root):
        text = (root / name).read_bytes()
        num_bytes += len(text)
        if num_bytes > _MAX_BYTES:
            break
        if text:
            splits[_split_of(name)].append(text)
    return splits


def _file_names(root: Path) -> list[str]:
    names = []
    for folder, subfolders, files in os.walk(root):
        # Cut here, not filtered afterwards: site-packages may hold a hundred thousand files.
        subfolders[:] = [name for name in subfolders if name not in _SKIPPED_FOLDERS]
        # _sysconfigdata describes the build of one machine.
        sources = [name for name in files if name.endswith(".py") and not name.startswith("_sysconfigdata")]
        names += [(Path(folder) / name).relative_to(root).as_posix() for name in sources]
    return sorted(names)


def _split_of(name: str) -> str:
    draw = hashlib.blake2b(name.encode(), digest_size=1).digest()[0]  # 0 to 255
    return "validation" if draw < 13 else "test" if draw < 26 else "train"


def _windows(files: list[bytes], context: int) -> Tensor:
    """A view, uint8 ``[num, context + 1]``: a window costs no more memory than its text."""
    return torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8).unfold(0, context + 1, context)


def _spread(windows: Tensor) -> Tensor:
    count = min(_EVALUATION_WINDOWS, len(windows))
    return windows.index_select(0, torch.arange(count, dtype=torch.int64) * len(windows) // count)


def _cross_entropy(model: nn.Module, windows: Tensor) -> Tensor:
    tokens = windows.long()
    scores: Tensor = model(tokens[:, :-1])
    return F.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())


def _evaluate(model: nn.Module, windows: Tensor) -> Evaluation:
    total = 0.0
    for batch in torch.split(windows, _EVALUATION_BATCH):
        total += float(_cross_entropy(model, batch)) * len(batch)
    loss = total / len(windows)
    return Evaluation(loss=loss, value=loss / math.log(2))

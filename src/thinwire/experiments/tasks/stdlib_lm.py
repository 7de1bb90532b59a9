"""``stdlib-lm``: a byte-level transformer on the source text of Python's own standard library."""

import sysconfig
from functools import partial
from pathlib import Path

import torch

from thinwire.arrays import CPU
from thinwire.errors import ConfigError
from thinwire.experiments.tasks.language_model import LanguageModelTask, file_of_each, spread, windows_of
from thinwire.experiments.tasks.text_files import python_sources, read_splits
from thinwire.experiments.tasks.transformer import Transformer
from thinwire.files import StrPath

_MAX_BYTES = 6_000_000
_MIN_BYTES = 100_000
_EVALUATION_WINDOWS = 256


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
        dropout: probability, 0 or more and below 1; its masks come from torch's global generator.
        folder: another folder of Python files; None: the standard library.

    Raises:
        ConfigError: the folder has less than 100 kB of source text (an interpreter that keeps its library in
            a zip archive or as byte code alone), a split has no whole window, or an argument is out of range.
    """
    if context < 1 or not 0 <= dropout < 1:
        raise ConfigError(f"context is {context} and dropout {dropout}; context >= 1 and 0 <= dropout < 1.")
    root = Path(sysconfig.get_path("stdlib") if folder is None else folder)
    splits = read_splits(root, python_sources(root), _MAX_BYTES)
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
    tokens = {name: torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8) for name, files in splits.items()}
    windows = windows_of(tokens["train"], context)
    lengths = torch.tensor([len(text) for text in splits["train"]], dtype=torch.int64, device=CPU)
    return LanguageModelTask(
        name="stdlib-lm",
        windows=windows,
        labels=file_of_each(lengths, len(windows), context),
        validation=spread(windows_of(tokens["validation"], context), _EVALUATION_WINDOWS),
        test=spread(windows_of(tokens["test"], context), _EVALUATION_WINDOWS),
        token_num_bytes=None,
        build=partial(Transformer, context=context, dropout=dropout),
        batch_size=8,
        learning_rates=(0.03, 0.1, 0.3, 1.0),
    )

"""``thinwire inspect``."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from thinwire.arrays import CPU
from thinwire.cli.application import Refused, say
from thinwire.errors import ConfigError
from thinwire.wire.explain import explain


def show_message(file: str, is_hex: bool, lines: TextIO | None) -> None:
    """Print what is in a message.

    Args:
        file: that holds it; ``-`` is standard input.
        is_hex: whether its bytes are written as hex digits, if its name does not say so.
        lines: where JSON goes; with standard output nothing else is printed there.

    Raises:
        ConfigError: it cannot be read.
        Refused: it is no valid message; what there is of one is shown.
    """
    content = _read(file)
    if is_hex or file.endswith(".hex"):
        content = _from_hex(content, file)
    explanation = explain(_tensor(content))
    if lines is not None:
        names = ("num_bytes", "numel", "checksum_is_right", "bits_per_entry", "error")
        fields = [dataclasses.asdict(field) for field in explanation.fields]
        print(json.dumps({**{name: getattr(explanation, name) for name in names}, "fields": fields}), file=lines)
    for line in explanation.lines() if lines is not sys.stdout else ():
        say(line)
    if explanation.error is not None:
        raise Refused


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read ({error.strerror}); give a file that holds a message, or -"
        ) from error


def _from_hex(content: bytes, file: str) -> bytes:
    try:
        return bytes.fromhex(content.decode("ascii"))
    except ValueError as error:
        raise ConfigError(f"{file} does not hold pairs of hex digits ({error})") from error


def _tensor(content: bytes) -> Tensor:
    # frombuffer wants at least one byte, and memory that may be written to.
    return (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if content
        else torch.empty(0, dtype=torch.uint8, device=CPU)
    )

"""``thinwire inspect``."""

import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from thinwire.cli.application import Refused, app, console
from thinwire.errors import ConfigError
from thinwire.wire.explain import explain


@app.command("inspect")
def inspect_message(
    file: Annotated[str, typer.Argument(help="a file that holds one message, as encode gives it; - is standard input")],
    is_hex: Annotated[bool, typer.Option("--hex", help="the bytes are written as hex digits, as in FORMAT.md")] = False,
) -> None:
    """Explain a saved message: what every byte is for, and how small it is.

    A damaged message is shown up to where it breaks; the status is then 1. A file whose name ends in .hex is read as
    hex digits.
    """
    content = _read(file)
    if is_hex or file.endswith(".hex"):
        content = _from_hex(content, file)
    explanation = explain(_tensor(content))
    for line in explanation.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
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
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)

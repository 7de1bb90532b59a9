"""``thinwire inspect``: what it takes."""

from typing import Annotated

import typer

from thinwire.cli.application import app, open_lines


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(help="a file that holds one message, as encode gives it; - is standard input")],
    is_hex: Annotated[bool, typer.Option("--hex", help="the bytes are written as hex digits, as in FORMAT.md")] = False,
    json_file: Annotated[str, typer.Option("--json", help="file for a JSON line; - is standard output")] = "",
) -> None:
    """Explain a saved message: what every byte is for, and how small it is.

    A damaged message is shown up to where it breaks; the status is then 1. A file whose name ends in .hex is read as
    hex digits.
    """
    from thinwire.cli.inspecting import show_message

    with open_lines(json_file) as lines:
        show_message(file, is_hex, lines)

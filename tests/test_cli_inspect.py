"""``thinwire inspect`` on messages of every kind, whole and damaged, and on what is no message."""

import io
import sys
from pathlib import Path

import pytest
import torch
from command_line import run_cli

from thinwire.compressors import QSGD, Compressor, Identity, RandK, Sign, TopK
from thinwire.layout import Segments
from thinwire.random import Key
from thinwire.wire import decode, encode

NUMEL = 600
KINDS: dict[str, tuple[Compressor, list[str]]] = {
    "dense": (Identity(), ["dense", f"{NUMEL} numbers"]),
    "signs": (Sign(), ["signs", f"{NUMEL} bits"]),
    "levels": (QSGD(levels=7, norm="max"), ["levels", "codes"]),
    "levels, elias": (QSGD(levels=7, norm="max", coding="elias"), ["levels", "Elias"]),
    "levels, entropy": (QSGD(levels=7, norm="max", coding="entropy"), ["levels", "entropy"]),
    "sparse": (TopK(k=25), ["sparse", f"25 of {NUMEL} entries", "bits an index"]),
    "sparse signs": (TopK(k=25, values=Sign()), ["sparse", "signs", "25 bits"]),
    "sparse levels": (RandK(k=25, values=QSGD(levels=1)), ["sparse", "levels"]),
}


def message_of(compressor: Compressor) -> bytes:
    x = torch.randn(NUMEL, generator=torch.Generator().manual_seed(0))
    return encode(compressor.compress(x, Key(0), Segments.whole(NUMEL))).numpy().tobytes()


@pytest.fixture
def inspect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Inspect":
    return Inspect(monkeypatch, capsys)


class Inspect:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = run_cli(self.monkeypatch, "inspect", *arguments)
        shown = self.capsys.readouterr()
        assert "Traceback" not in shown.err
        return status, shown.out, shown.err


@pytest.mark.parametrize("name", KINDS)
def test_a_message_of_each_kind_is_explained(name: str, inspect: Inspect, tmp_path: Path) -> None:
    compressor, expected = KINDS[name]
    message = message_of(compressor)
    path = tmp_path / "message"
    path.write_bytes(message)
    status, shown, errors = inspect(str(path))
    assert (status, errors) == (0, "")
    assert all(part in shown for part in expected), shown
    assert f"{len(message)} bytes for {NUMEL} entries" in shown
    assert ", right" in shown


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_message_is_shown_and_has_status_1(name: str, inspect: Inspect, tmp_path: Path) -> None:
    message = message_of(KINDS[name][0])
    path = tmp_path / "message"
    for damaged in (message[:-1], message[: len(message) // 2], message[:5], message + b"\0", b"", b"\0" * 40):
        path.write_bytes(damaged)
        status, shown, errors = inspect(str(path))
        assert (status, errors) == (1, "")
        assert "not a valid message: " in shown
    flipped = bytearray(message)
    flipped[-1] ^= 1
    path.write_bytes(flipped)
    status, shown, _ = inspect(str(path))
    assert status == 1
    assert "checksum is wrong" in shown
    assert f"{len(message)} bytes for {NUMEL} entries" in shown  # all before it is still explained


def test_hex_digits_and_standard_input(inspect: Inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = message_of(TopK(k=5))
    (tmp_path / "message").write_bytes(message)
    _, expected, _ = inspect(str(tmp_path / "message"))
    (tmp_path / "message.hex").write_text(message.hex(" ", 4) + "\n")
    assert inspect(str(tmp_path / "message.hex")) == (0, expected, "")
    for content, options in ((message, []), (message.hex().encode(), ["--hex"])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert inspect("-", *options) == (0, expected, "")
    assert decode(torch.frombuffer(bytearray(message), dtype=torch.uint8)).numel == NUMEL


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["none"], "none cannot be read (No such file or directory)"),
        (["."], ". cannot be read (Is a directory)"),
        (["text", "--hex"], "text does not hold pairs of hex digits"),
        ([], "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_read_is_one_message_with_status_2(
    arguments: list[str], part: str, inspect: Inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no hex: ä")
    status, shown, errors = inspect(*arguments)
    assert status == 2
    assert shown == ""
    assert part in errors

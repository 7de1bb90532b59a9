"""Messages that every later version must read, ``tests/wire/golden/*.json``, and the way to add one.

    python tests/golden_messages.py tests/wire/golden/version1.json "what it shows" 745701...

appends a message to the file with what it decodes to, to be looked at before it is committed. What is there already is
never written anew: a message that no longer decodes to what is written beside it is a mistake in the code.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from thinwire.kernels.bitpack.bits import unpack
from thinwire.layout import Segments
from thinwire.payloads import (
    DCT,
    Codebook,
    Concat,
    Constant,
    Dense,
    Grid,
    Levels,
    LowRank,
    Payload,
    PowersOfTwo,
    Rotated,
    SeededSparse,
    Signs,
    Sparse,
    Sum,
)
from thinwire.wire import decode, encode

FOLDER = Path(__file__).parent / "wire" / "golden"
_FORMATS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


def golden_messages() -> list[dict[str, Any]]:
    """All of them: description, message (hex), contents, and whether an encoder writes it so."""
    return [entry for path in sorted(FOLDER.glob("*.json")) for entry in json.loads(path.read_text())]


def message_of(entry: dict[str, Any]) -> torch.Tensor:
    """The bytes of one."""
    return torch.tensor(list(bytes.fromhex(entry["message"])), dtype=torch.uint8)


def contents(payload: Payload) -> dict[str, Any]:
    """All that a payload holds, in JSON's types. Numbers in f32, bf16 and f16 are written exactly."""
    match payload:
        case Dense(values):
            return {"kind": "dense", "format": _FORMATS[values.dtype], "values": values.tolist()}
        case Sparse(numel, indices, values):
            return {"kind": "sparse", "numel": numel, "indices": indices.tolist(), "values": contents(values)}
        case Levels():
            return {
                "kind": "levels",
                "coding": payload.coding,
                "num_levels": payload.num_levels,
                "segments": _cut(payload.segments),
                "scales": payload.scales.tolist(),
                "levels": payload.levels().tolist(),
            }
        case Signs():
            bits = [int(payload.bits[i // 8]) >> (i % 8) & 1 for i in range(payload.numel)]
            cut = _cut(payload.segments)
            return {"kind": "signs", "segments": cut, "scales": payload.scales.tolist(), "negative": bits}
        case Grid():
            return {
                "kind": "grid",
                "coding": payload.coding,
                "num_codes": payload.num_codes,
                "segments": _cut(payload.segments),
                "lows": payload.lows.tolist(),
                "steps": payload.steps.tolist(),
                "codes": unpack(payload.codes, payload.numel, payload.width).tolist(),
            }
        case Codebook():
            return {
                "kind": "codebook",
                "coding": payload.coding,
                "table": payload.table.tolist(),
                "segments": _cut(payload.segments),
                "scales": payload.scales.tolist(),
                "codes": unpack(payload.codes, payload.numel, payload.width).tolist(),
            }
        case PowersOfTwo():
            return {
                "kind": "powers of two",
                "num_levels": payload.num_levels,
                "segments": _cut(payload.segments),
                "scales": payload.scales.tolist(),
                "codes": unpack(payload.codes, payload.numel, payload.width).tolist(),
            }
        case Rotated(inner, key, rounds, block):
            return {"kind": "rotated", "key": key, "rounds": rounds, "block": block, "inner": contents(inner)}
        case DCT(inner, side):
            return {"kind": "DCT", "side": side, "inner": contents(inner)}
        case SeededSparse(values, kept, key, segments):
            cuts = {"segments": _cut(segments), "kept": _cut(kept)}
            return {"kind": "seeded sparse", "key": key, **cuts, "values": contents(values)}
        case Constant(values, segments):
            return {"kind": "constant", "segments": _cut(segments), "values": values.tolist()}
        case Sum(parts):
            return {"kind": "sum", "parts": [contents(part) for part in parts]}
        case LowRank(left, right, numel):
            return {"kind": "low rank", "numel": numel, "left": left.tolist(), "right": right.tolist()}
        case Concat(parts):
            return {"kind": "concat", "parts": [contents(part) for part in parts]}
    raise TypeError(f"no golden message holds a {type(payload).__name__}")


def _cut(segments: Segments) -> dict[str, Any]:
    if segments.sizes is not None:
        return {"sizes": list(segments.sizes)}
    return {"numel": segments.numel, "length": segments.length}


def add(path: Path, description: str, message: str) -> None:
    """Append one to a file."""
    entry: dict[str, Any] = {"description": description, "message": message}
    payload = decode(message_of(entry))
    entry["is_what_an_encoder_writes"] = torch.equal(encode(payload), message_of(entry))
    entry["contents"] = contents(payload)
    before = json.loads(path.read_text()) if path.exists() else []
    lines = [json.dumps(known) for known in [*before, entry]]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    add(Path(sys.argv[1]), sys.argv[2], sys.argv[3])

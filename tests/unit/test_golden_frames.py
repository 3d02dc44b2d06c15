"""The golden frames of rust/wire, as Python's msgpack reads and writes them."""

import json
import struct
from pathlib import Path
from typing import Any

import msgpack
import pytest

GOLDEN = Path(__file__).parents[2] / "rust" / "wire" / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.bin"))


def u32_column(words: list[int]) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def values_of(field: Any) -> list[Any]:
    """The msgpack values as which one field of a readable frame travels."""
    if not isinstance(field, dict):
        return [field]
    ((kind, content),) = field.items()
    match kind:
        case "u32":
            return [u32_column(content)]
        case "hex":
            return [bytes.fromhex(content)]
        case "blobs" | "texts":
            blobs = [bytes.fromhex(item) if kind == "blobs" else item.encode() for item in content]
            return [u32_column([len(blob) for blob in blobs]), b"".join(blobs)]
    raise AssertionError(f"unknown kind of field: {kind}")


def readable(name: str) -> list[Any]:
    content = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return [content["type"], *(value for field in content["fields"].values() for value in values_of(field))]


def test_every_frame_has_a_readable_twin() -> None:
    assert len(NAMES) == 37
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_python_reads_what_rust_wrote(name: str) -> None:
    frame = (GOLDEN / f"{name}.bin").read_bytes()
    decoded = msgpack.unpackb(frame, raw=False, use_list=True, strict_map_key=True)
    expected = readable(name)
    assert decoded == expected
    assert [type(value) for value in decoded] == [type(value) for value in expected]  # True is not 1


@pytest.mark.parametrize("name", NAMES)
def test_python_writes_what_rust_wrote(name: str) -> None:
    assert msgpack.packb(readable(name), use_bin_type=True) == (GOLDEN / f"{name}.bin").read_bytes()

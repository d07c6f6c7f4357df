"""Reading .safetensors files: a JSON table of names, types, shapes and places, then the numbers.

The engine writes them with the safetensors package; reading is these few lines, so that a network and its
weights need torch alone.
"""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlnet.weights.formats.untrusted import Refused, brief, is_shape, opened

ELEMENTS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MAX_AXES = 64
MAX_TABLE = 2**21
"""Bytes of the table, which Python takes some twenty times of to read; a hundred per tensor are usual."""


def is_safetensors(path: Path) -> bool:
    """Whether the file looks like one: by its name, or by a JSON table after eight bytes."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the file's metadata.

    Raises:
        Refused: a damaged or cut file; a tensor whose shape, type and place in the file disagree.
    """
    try:
        with opened(path) as stream:
            size = stream.size()
            start = 8 + struct.unpack("<Q", stream.read(8))[0]
            if start > size:
                raise Refused(f"its table claims {start - 8:,} bytes of {size:,}")
            if start - 8 > MAX_TABLE:
                raise Refused(f"its table has {start - 8:,} bytes, expected at most {MAX_TABLE:,}")
            table = json.loads(stream[8:start])
            metadata = table.pop("__metadata__", {})
            if not all(isinstance(value, str) for value in metadata.values()):
                raise Refused("its metadata is not text by names")
            tensors, free = {}, start
            for name, entry in sorted(table.items(), key=lambda row: row[1]["data_offsets"]):
                first, last = (start + place for place in entry["data_offsets"])
                if type(first) is not int or type(last) is not int:
                    raise Refused(f"{name!r} is at {brief(entry['data_offsets'])}, expected whole numbers")
                if first < free:
                    raise Refused(f"{name!r} begins inside another tensor")
                tensors[name] = _tensor(name, entry, stream[first:last] if first <= last <= size else None)
                free = last
            return tensors, metadata
    except Refused as error:
        raise Refused(f"{path}: not a readable .safetensors file: {error}") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise Refused(f"{path}: not a readable .safetensors file ({reason})") from None


def _tensor(name: str, entry: dict[str, Any], data: bytes | None) -> Tensor:
    dtype, shape = ELEMENTS[entry["dtype"]], entry["shape"]
    if not is_shape(shape, MAX_AXES):
        raise Refused(f"{name!r} claims a shape of {brief(shape)}, expected up to {MAX_AXES} sizes")
    if data is None:
        raise Refused(f"{name!r} of shape {shape} lies outside the file")
    if prod(shape) * dtype.itemsize != len(data):
        raise Refused(f"{name!r} claims a shape of {shape} and has {len(data):,} bytes")
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).view(shape)

"""Read .safetensors files: a JSON table of names, dtypes, shapes and offsets, then the bytes of the tensors.

The engine writes such files with the safetensors package; reading takes these few lines, so that networks and their
weights need torch alone.
"""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlnet.weights.formats.untrusted import UnsafeFileError, is_shape, memory_mapped, short_repr

DTYPES = {
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
"""Largest table in bytes; a tensor usually takes a hundred. Parsing needs some twenty times a table's size."""


def is_safetensors(path: Path) -> bool:
    """Whether the file has the suffix .safetensors, or a JSON table after eight bytes."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a file by name, and its metadata.

    Raises:
        UnsafeFileError: a damaged or cut file; a tensor whose shape, type and place in the file disagree.
    """
    try:
        with memory_mapped(path) as stream:
            size = stream.size()
            start = 8 + struct.unpack("<Q", stream.read(8))[0]
            if start > size:
                raise UnsafeFileError(f"its table claims {start - 8:,} bytes in a file of {size:,}")
            if start - 8 > MAX_TABLE:
                raise UnsafeFileError(f"its table has {start - 8:,} bytes, expected at most {MAX_TABLE:,}")
            table = json.loads(stream[8:start])
            metadata = table.pop("__metadata__", {})
            if not all(isinstance(value, str) for value in metadata.values()):
                raise UnsafeFileError("its metadata is not a dictionary of text")
            tensors, free = {}, start
            # In the order of their data, so that overlaps show: each tensor is copied, and a small file with a
            # thousand entries for the same bytes would fill the memory.
            for name, entry in sorted(table.items(), key=lambda row: row[1]["data_offsets"]):
                first, last = (start + offset for offset in entry["data_offsets"])
                if type(first) is not int or type(last) is not int:
                    raise UnsafeFileError(
                        f"{name!r} has the offsets {short_repr(entry['data_offsets'])}, expected integers"
                    )
                if first < free:
                    raise UnsafeFileError(f"{name!r} begins inside another tensor")
                tensors[name] = _tensor(name, entry, stream[first:last] if first <= last <= size else None)
                free = last
            return tensors, metadata
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{path}: not a readable .safetensors file: {error}") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UnsafeFileError(f"{path}: not a readable .safetensors file ({reason})") from None


def _tensor(name: str, entry: dict[str, Any], data: bytes | None) -> Tensor:
    """Make the tensor of one entry of the table; `data` is None if the entry points outside the file."""
    dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
    if not is_shape(shape, MAX_AXES):
        raise UnsafeFileError(
            f"{name!r} claims a shape of {short_repr(shape)}, expected up to {MAX_AXES} sizes below 2^31"
        )
    if data is None:
        raise UnsafeFileError(f"{name!r} of shape {shape} lies outside the file")
    if prod(shape) * dtype.itemsize != len(data):
        raise UnsafeFileError(f"{name!r} claims a shape of {shape} but holds {len(data):,} bytes")
    if not data:  # torch.frombuffer takes no empty buffer
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).view(shape)

"""Caffe2's weight files: Python 2 pickles of NumPy arrays by blob name, read and written without NumPy.

The release writes {"blobs": {name: array}} with protocol 2; its converters write the flat {name: array}. Both
are read here, in any protocol, and both are written, byte for byte in the form that Python 2 reads.
"""

import ctypes
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from nlnet.weights.formats.pickle import ORDERED_DICT, Name, encode, no_bytes, unpickle
from nlnet.weights.formats.untrusted import Refused, brief, is_shape, opened

ELEMENTS = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "b1": torch.bool,
}
MAX_AXES = 8


class _Elements:
    """A `numpy.dtype` of the file."""

    def __init__(self, code: object, *copying: object) -> None:
        self.code, self.big = code, False

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.big = state[1] == ">"
        if any(part is not None for part in state[2:5]):
            raise Refused("it holds an array of records, expected plain numbers")


class _Array:
    """A `numpy.ndarray` of the file, whose claims have been held against its data once its state is there."""

    def __init__(self, *arguments: object) -> None:
        self.claims: _Claims | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, elements, fortran, data = state
        self.claims = _checked(shape, elements, bool(fortran), data)


class _Claims(NamedTuple):
    """What an array is; of its data only a reference, which other arrays may have too."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    big: bool
    fortran: bool
    data: str | bytes | bytearray

    def tensor(self) -> Tensor:
        """The array in memory of its own."""
        shape, dtype, data = self.shape, self.dtype, self.data
        if not data:
            return torch.empty(shape, dtype=dtype)
        raw = torch.frombuffer(
            bytearray(data, "latin-1") if isinstance(data, str) else bytearray(data), dtype=torch.uint8
        )
        if self.big:
            raw = raw.view(-1, dtype.itemsize).flip(1).flatten()
        flat = raw.view(dtype)
        return (
            flat.view(shape[::-1]).permute(*reversed(range(len(shape)))) if self.fortran else flat.view(shape)
        )


def _checked(shape: object, elements: object, fortran: bool, data: object) -> _Claims:
    code = elements.code if isinstance(elements, _Elements) else elements
    if not isinstance(elements, _Elements) or not isinstance(code, str) or code not in ELEMENTS:
        raise Refused(f"it holds an array of type {brief(code)}, expected one of {', '.join(ELEMENTS)}")
    if not isinstance(shape, tuple) or not is_shape(shape, MAX_AXES):
        raise Refused(f"it holds an array of shape {brief(shape)}, expected up to {MAX_AXES} sizes")
    if not isinstance(data, str | bytes | bytearray):
        raise Refused(f"it holds an array whose data is {type(data).__name__}, expected bytes")
    dtype = ELEMENTS[code]
    if prod(shape) * dtype.itemsize != len(data):
        raise Refused(f"it claims an array of shape {shape} ({code}) but has {len(data):,} bytes of it")
    return _Claims(shape, dtype, elements.big, fortran, data)


def _array(shape: object, elements: object, fortran: bool, data: object) -> _Array:
    array = _Array()
    array.claims = _checked(shape, elements, fortran, data)
    return array


def _scalar(elements: object, data: object) -> _Array:
    return _array((), elements, False, data)


def _frombuffer(data: object, elements: object, shape: object, order: object) -> _Array:
    return _array(shape, elements, order == "F", data)


def _no_value(*arguments: object) -> None:
    raise Refused("it makes an array of a type")


NAMES = {
    "_codecs.encode": Name(encode),
    "__builtin__.bytes": Name(no_bytes),
    "collections.OrderedDict": ORDERED_DICT,
    "numpy.ndarray": Name(_no_value),
    "numpy.dtype": Name(_Elements),
}
for core in ("numpy.core", "numpy._core"):
    NAMES |= {
        f"{core}.multiarray._reconstruct": Name(_Array),
        f"{core}.multiarray.scalar": Name(_scalar),
        f"{core}.numeric._frombuffer": Name(_frombuffer),
    }


def read_blobs(path: Path) -> dict[str, Any]:
    """Blobs by name, arrays as tensors, of a file in either layout.

    Raises:
        Refused: anything but a dictionary of names to arrays and plain values; an array whose shape, type and
            data disagree; a damaged or cut file. No memory is taken for what is not in the file.
    """
    try:
        with opened(path) as stream:
            values = unpickle(stream, NAMES)
        if isinstance(values, dict) and isinstance(values.get("blobs"), dict):
            values = values["blobs"]
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise Refused(f"it holds a {type(values).__name__}, expected blobs by name")
        return _plain(values, path.stat().st_size)
    except (Refused, UnicodeEncodeError) as error:
        raise Refused(f"{path}: not a Caffe2 weight file that can be read safely: {error}") from None


def _plain(values: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The blobs with tensors for arrays, whose bytes together are no more than the file's `size`."""
    plain = {name: value.claims if isinstance(value, _Array) else value for name, value in values.items()}
    for name, value in plain.items():
        if not isinstance(value, _Claims | int | float | str):
            raise Refused(f"the blob {name!r} is a {type(value).__name__}, expected an array or a number")
    arrays = {id(value): value for value in plain.values() if isinstance(value, _Claims)}
    needed = sum(len(array.data) for array in arrays.values())
    if needed > size:
        raise Refused(f"its arrays claim {needed:,} bytes in a file of {size:,}: several have the same data")
    tensors = {key: array.tensor() for key, array in arrays.items()}
    return {name: tensors.get(id(value), value) for name, value in plain.items()}


def write_blobs(path: Path, blobs: Mapping[str, Tensor | int], *, nested: bool) -> None:
    """Write float32 blobs and whole numbers as the release does; `nested` is its layout with "blobs"."""
    with path.open("wb") as file:
        file.write(b"\x80\x02}")
        if nested:
            file.write(b"(" + _text("blobs") + b"}")
        file.write(b"(")
        for name, value in blobs.items():
            file.write(_text(name))
            if isinstance(value, int):
                file.write(b"J" + struct.pack("<i", value))
            else:
                _write_array(file, value.detach().to("cpu", torch.float32).contiguous())
        file.write(b"uu." if nested else b"u.")


def _text(text: str) -> bytes:
    return b"T" + struct.pack("<i", len(text)) + text.encode("ascii")


def _write_array(file: IO[bytes], array: Tensor) -> None:
    shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in array.shape) + b"t"
    elements = (
        b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    file.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R")
    file.write(b"(K\x01" + shape + elements + b"\x89")
    file.write(b"T" + struct.pack("<i", array.numel() * 4))
    file.write(ctypes.string_at(array.data_ptr(), array.numel() * 4))
    file.write(b"tb")

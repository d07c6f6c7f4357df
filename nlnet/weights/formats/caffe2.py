"""Caffe2's weight files: Python 2 pickles of NumPy arrays by blob name, read and written without NumPy.

The release writes {"blobs": {name: array}} in protocol 2; its converters write the flat {name: array}. Both layouts
are read, in any protocol, and written byte for byte in the form that Python 2 reads.
"""

import ctypes
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from nlnet.weights.formats.pickle import ORDERED_DICT, AllowedGlobal, empty_bytes, encode, unpickle
from nlnet.weights.formats.untrusted import UnsafeFileError, is_shape, memory_mapped, short_repr

DTYPES = {
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
"""By NumPy's code without its byte order. Python objects ("O8") are missing: they could be anything."""
MAX_AXES = 8


class _Dtype:
    """Stand-in for a `numpy.dtype`: its code and byte order."""

    def __init__(self, code: object, *copying: object) -> None:
        self.code, self.big_endian = code, False

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.big_endian = state[1] == ">"
        if any(part is not None for part in state[2:5]):  # sub-arrays, field names, fields
            raise UnsafeFileError("it holds an array of records, expected plain numbers")


class _ArrayHeader(NamedTuple):
    """Shape and type of an array, which fit its data; several arrays may refer to the same data."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    big_endian: bool
    fortran: bool
    data: str | bytes | bytearray

    def tensor(self) -> Tensor:
        """Copy the data into a new tensor."""
        shape, dtype, data = self.shape, self.dtype, self.data
        if not data:  # torch.frombuffer takes no empty buffer
            return torch.empty(shape, dtype=dtype)
        raw = torch.frombuffer(
            bytearray(data, "latin-1") if isinstance(data, str) else bytearray(data), dtype=torch.uint8
        )
        if self.big_endian:
            raw = raw.view(-1, dtype.itemsize).flip(1).flatten()
        flat = raw.view(dtype)
        # column-major data are the transposed array in row-major order
        return (
            flat.view(shape[::-1]).permute(*reversed(range(len(shape)))) if self.fortran else flat.view(shape)
        )


class _Array:
    """Stand-in for a `numpy.ndarray`; its header is made when the pickle sets the array's state."""

    def __init__(self, *arguments: object) -> None:
        self.header: _ArrayHeader | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.header = _checked_header(shape, dtype, bool(fortran), data)


def _checked_header(shape: object, dtype: object, fortran: bool, data: object) -> _ArrayHeader:
    """Make the header of an array after checking that its shape and type fit its data.

    Nothing is allocated for a shape that the file only claims.

    Raises:
        UnsafeFileError: an unknown type, a shape that no tensor has, or another number of bytes than these need.
    """
    code = dtype.code if isinstance(dtype, _Dtype) else dtype
    if not isinstance(dtype, _Dtype) or not isinstance(code, str) or code not in DTYPES:
        raise UnsafeFileError(
            f"it holds an array of type {short_repr(code)}, expected one of {', '.join(DTYPES)}"
        )
    if not isinstance(shape, tuple) or not is_shape(shape, MAX_AXES):
        raise UnsafeFileError(
            f"it holds an array of shape {short_repr(shape)}, expected up to {MAX_AXES} sizes below 2^31"
        )
    if not isinstance(data, str | bytes | bytearray):
        raise UnsafeFileError(f"it holds an array whose data is {type(data).__name__}, expected bytes")
    known = DTYPES[code]
    if prod(shape) * known.itemsize != len(data):
        raise UnsafeFileError(
            f"it claims an array of shape {shape} ({code}) but holds {len(data):,} bytes for it"
        )
    return _ArrayHeader(shape, known, dtype.big_endian, fortran, data)


def _array(shape: object, dtype: object, fortran: bool, data: object) -> _Array:
    """Make an array from data passed in a call, as `_scalar` and `_frombuffer` do."""
    array = _Array()
    array.header = _checked_header(shape, dtype, fortran, data)
    return array


def _scalar(dtype: object, data: object) -> _Array:
    """Stand-in for NumPy's `scalar`."""
    return _array((), dtype, False, data)


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    """Stand-in for NumPy's `_frombuffer`, with which protocol 5 makes arrays."""
    return _array(shape, dtype, order == "F", data)


def _refuse_call(*arguments: object) -> None:
    """Stand-in for `numpy.ndarray`, which allocates any shape when called; weight files only name it."""
    raise UnsafeFileError("it calls numpy.ndarray, which weight files never do")


ALLOWED_GLOBALS = {
    "_codecs.encode": AllowedGlobal(encode),
    "__builtin__.bytes": AllowedGlobal(empty_bytes),
    "collections.OrderedDict": ORDERED_DICT,
    "numpy.ndarray": AllowedGlobal(_refuse_call),
    "numpy.dtype": AllowedGlobal(_Dtype),
}
for core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    ALLOWED_GLOBALS |= {
        f"{core}.multiarray._reconstruct": AllowedGlobal(_Array),
        f"{core}.multiarray.scalar": AllowedGlobal(_scalar),
        f"{core}.numeric._frombuffer": AllowedGlobal(_frombuffer),
    }


def read_blobs(path: Path) -> dict[str, Any]:
    """Read the blobs of a file by name, with arrays as tensors; the blobs may be nested under "blobs".

    Raises:
        UnsafeFileError: anything but a dictionary from names to arrays and plain values; an array whose shape, type
            and data disagree; a damaged or cut file. No memory is taken for what is not in the file.
    """
    try:
        with memory_mapped(path) as stream:
            values = unpickle(stream, ALLOWED_GLOBALS)
        if isinstance(values, dict) and isinstance(values.get("blobs"), dict):
            values = values["blobs"]
        if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
            raise UnsafeFileError(
                f"it holds a {type(values).__name__}, expected a dictionary of blobs by name"
            )
        return _with_tensors(values, path.stat().st_size)
    except (UnsafeFileError, UnicodeEncodeError) as error:
        raise UnsafeFileError(f"{path}: not a Caffe2 weight file that can be read safely: {error}") from None


def _with_tensors(values: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Replace arrays by tensors; raise if together they would take more bytes than the file's `size`."""
    plain = {name: value.header if isinstance(value, _Array) else value for name, value in values.items()}
    for name, value in plain.items():
        if not isinstance(value, _ArrayHeader | int | float | str):
            raise UnsafeFileError(
                f"the blob {name!r} is a {type(value).__name__}, expected an array or a number"
            )
    arrays = {id(value): value for value in plain.values() if isinstance(value, _ArrayHeader)}
    # A pickle can give a thousand arrays the same data, two bytes each; their tensors would each take its full size.
    needed = sum(len(array.data) for array in arrays.values())
    if needed > size:
        raise UnsafeFileError(
            f"its arrays claim {needed:,} bytes in a file of {size:,}: several have the same data"
        )
    tensors = {key: array.tensor() for key, array in arrays.items()}
    return {name: tensors.get(id(value), value) for name, value in plain.items()}


def write_blobs(path: Path, blobs: Mapping[str, Tensor | int], *, nested: bool) -> None:
    """Write float32 blobs and integers as the release does; `nested` puts them in a dictionary under "blobs"."""
    with path.open("wb") as file:
        file.write(b"\x80\x02}")  # protocol 2, a dictionary
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
    """Pickle a name as a `str` of Python 2 (opcode BINSTRING)."""
    return b"T" + struct.pack("<i", len(text)) + text.encode("ascii")


def _write_array(file: IO[bytes], array: Tensor) -> None:
    """Write a float32 array as NumPy pickles it: `_reconstruct`, then its state (version, shape, type, order, data)."""
    shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in array.shape) + b"t"
    dtype = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    file.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R")
    file.write(b"(K\x01" + shape + dtype + b"\x89")
    file.write(b"T" + struct.pack("<i", array.numel() * 4))
    file.write(ctypes.string_at(array.data_ptr(), array.numel() * 4))  # the tensor's bytes, without NumPy
    file.write(b"tb")

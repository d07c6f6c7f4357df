"""Read torch's weight files: every size that a file claims is checked against its bytes before torch loads it.

`torch.load(weights_only=True)` runs no code of the file but trusts its sizes. A storage that claims more than its
record makes torch allocate as much, and a view with stride 0 makes a small file a tensor that fills the machine. So
the pickle inside is read first with stand-ins for tensors (`nlnet.weights.formats.pickle`), which only check.
"""

import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import torch

from nlnet.weights.formats.pickle import ORDERED_DICT, AllowedGlobal, Stream, empty_bytes, encode, unpickle
from nlnet.weights.formats.untrusted import UnsafeFileError, is_shape, memory_mapped, short_repr

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
"""Name of a storage class → bytes of an element."""
MAX_AXES = 64
MAX_ENCODED = 4096
"""Largest text that encodes bytes, in characters: `torch.load` copies it at each use, and weights have none."""


class _StorageType(AllowedGlobal):
    """Stand-in for a storage class of torch."""

    __slots__ = ("itemsize",)

    def __init__(self, itemsize: int) -> None:
        super().__init__(_refuse_call)
        self.itemsize = itemsize


class _Storage:
    """Stand-in for a storage: the number of elements that the file claims for it."""

    def __init__(self, elements: int) -> None:
        self.elements = elements


def _refuse_call(*arguments: object) -> None:
    """Stand-in for a call of a storage class, which would allocate; weight files only name the class."""
    raise UnsafeFileError("it calls a storage class, which weight files never do")


def check_tensor(storage: object, offset: object, size: object, stride: object, *rest: object) -> None:
    """Check that a tensor lies inside its storage and has no more elements than the storage.

    Raises:
        UnsafeFileError: it does not, or its size, stride or offset are not those of a tensor.
    """
    steps = [offset, *stride] if isinstance(stride, tuple) else [None]
    if not isinstance(size, tuple) or not is_shape(size, MAX_AXES):
        raise UnsafeFileError(
            f"it holds a tensor of size {short_repr(size)}, expected up to {MAX_AXES} sizes below 2^31"
        )
    if not isinstance(storage, _Storage) or not all(type(n) is int and 0 <= n < 2**63 for n in steps):
        raise UnsafeFileError(
            f"it holds a tensor of stride {short_repr(stride)} and offset {short_repr(offset)}, "
            "expected a storage and integers below 2^63"
        )
    assert isinstance(stride, tuple)
    assert isinstance(offset, int)
    # A stride of 0 repeats elements without storing them: every copy of the tensor would take its claimed size.
    if len(size) != len(stride) or prod(size) > storage.elements:
        raise UnsafeFileError(
            f"it claims a tensor of size {size} and stride {short_repr(stride)} in a storage of {storage.elements:,} elements"
        )
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    if prod(size) and reach > storage.elements:  # torch would read beyond the storage
        raise UnsafeFileError(
            f"a tensor of size {size} reaches beyond its storage of {storage.elements:,} elements"
        )


def _size(numbers: object) -> tuple[Any, ...]:
    """Stand-in for `torch.Size`."""
    if not isinstance(numbers, tuple) or not is_shape(numbers, MAX_AXES):
        raise UnsafeFileError(
            f"it holds a torch.Size of {short_repr(numbers)}, expected up to {MAX_AXES} sizes below 2^31"
        )
    return numbers


def _parameter(data: object, *rest: object) -> None:
    """Stand-in for `_rebuild_parameter`, which takes a tensor."""
    if data is not None:  # what `check_tensor` returns
        raise UnsafeFileError(f"it builds a parameter from {short_repr(data)}, expected a tensor")


def _encode(text: object, encoding: object) -> str:
    """Stand-in for `_codecs.encode` that takes short texts only."""
    if len(encode(text, encoding)) > MAX_ENCODED:
        raise UnsafeFileError(
            f"it holds {len(encode(text, encoding)):,} bytes encoded as text, expected at most {MAX_ENCODED:,}"
        )
    return encode(text, encoding)


ALLOWED_GLOBALS: dict[str, AllowedGlobal] = {
    "collections.OrderedDict": ORDERED_DICT,
    "_codecs.encode": AllowedGlobal(_encode),
    "__builtin__.bytes": AllowedGlobal(empty_bytes),
    "torch.Size": AllowedGlobal(_size),
    "torch._utils._rebuild_tensor": AllowedGlobal(check_tensor),
    "torch._utils._rebuild_tensor_v2": AllowedGlobal(check_tensor),
    "torch._utils._rebuild_parameter": AllowedGlobal(_parameter),
} | {f"torch.{kind}": _StorageType(itemsize) for kind, itemsize in STORAGES.items()}


def storage_loader(check_bytes: Callable[[str, int], None]) -> Callable[[Any], _Storage]:
    """Return the function that turns a persistent id into a storage.

    Args:
        check_bytes: called with a storage's key and claimed bytes; raises if the file does not have them.
    """

    def load(identity: Any) -> _Storage:
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise UnsafeFileError(f"it refers to {short_repr(identity)}, expected a storage")
        kind, key, elements = identity[1], identity[2], identity[4]
        if not isinstance(key, str):  # nested tuples as a key take for ever to hash or print
            raise UnsafeFileError(
                f"it refers to {short_repr(identity)}, expected a storage whose key is text"
            )
        if not isinstance(kind, _StorageType) or type(elements) is not int or not 0 <= elements < 2**63:
            raise UnsafeFileError(
                f"it claims a storage of {short_repr(elements)} elements, "
                "expected an integer and one of torch's storage classes"
            )
        check_bytes(key, elements * kind.itemsize)
        return _Storage(elements)

    return load


def check_archive(path: Path) -> None:
    """Check a zip archive of torch: the sizes that its pickle claims against the sizes of its records.

    Raises:
        UnsafeFileError: a record that torch does not write, or a claim beyond a record.
    """
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: record for record in archive.infolist()}
        if len(records) != len(archive.infolist()):  # torch may load another one than is checked here
            raise UnsafeFileError("two of its records have the same name")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):  # a zip bomb
            raise UnsafeFileError("its records are compressed, which torch never does")
        if sum(record.file_size for record in records.values()) > path.stat().st_size:  # records that overlap
            raise UnsafeFileError("its records claim more bytes than the file has")
        pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnsafeFileError(
                f"it has {len(pickles)} records data.pkl, expected 1: not a file of torch.save"
            )
        folder = pickles[0].removesuffix("data.pkl") + "data/"

        def check_bytes(key: str, needed: int) -> None:
            record = records.get(folder + key)
            if record is None or needed > record.file_size:
                held = 0 if record is None else record.file_size
                raise UnsafeFileError(
                    f"it claims {needed:,} bytes for storage {key!r} but holds {held:,} for it"
                )

        unpickle(BytesIO(archive.read(pickles[0])), ALLOWED_GLOBALS, storage_loader(check_bytes))


def check_legacy(stream: Stream, size: int) -> None:
    """Check a file in the format before torch 1.6, which is a row of pickles and then the storages.

    Raises:
        UnsafeFileError: not such a file, or storages that claim more bytes than the file has.
    """
    sizes: dict[str, int] = {}

    def check_bytes(key: str, needed: int) -> None:
        sizes[key] = max(needed, sizes.get(key, 0))  # tensors may share a storage
        if sum(sizes.values()) > size:
            raise UnsafeFileError(
                f"it claims {sum(sizes.values()):,} bytes of storages in a file of {size:,}"
            )

    if unpickle(stream, {}) != LEGACY_MAGIC:
        raise UnsafeFileError("it is not a file of torch.save")
    unpickle(stream, {})  # protocol version
    unpickle(stream, {})  # byte order and type sizes
    unpickle(stream, ALLOWED_GLOBALS, storage_loader(check_bytes))
    unpickle(stream, {})  # the storages' keys
    if size - stream.tell() < sum(sizes.values()):
        raise UnsafeFileError("it is cut short")


def read_torch(path: Path) -> Any:
    """Check and load a file of `torch.save`, with its tensors on the CPU.

    Raises:
        UnsafeFileError: code or any other global inside; a compressed, damaged or cut file; a storage or tensor that
            claims more than the file holds.
    """
    try:
        with memory_mapped(path) as stream:
            if stream[:2] == b"PK":
                check_archive(path)
            else:
                check_legacy(stream, path.stat().st_size)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and zipfile raise many kinds for a damaged file
        if isinstance(error, FileNotFoundError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsafeFileError(f"{path}: not weights that can be loaded safely: {reason}") from None


def is_torch(path: Path) -> bool:
    """Whether the file begins like one of torch: as a zip archive, or a pickle of torch's magic number."""
    with path.open("rb") as file:
        start = file.read(16)
    return start[:2] == b"PK" or LEGACY_MAGIC.to_bytes(10, "little") in start


def as_state_dict(values: object) -> Mapping[str, Any]:
    """Check that `values` is a dictionary with names as keys, and return it.

    Raises:
        UnsafeFileError: `values` is something else.
    """
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise UnsafeFileError(f"expected a state dict (names to tensors), got {type(values).__name__}")
    return values

"""Torch's own files: every claim of the file is held against its bytes, then `weights_only=True` loads it.

`torch.load(weights_only=True)` runs no code of the file, but it believes its sizes: a storage larger than its
record is memory that is not there, and a view with stride 0 is a small file that fills a machine. So the pickle
inside is read first with stand-ins for tensors (`nlnet.weights.formats.pickle`), which only check.
"""

import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import torch

from nlnet.weights.formats.pickle import ORDERED_DICT, Name, Stream, encode, no_bytes, unpickle
from nlnet.weights.formats.untrusted import Refused, brief, is_shape, opened

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
"""Bytes of an element."""
MAX_AXES = 64
MAX_ENCODED = 4096
"""Characters of a text that stands for bytes: `torch.load` copies it wherever it is used; weights have none."""


class _Kind(Name):
    """A storage class of the file."""

    __slots__ = ("itemsize",)

    def __init__(self, itemsize: int) -> None:
        super().__init__(_never)
        self.itemsize = itemsize


class _Storage:
    """A storage of the file: how many elements it claims."""

    def __init__(self, elements: int) -> None:
        self.elements = elements


def _never(*arguments: object) -> None:
    raise Refused("it calls a type that only stands for one")


def check_tensor(storage: object, offset: object, size: object, stride: object, *rest: object) -> None:
    """Refuse a tensor that reaches outside its storage or has more elements than it."""
    steps = [offset, *stride] if isinstance(stride, tuple) else [None]
    if not isinstance(size, tuple) or not is_shape(size, MAX_AXES):
        raise Refused(f"it holds a tensor of size {brief(size)}, expected whole numbers, up to {MAX_AXES}")
    if not isinstance(storage, _Storage) or not all(type(n) is int and 0 <= n < 2**63 for n in steps):
        raise Refused(
            f"it holds a tensor of stride {brief(stride)}, offset {brief(offset)}, expected whole numbers below 2^63"
        )
    assert isinstance(stride, tuple)
    assert isinstance(offset, int)
    if len(size) != len(stride) or prod(size) > storage.elements:
        raise Refused(f"it claims a tensor of size {size} over {storage.elements:,} stored elements")
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    if prod(size) and reach > storage.elements:
        raise Refused(f"a tensor of size {size} reaches beyond its {storage.elements:,} stored elements")


def _size(numbers: object) -> tuple[Any, ...]:
    if not isinstance(numbers, tuple) or not is_shape(numbers, MAX_AXES):
        raise Refused(f"it holds a size of {brief(numbers)}, expected whole numbers")
    return numbers


def _parameter(data: object, *rest: object) -> None:
    if data is not None:  # what `check_tensor` returns
        raise Refused(f"it makes a parameter of {brief(data)}, expected a tensor")


def _encode(text: object, encoding: object) -> str:
    if len(encode(text, encoding)) > MAX_ENCODED:
        raise Refused(
            f"it holds {len(encode(text, encoding)):,} bytes as text, expected {MAX_ENCODED:,} or less"
        )
    return encode(text, encoding)


NAMES: dict[str, Name] = {
    "collections.OrderedDict": ORDERED_DICT,
    "_codecs.encode": Name(_encode),
    "__builtin__.bytes": Name(no_bytes),
    "torch.Size": Name(_size),
    "torch._utils._rebuild_tensor": Name(check_tensor),
    "torch._utils._rebuild_tensor_v2": Name(check_tensor),
    "torch._utils._rebuild_parameter": Name(_parameter),
} | {f"torch.{kind}": _Kind(itemsize) for kind, itemsize in STORAGES.items()}


def storages(available: Callable[[str, int], None]) -> Callable[[Any], _Storage]:
    """What a persistent id stands for; `available(key, bytes)` refuses a storage larger than its bytes."""

    def claimed(identity: Any) -> _Storage:
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise Refused(f"it refers to {brief(identity)}, expected a storage")
        kind, key, elements = identity[1], identity[2], identity[4]
        if not isinstance(key, str):
            raise Refused(f"it refers to {brief(identity)}, expected a storage with a name")
        if not isinstance(kind, _Kind) or type(elements) is not int or not 0 <= elements < 2**63:
            raise Refused(f"it has a storage of {brief(elements)} elements of an unknown kind")
        available(key, elements * kind.itemsize)
        return _Storage(elements)

    return claimed


def check_archive(path: Path) -> None:
    """Refuse a zip archive of torch whose claims do not fit its records."""
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: record for record in archive.infolist()}
        if len(records) != len(archive.infolist()):
            raise Refused("two of its records have one name")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records.values()):
            raise Refused("its records are compressed, which torch never does")
        if sum(record.file_size for record in records.values()) > path.stat().st_size:
            raise Refused("its records claim more bytes than the file has")
        pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Refused("it has no data.pkl: not a file of torch.save")
        folder = pickles[0].removesuffix("data.pkl") + "data/"

        def available(key: str, needed: int) -> None:
            record = records.get(folder + key)
            if record is None or needed > record.file_size:
                there = 0 if record is None else record.file_size
                raise Refused(f"it claims {needed:,} bytes for storage {key!r} and has {there:,}")

        unpickle(BytesIO(archive.read(pickles[0])), NAMES, storages(available))


def check_legacy(stream: Stream, size: int) -> None:
    """The same for the format before torch 1.6: pickles one after the other, then the storages."""
    sizes: dict[str, int] = {}

    def available(key: str, needed: int) -> None:
        sizes[key] = max(needed, sizes.get(key, 0))
        if sum(sizes.values()) > size:
            raise Refused(f"it claims {sum(sizes.values()):,} bytes of storages in a file of {size:,}")

    if unpickle(stream, {}) != LEGACY_MAGIC:
        raise Refused("it is not a file of torch.save")
    unpickle(stream, {})  # protocol version
    unpickle(stream, {})  # byte order and type sizes
    unpickle(stream, NAMES, storages(available))
    unpickle(stream, {})  # the storages' keys
    if size - stream.tell() < sum(sizes.values()):
        raise Refused("it is cut short")


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, tensors on the CPU, after its sizes have been checked.

    Raises:
        Refused: code or any other global inside; a compressed, damaged or cut file; a storage or tensor that
            claims more than the file holds.
    """
    try:
        with opened(path) as stream:
            if stream[:2] == b"PK":
                check_archive(path)
            else:
                check_legacy(stream, path.stat().st_size)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and zipfile raise many kinds for a damaged file
        if isinstance(error, FileNotFoundError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Refused(f"{path}: not weights that can be loaded safely: {reason}") from None


def is_torch(path: Path) -> bool:
    """Whether the file looks like torch's: a zip archive, or a pickle of torch's magic number."""
    with path.open("rb") as file:
        start = file.read(16)
    return start[:2] == b"PK" or LEGACY_MAGIC.to_bytes(10, "little") in start


def dictionaries(values: object) -> Mapping[str, Any]:
    """`values` if it is a dictionary by names, or refuse it."""
    if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
        raise Refused(f"expected a state dict (names to tensors), got {type(values).__name__}")
    return values

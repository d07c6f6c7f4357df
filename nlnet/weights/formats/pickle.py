"""Read pickles of plain data without running any code that they name.

A pickle is a program: it names functions to call, and a dozen bytes of it can ask for more memory than a machine has.
`scan` checks a pickle without building anything, so that its size bounds the memory and time that it can take;
`unpickle` then reads it with an unpickler that knows only the globals it is given. Their stand-ins copy none of their
arguments: a pickle can refer to one large object again for two bytes, and each copy would take its full size.
"""

import mmap
import pickle
import pickletools
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from nlnet.weights.formats.pickle_stack import Stack, TupleKeyError
from nlnet.weights.formats.untrusted import UnsafeFileError, short_repr

MAX_OPCODES = 1_000_000
"""The release's largest file has about 40,000 opcodes; each can take some 200 bytes besides its own data."""
MAX_INTEGER_BYTES = 16
"""Sizes have 8 bytes, torch's magic number 10. To multiply integers of megabytes takes hours."""

OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
Stream = mmap.mmap | BytesIO  # read(n) returns what the file has, however large an n the file claims


class AllowedGlobal:
    """Stand-in for a global that a pickle may name: it can be called, and nothing else."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        # otherwise a file could replace the function that a stand-in calls
        raise UnsafeFileError("it sets the attributes of a global")


class PlainDict(dict[Any, Any]):
    """Stand-in for an OrderedDict; attributes that the file sets on it (`_metadata`) are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


def _ordered_dict(*pairs: Any) -> PlainDict:
    """Stand-in for `OrderedDict(pairs)`; passing the same list a second time is refused."""
    if not pairs:
        return PlainDict()
    if len(pairs) != 1 or type(pairs[0]) is not list or not all(map(_is_pair, pairs[0])):
        raise UnsafeFileError(f"it builds a dictionary from {short_repr(pairs)}, expected a list of pairs")
    made = PlainDict(pairs[0])
    # The file can pass the same list again, for a new dictionary each time: make it a list that is refused.
    pairs[0][:] = [None]
    return made


def _is_pair(pair: object) -> bool:
    """Whether `pair` is (key, value) with text or an integer as the key.

    Other keys can take for ever to hash (`nlnet.weights.formats.pickle_stack`).
    """
    return type(pair) in (list, tuple) and len(pair) == 2 and isinstance(pair[0], str | int)  # type: ignore[arg-type, index]


ORDERED_DICT = AllowedGlobal(_ordered_dict)


def encode(text: object, encoding: object) -> str:
    """Stand-in for `_codecs.encode`, with which Python 3 writes bytes in old protocols.

    Returns the text, not its bytes, so that nothing is copied; the bytes are its latin-1 encoding.
    """
    if encoding != "latin1" or not isinstance(text, str):
        raise UnsafeFileError(f"it encodes bytes as {short_repr(encoding)}, expected latin1")
    return text


def empty_bytes(*arguments: object) -> bytes:
    """Stand-in for `bytes()`, with which Python 3 writes empty bytes in old protocols."""
    if arguments:  # bytes(2**40) would allocate as much
        raise UnsafeFileError("it calls bytes() with an argument")
    return b""


def scan(stream: Stream) -> None:
    """Check one pickle, from the stream's position to its end, without building anything.

    Raises:
        UnsafeFileError: it ends early, holds a byte that is not an opcode, has more than `MAX_OPCODES`, claims a frame
            or memo index beyond its own size, has a tuple as a key, or an integer of more than `MAX_INTEGER_BYTES`.
    """
    count, size = 0, len(stream.getbuffer()) if isinstance(stream, BytesIO) else stream.size()
    stack = Stack()
    while True:
        code = stream.read(1)
        if not code:
            raise UnsafeFileError("it is cut short")
        opcode = OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            if count == 0:  # a text file, such as a pointer of Git LFS: its beginning tells the user
                raise UnsafeFileError(f"it begins with {code + stream.read(15)!r}, so it is not a pickle")
            raise UnsafeFileError(f"byte {stream.tell() - 1} is not a pickle opcode")
        argument = _argument(stream, opcode)
        count += 1
        # each opcode can make an object: their number bounds the memory
        if count > MAX_OPCODES:
            raise UnsafeFileError(
                f"it has more than {MAX_OPCODES:,} opcodes; weights need a few ten thousand"
            )
        # the memo is an array in C: its largest index is what the unpickler allocates
        if "PUT" in opcode.name and argument is not None and argument > count:
            raise UnsafeFileError(f"it claims memo index {argument:,} after {count:,} opcodes")
        # the unpickler reads a whole frame into memory
        if opcode.name == "FRAME" and argument is not None and stream.tell() + argument > size:
            raise UnsafeFileError(f"it claims a frame of {argument:,} bytes in a file of {size:,}")
        if opcode.name in ("LONG1", "LONG4") and argument.bit_length() > 8 * MAX_INTEGER_BYTES:
            raise UnsafeFileError(
                f"it holds an integer of {argument.bit_length() // 8 + 1:,} bytes, "
                f"expected at most {MAX_INTEGER_BYTES}"
            )
        try:
            stack.step(opcode, argument)
        except TupleKeyError:
            raise UnsafeFileError("it has a tuple as a dictionary key or set member") from None
        except IndexError:
            raise UnsafeFileError(
                f"it is damaged ({opcode.name} at byte {stream.tell()} needs more items than the stack has)"
            ) from None
        if opcode.name == "STOP":
            return


def _argument(stream: Stream, opcode: pickletools.OpcodeInfo) -> Any:
    """Read the argument of an opcode, or skip it and return None if it is not needed.

    Raises:
        UnsafeFileError: some of its bytes are missing, or a memo index is not a number.
    """
    if opcode.arg is None:
        return None
    try:
        if opcode.arg.n != pickletools.UP_TO_NEWLINE:
            return opcode.arg.reader(stream)  # type: ignore[arg-type]  # it only reads
        # arguments in text are skipped by lines (GLOBAL and INST have two); only a memo index is needed and parsed
        lines = [stream.readline() for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1)]
        if not all(line.endswith(b"\n") for line in lines):
            raise UnsafeFileError("it is cut short")
        return int(lines[0]) if opcode.name in ("PUT", "GET") else None
    except ValueError as error:
        raise (
            error
            if isinstance(error, UnsafeFileError)
            else UnsafeFileError(f"it is cut short or damaged ({error})")
        ) from None


class _Unpickler(pickle.Unpickler):
    """An unpickler that resolves allowed globals and persistent ids, and refuses all others."""

    def __init__(
        self,
        stream: Stream,
        allowed: Mapping[str, AllowedGlobal],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        # latin1: Python 2's str holds arrays' bytes. No fix_imports: it renames globals before they are looked up.
        super().__init__(stream, encoding="latin1", fix_imports=False)
        self._allowed, self._persistent = allowed, persistent

    def find_class(self, module: str, name: str) -> Any:
        # nothing is ever imported: what is not in the table could run code
        known = self._allowed.get(f"{module}.{name}")
        if known is None:
            raise UnsafeFileError(f"it asks for the global {module}.{name}, which is not plain data")
        return known

    def persistent_load(self, identity: Any) -> Any:
        if self._persistent is None:
            raise UnsafeFileError("it refers to an object outside the pickle")
        return self._persistent(identity)


def unpickle(
    stream: Stream,
    allowed: Mapping[str, AllowedGlobal],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Check and read the next pickle of the stream, and leave the stream at the end of the pickle.

    Args:
        allowed: stand-ins for the globals that the pickle may name, by "module.name".
        persistent: returns the object of a persistent id; without it the pickle may have none.

    Raises:
        UnsafeFileError: any other global, or a damaged pickle.
    """
    start = stream.tell()
    scan(stream)
    stream.seek(start)
    try:
        return _Unpickler(stream, allowed, persistent).load()
    except UnsafeFileError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UnsafeFileError(f"it is damaged ({type(error).__name__}: {error})") from None

"""Reading pickles of plain data without running any of them.

A pickle is a program: it names functions to call, and it can ask for more memory than a machine has in a dozen
bytes. Here a pickle is walked once before anything is built (`scan`), so that its size bounds what it can take,
and then read by an unpickler that knows only the names it is given (`unpickle`). What those names stand for copies
nothing twice: a pickle can hand one object in as often as it likes, at two bytes a time.
"""

import mmap
import pickle
import pickletools
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from nlnet.weights.formats.pickle_stack import Stack, TupleKey
from nlnet.weights.formats.untrusted import Refused, brief

MAX_OPCODES = 1_000_000
"""A release's largest file has about 40,000; each can take some 200 bytes beside its own data."""
MAX_NUMBER = 16
"""Bytes of a whole number. Sizes have 8, torch's magic number 10; numbers of megabytes take hours to multiply."""

OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
Stream = mmap.mmap | BytesIO  # both hand out what is there, however much a length field asks for


class Name:
    """What an allowed global stands for while a pickle is read: it can be called, and nothing else."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise Refused("it sets the attributes of a global")


class Table(dict[Any, Any]):
    """An OrderedDict of the file; attributes set on it (`_metadata`) are dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


def _table(*pairs: Any) -> Table:
    """`OrderedDict(pairs)`; the list is then no list of pairs any more, so that nobody can hand it in again."""
    if not pairs:
        return Table()
    if len(pairs) != 1 or type(pairs[0]) is not list or not all(map(_is_pair, pairs[0])):
        raise Refused(f"it makes a dictionary of {brief(pairs)}, expected a list of pairs")
    table = Table(pairs[0])
    pairs[0][:] = [None]
    return table


def _is_pair(pair: object) -> bool:
    """Whether it is a key and a value; a key that is a tuple can take for ever (`nlnet.weights.formats.pickle_stack`)."""
    return type(pair) in (list, tuple) and len(pair) == 2 and isinstance(pair[0], str | int)  # type: ignore[arg-type, index]


ORDERED_DICT = Name(_table)


def encode(text: object, encoding: object) -> str:
    """`_codecs.encode`, by which Python 3 writes bytes into old protocols: the text whose latin-1 they are."""
    if encoding != "latin1" or not isinstance(text, str):
        raise Refused(f"it encodes bytes as {brief(encoding)}, expected latin1")
    return text


def no_bytes(*arguments: object) -> bytes:
    """`bytes()`, by which Python 3 writes empty bytes into old protocols."""
    if arguments:
        raise Refused("it makes bytes of something else")
    return b""


def scan(stream: Stream) -> None:
    """Walk one pickle from the stream's position to its end, building nothing.

    Raises:
        Refused: it ends early, holds a byte that is no opcode, has more than `MAX_OPCODES`, claims a frame or a memo
            place beyond its own size, has a tuple as a key, or a number of more than `MAX_NUMBER` bytes.
    """
    count, size = 0, len(stream.getbuffer()) if isinstance(stream, BytesIO) else stream.size()
    stack = Stack()
    while True:
        code = stream.read(1)
        if not code:
            raise Refused("it is cut short")
        opcode = OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            if count == 0:
                raise Refused(f"it begins with {code + stream.read(15)!r}, as no weight file does")
            raise Refused(f"byte {stream.tell() - 1} is no pickle opcode")
        argument = _argument(stream, opcode)
        count += 1
        if count > MAX_OPCODES:
            raise Refused(f"it has more than {MAX_OPCODES:,} opcodes; weights need some ten thousand")
        if "PUT" in opcode.name and argument is not None and argument > count:
            raise Refused(f"it claims memo place {argument:,} after {count:,} opcodes")
        if opcode.name == "FRAME" and argument is not None and stream.tell() + argument > size:
            raise Refused(f"it claims a frame of {argument:,} bytes in a file of {size:,}")
        if opcode.name in ("LONG1", "LONG4") and argument.bit_length() > 8 * MAX_NUMBER:
            raise Refused(f"it holds a number of {argument.bit_length() // 8 + 1:,} bytes")
        try:
            stack.step(opcode, argument)
        except TupleKey:
            raise Refused("it has a tuple as a key") from None
        except IndexError:
            raise Refused(
                f"it is damaged ({opcode.name} at byte {stream.tell()} takes what is not there)"
            ) from None
        if opcode.name == "STOP":
            return


def _argument(stream: Stream, opcode: pickletools.OpcodeInfo) -> Any:
    """What stands behind the opcode, with its bytes all there; of lines of text only a memo place is read.

    Raises:
        Refused: some of it is missing, or a memo place is no number.
    """
    if opcode.arg is None:
        return None
    try:
        if opcode.arg.n != pickletools.UP_TO_NEWLINE:
            return opcode.arg.reader(stream)  # type: ignore[arg-type]  # it only reads
        lines = [stream.readline() for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1)]
        if not all(line.endswith(b"\n") for line in lines):
            raise Refused("it is cut short")
        return int(lines[0]) if opcode.name in ("PUT", "GET") else None
    except ValueError as error:
        raise (
            error if isinstance(error, Refused) else Refused(f"it is cut short or damaged ({error})")
        ) from None


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, stream: Stream, names: Mapping[str, Name], persistent: Callable[[Any], Any] | None
    ) -> None:
        super().__init__(stream, encoding="latin1", fix_imports=False)
        self._names, self._persistent = names, persistent

    def find_class(self, module: str, name: str) -> Any:
        known = self._names.get(f"{module}.{name}")
        if known is None:
            raise Refused(f"it asks for the global {module}.{name}, which is not plain data")
        return known

    def persistent_load(self, identity: Any) -> Any:
        if self._persistent is None:
            raise Refused("it refers to objects outside itself")
        return self._persistent(identity)


def unpickle(
    stream: Stream, names: Mapping[str, Name], persistent: Callable[[Any], Any] | None = None
) -> Any:
    """The next pickle of the stream, after a `scan` of it; the stream is left behind its end.

    Args:
        names: what the globals "module.name" that may occur stand for.
        persistent: what a persistent id stands for; without it there may be none.

    Raises:
        Refused: any other global, or a damaged pickle.
    """
    start = stream.tell()
    scan(stream)
    stream.seek(start)
    try:
        return _Unpickler(stream, names, persistent).load()
    except Refused:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise Refused(f"it is damaged ({type(error).__name__}: {error})") from None

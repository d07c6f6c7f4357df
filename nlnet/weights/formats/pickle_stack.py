"""What an unpickler's stack would hold at each step of a pickle, as far as it matters: where tuples are.

Python does not keep the hash of a tuple. A pickle of 200 bytes can make sixty pairs, each of the one before twice, and
to use the last one as a key takes 2^60 steps. So no tuple may become a key, which weights have no use for.
"""

import pickletools
from typing import Any

MARK = None
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
KEYS_FROM_MARK = {"DICT": 2, "SETITEMS": 2, "ADDITEMS": 1, "FROZENSET": 1}
"""Each how manyth item above the mark becomes a key."""


class TupleKey(ValueError):
    """A tuple becomes the key of a dictionary, or a member of a set."""


class Stack:
    """The stack and the memo; an item is whether it is a tuple (or a frozen set, which holds them as well).

    What a call returns counts as no tuple: what an allowed global stands for returns none, or one of whole numbers.
    """

    def __init__(self) -> None:
        self.items: list[bool | None] = []
        self.memo: dict[int, bool] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """What the opcode does.

        Raises:
            TupleKey: see there.
            IndexError: it takes more than there is.
        """
        name = opcode.name
        if name == "MARK":
            self.items.append(MARK)
        elif name == "POP":
            self.items.pop()
        elif name == "DUP":
            self.items.append(self.items[-1])
        elif "PUT" in name or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = bool(self.items[-1])
        elif "GET" in name:
            self.items.append(self.memo.get(argument, False))
        elif name in TUPLES:
            self._take(TUPLES[name])
            self.items.append(True)
        elif name == "SETITEM":
            key, _ = self._take(2)
            self._as_keys([key])
        else:
            self._other(opcode)

    def _other(self, opcode: pickletools.OpcodeInfo) -> None:
        before = opcode.stack_before
        if pickletools.markobject in before:
            above = self._above_mark()
            if opcode.name in KEYS_FROM_MARK:
                self._as_keys(above[:: KEYS_FROM_MARK[opcode.name]])
            self._take(before.index(pickletools.markobject))
        else:
            self._take(len(before))
        made = opcode.name in ("TUPLE", "FROZENSET")
        self.items += [made] * len(opcode.stack_after)

    def _as_keys(self, items: list[bool | None]) -> None:
        if any(items):
            raise TupleKey

    def _take(self, count: int) -> list[bool | None]:
        if count > len(self.items):
            raise IndexError
        taken = self.items[len(self.items) - count :]
        del self.items[len(self.items) - count :]
        return taken

    def _above_mark(self) -> list[bool | None]:
        """What stands above the last mark, which goes as well."""
        above: list[bool | None] = []
        while (item := self.items.pop()) is not MARK:
            above.append(item)
        return above[::-1]

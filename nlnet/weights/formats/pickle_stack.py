"""Track which items on an unpickler's stack are tuples, so that none becomes a dictionary key.

Python does not cache the hash of a tuple. A pickle of 200 bytes can build pairs nested sixty deep, each holding the
pair below twice; to hash the outermost one as a key takes 2^60 steps. Weights have no tuples as keys, so none is
allowed.
"""

import pickletools
from typing import Any

MARK = None
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
"""Opcodes that make a tuple of the given number of items."""
KEYS_FROM_MARK = {"DICT": 2, "SETITEMS": 2, "ADDITEMS": 1, "FROZENSET": 1}
"""Opcodes that hash items above the mark: every second one (keys of a dictionary) or every one (members of a set)."""


class TupleKeyError(ValueError):
    """A pickle uses a tuple as a dictionary key or set member."""


class Stack:
    """The stack and the memo of an unpickler, reduced to whether each item is a tuple.

    A frozen set counts as a tuple, since it can hold tuples. The result of a call does not: the stand-ins for allowed
    globals return no tuple, or one of integers.
    """

    def __init__(self) -> None:
        self.items: list[bool | None] = []
        self.memo: dict[int, bool] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Update the stack for one opcode.

        Raises:
            TupleKeyError: it uses a tuple as a key.
            IndexError: it takes more items than the stack has.
        """
        name = opcode.name
        if name == "MARK":
            self.items.append(MARK)
        elif name == "POP":
            self.items.pop()
        elif name == "DUP":
            self.items.append(self.items[-1])
        elif "PUT" in name or name == "MEMOIZE":
            # MEMOIZE has no argument: its index is the number of entries so far
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = bool(self.items[-1])
        elif "GET" in name:
            self.items.append(
                self.memo.get(argument, False)
            )  # the unpickler itself fails on an unknown index
        elif name in TUPLES:
            self._take(TUPLES[name])
            self.items.append(True)
        elif name == "SETITEM":
            key, _ = self._take(2)
            self._check_keys([key])
        else:
            self._declared_effect(opcode)

    def _declared_effect(self, opcode: pickletools.OpcodeInfo) -> None:
        """Update the stack by the numbers of items that `pickletools` says the opcode takes and leaves."""
        before = opcode.stack_before
        if pickletools.markobject in before:
            above = self._pop_to_mark()
            if opcode.name in KEYS_FROM_MARK:
                self._check_keys(above[:: KEYS_FROM_MARK[opcode.name]])
            self._take(before.index(pickletools.markobject))  # what the opcode takes from below the mark
        else:
            self._take(len(before))
        made = opcode.name in ("TUPLE", "FROZENSET")
        self.items += [made] * len(opcode.stack_after)

    def _check_keys(self, items: list[bool | None]) -> None:
        """Raise TupleKeyError if one of the items is a tuple."""
        if any(items):
            raise TupleKeyError

    def _take(self, count: int) -> list[bool | None]:
        """Pop `count` items off the top of the stack."""
        if count > len(self.items):
            raise IndexError
        taken = self.items[len(self.items) - count :]
        del self.items[len(self.items) - count :]
        return taken

    def _pop_to_mark(self) -> list[bool | None]:
        """Pop the items above the last mark, and the mark."""
        above: list[bool | None] = []
        while (item := self.items.pop()) is not MARK:
            above.append(item)
        return above[::-1]

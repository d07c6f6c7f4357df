"""What a network can reach on the diagnostic without relating distant positions: stated rates, computed.

The population is small: a red digit r, a green digit g ≠ r and a cue, 10 · 9 · 2 = 180 equally likely cases, with
the label r under a red cue and g under a green one.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from itertools import product
from typing import NamedTuple

from nlnet.data.diagnostic.task import COLORS, Color


class Case(NamedTuple):
    """What a clip says, stripped of pixels."""

    red: int
    green: int
    cue: Color

    @property
    def label(self) -> int:
        return self.red if self.cue == "red" else self.green


def population() -> Iterator[Case]:
    """The equally likely cases."""
    return (Case(r, g, cue) for r, g, cue in product(range(10), range(10), COLORS) if r != g)


def best_rate(sees: Callable[[Case], Hashable]) -> float:
    """The accuracy of the best guess for someone who knows only `sees(case)`."""
    seen: dict[Hashable, Counter[int]] = {}
    for case in population():
        seen.setdefault(sees(case), Counter())[case.label] += 1
    return sum(max(labels.values()) for labels in seen.values()) / len(list(population()))


def blind_rate() -> float:
    """One place and moment shows one item: the best of seeing the red digit, the green one or the cue. 0.5.

    Two digits without the cue give no more.
    """
    return max(
        best_rate(sees)
        for sees in (lambda c: c.red, lambda c: c.green, lambda c: c.cue, lambda c: (c.red, c.green))
    )


def additive_bound() -> float:
    """No sum of evidence that each item gives on its own can exceed this accuracy. 0.75.

    Such a sum scores class k by s_k = U_k(r) + V_k(g) + W_k(cue). To be right on (a, b) under both cues it needs
    s_a > s_b under red and s_b > s_a under green, hence δ_a > δ_b with δ_k = W_k(red) − W_k(green). So of the
    digits (a, b) and (b, a) at most one pair can be right under both cues, the other under one: at most three of
    the four cases of every two digits.
    """
    return sum(_most_right(a, b) for a in range(10) for b in range(a)) / len(list(population()))


def _most_right(a: int, b: int) -> int:
    """Of the four cases with digits a and b, how many an additive score can have right, by the sign of δ_a − δ_b."""
    return max(sum(2 if order * (1 if red == a else -1) > 0 else 1 for red in (a, b)) for order in (-1, 0, 1))

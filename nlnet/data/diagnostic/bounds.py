"""Upper bounds on the accuracy that networks can reach on the diagnostic without relating distant positions.

The population is small enough to enumerate: a red digit r, a green digit g ≠ r and a cue, 10 · 9 · 2 = 180 equally
likely cases. The label is r under a red cue and g under a green one.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from itertools import product
from typing import NamedTuple

from nlnet.data.diagnostic.task import COLORS, Color


class Case(NamedTuple):
    """What a clip shows, without its pixels: the two digits and the colour of the cue."""

    red: int
    green: int
    cue: Color

    @property
    def label(self) -> int:
        """The digit on the tile with the cue's colour."""
        return self.red if self.cue == "red" else self.green


def population() -> Iterator[Case]:
    """All 180 cases, which are equally likely."""
    return (Case(r, g, cue) for r, g, cue in product(range(10), range(10), COLORS) if r != g)


def best_accuracy(observe: Callable[[Case], Hashable]) -> float:
    """The highest possible accuracy of a classifier that knows only `observe(case)`."""
    labels_of: dict[Hashable, Counter[int]] = {}
    for case in population():
        labels_of.setdefault(observe(case), Counter())[case.label] += 1
    # the best guess for an observation is its most frequent label
    return sum(max(labels.values()) for labels in labels_of.values()) / len(list(population()))


def single_item_bound() -> float:
    """The highest accuracy of a network that sees only one item, at one place and moment: 0.5.

    It is the best of seeing the red digit, the green one, or the cue. Seeing both digits but not the cue gives no more.
    """
    return max(
        best_accuracy(observe)
        for observe in (lambda c: c.red, lambda c: c.green, lambda c: c.cue, lambda c: (c.red, c.green))
    )


def additive_bound() -> float:
    """The highest accuracy of a network that adds up evidence computed from each item alone: 0.75.

    Such a network scores class k by s_k = U_k(r) + V_k(g) + W_k(cue). To be right on (a, b) under both cues it needs
    s_a > s_b under red and s_b > s_a under green, hence δ_a > δ_b with δ_k = W_k(red) − W_k(green). So of the digit
    pairs (a, b) and (b, a) at most one can be right under both cues, the other under one cue: at most three of the four
    cases of every two digits.
    """
    return sum(_max_correct(a, b) for a in range(10) for b in range(a)) / len(list(population()))


def _max_correct(a: int, b: int) -> int:
    """How many of the 4 cases with digits a and b an additive score gets right, at the best sign of δ_a − δ_b."""
    return max(sum(2 if sign * (1 if red == a else -1) > 0 else 1 for red in (a, b)) for sign in (-1, 0, 1))

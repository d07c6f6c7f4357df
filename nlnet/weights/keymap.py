"""Two-way names: which key of a network is which key of another project's file.

A project is described once, by where each of our modules is in its network (`naming`); reading and writing are
the two directions of that one table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from nlnet.errors import WeightsError

LAYERS = range(1, 5)
BLOCKS = range(36)
"""Residual blocks of a stage, at most (R152's res4)."""

CONVOLUTION = {".weight": ".weight", ".bias": ".bias"}
NORM = {key: key for key in (".weight", ".bias", ".running_mean", ".running_var", ".num_batches_tracked")}
ITSELF = {"": ""}


@dataclass(frozen=True)
class KeyMap:
    """`pairs` is our key → theirs; no two of ours have one of theirs.

    Raises:
        ValueError: two keys with one counterpart.
    """

    pairs: Mapping[str, str]

    def __post_init__(self) -> None:
        if len(self.ours) != len(self.pairs):
            seen: dict[str, str] = {}
            for our, their in self.pairs.items():
                if their in seen:
                    raise ValueError(f"both {seen[their]!r} and {our!r} are {their!r}")
                seen[their] = our

    @cached_property
    def ours(self) -> dict[str, str]:
        """Their key → ours."""
        return {their: our for our, their in self.pairs.items()}

    def read(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Their tensors under our keys, and their keys that have none."""
        known = {self.ours[key]: value for key, value in tensors.items() if key in self.ours}
        return known, tuple(key for key in tensors if key not in self.ours)

    def write(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under their keys.

        Raises:
            WeightsError: a key that has no name there.
        """
        nameless = [key for key in tensors if key not in self.pairs]
        if nameless:
            raise WeightsError(f"no name there for {', '.join(nameless[:4])} ({len(nameless)} in all)")
        return {self.pairs[key]: value for key, value in tensors.items()}


def naming(
    modules: Mapping[str, str],
    *,
    convolution: Mapping[str, str] = CONVOLUTION,
    norm: Mapping[str, str] = NORM,
    other: Mapping[str, str] = ITSELF,
) -> KeyMap:
    """The key map of a residual network.

    Args:
        modules: where our modules are in theirs, with {L} for the stage counted from 1 (`layer{L}`), {S} from 2
            (res{S}), {P} for 1, 3, 4, 5 (a pool counted between the first two), and {B} for the residual block
            counted from 0.
        convolution, norm, other: the endings of their keys, by ours; `norm` serves modules called `bn1` …, the
            shortcut's second and the block's `norm`, `other` single parameters (`w_f`).
    """
    pairs = {}
    for our, their in modules.items():
        leaves = norm if is_norm(our) else other if our.endswith("w_f") else convolution
        for fields in places_of(our):
            for leaf, ending in leaves.items():
                pairs[our.format(**fields) + leaf] = their.format(**fields) + ending
    return KeyMap(pairs)


def is_norm(module: str) -> bool:
    """Whether that module of ours is a norm."""
    return module.split(".")[-1] in ("bn1", "bn2", "bn3", "norm") or module.endswith("downsample.1")


def places_of(template: str) -> Iterable[dict[str, int]]:
    """Every value of the fields in a module's template."""
    if "{L}" not in template:
        return [{}]
    return [{"L": n, "S": n + 1, "P": n if n == 1 else n + 1, "B": block} for n in LAYERS for block in BLOCKS]


def check_numbers(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Refuse weights that no network has: whole numbers, NaN or ∞, a variance below 0; `names` are the file's.

    Raises:
        WeightsError: naming the first such tensor.
    """
    for name, value in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        what = f"{names.get(name, name)!r} of shape {tuple(value.shape)}"
        if not value.is_floating_point():
            raise WeightsError(f"{what}: got {value.dtype}, expected a floating-point type")
        if value.is_meta:  # shapes alone
            continue
        if not value.isfinite().all():
            raise WeightsError(f"{what} holds values that are not finite: did the training diverge?")
        if name.endswith("running_var") and (value < 0).any():
            raise WeightsError(f"{what} holds variances below 0")

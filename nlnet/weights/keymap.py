"""Two-way maps between the keys of our networks ("ours") and those of another project's files ("theirs").

A project is described once, by where each of our modules is in its network (`naming`); the same map reads and writes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from nlnet.errors import WeightsError, listed

LAYERS = range(1, 5)
BLOCKS = range(36)
"""Indices of the residual blocks of a stage; the largest stage, R152's res4, has 36."""

CONVOLUTION = {".weight": ".weight", ".bias": ".bias"}
NORM = {key: key for key in (".weight", ".bias", ".running_mean", ".running_var", ".num_batches_tracked")}
PARAMETER = {"": ""}


@dataclass(frozen=True)
class KeyMap:
    """A one-to-one map between our keys and theirs; `pairs` maps ours to theirs.

    Raises:
        ValueError: two of our keys have the same one of theirs.
    """

    pairs: Mapping[str, str]

    def __post_init__(self) -> None:
        if len(self.ours) != len(self.pairs):
            seen: dict[str, str] = {}
            for our, their in self.pairs.items():
                if their in seen:
                    raise ValueError(f"the keys {seen[their]!r} and {our!r} both map to {their!r}")
                seen[their] = our

    @cached_property
    def ours(self) -> dict[str, str]:
        """Their key → ours."""
        return {their: our for our, their in self.pairs.items()}

    def read(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Return their tensors under our keys, and those of their keys that are not in the map."""
        known = {self.ours[key]: value for key, value in tensors.items() if key in self.ours}
        return known, tuple(key for key in tensors if key not in self.ours)

    def write(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under their keys.

        Raises:
            WeightsError: a key of ours that is not in the map.
        """
        nameless = [key for key in tensors if key not in self.pairs]
        if nameless:
            raise WeightsError(f"the other project has no key for {listed(nameless, most=4)}")
        return {self.pairs[key]: value for key, value in tensors.items()}


def naming(
    modules: Mapping[str, str],
    *,
    convolution: Mapping[str, str] = CONVOLUTION,
    norm: Mapping[str, str] = NORM,
    other: Mapping[str, str] = PARAMETER,
) -> KeyMap:
    """Build the key map of a residual network from the names of its modules.

    Args:
        modules: our module → theirs, with {L} for the stage counted from 1 (`layer{L}`), {S} from 2 (res{S}),
            {P} for 1, 3, 4, 5 (a pool counted between the first two), and {B} for the residual block from 0.
        convolution: our ending → theirs for the parameters of convolutions and the classifier.
        norm: the same for norms: modules `bn1` …, the shortcut's second and the block's `norm`.
        other: the same for single parameters (`w_f`).
    """
    # pairs for every block that a network could have: those of a shallower network are never looked up
    pairs = {}
    for our, their in modules.items():
        leaves = norm if is_norm(our) else other if our.endswith("w_f") else convolution
        for fields in template_fields(our):
            for leaf, ending in leaves.items():
                pairs[our.format(**fields) + leaf] = their.format(**fields) + ending
    return KeyMap(pairs)


def is_norm(module: str) -> bool:
    """Whether a module of ours is a norm, by its name."""
    return module.split(".")[-1] in ("bn1", "bn2", "bn3", "norm") or module.endswith("downsample.1")


def template_fields(template: str) -> Iterable[dict[str, int]]:
    """Values of {L}, {S}, {P} and {B} for every residual block; one empty set for a template without them."""
    if "{L}" not in template:
        return [{}]
    return [{"L": n, "S": n + 1, "P": n if n == 1 else n + 1, "B": block} for n in LAYERS for block in BLOCKS]


def check_values(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Check that all weights are finite floating-point numbers and no variance is negative.

    Args:
        names: our key → the file's, which the message has.

    Raises:
        WeightsError: naming the first tensor for which that is not so.
    """
    for name, value in tensors.items():
        if name.endswith("num_batches_tracked"):  # an integer by right
            continue
        what = f"{names.get(name, name)!r} of shape {tuple(value.shape)}"
        if not value.is_floating_point():
            raise WeightsError(f"{what}: got {value.dtype}, expected a floating-point type")
        if value.is_meta:  # a shape without values
            continue
        if not value.isfinite().all():
            raise WeightsError(f"{what} has NaN or infinite values: did the training diverge?")
        if name.endswith("running_var") and (value < 0).any():
            raise WeightsError(f"{what} has negative variances")

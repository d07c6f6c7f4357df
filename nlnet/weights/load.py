"""Load weights by name: copy equal shapes, inflate 2-D kernels, and raise for every key left over.

Inflation (§4.1 of the paper; I3D): a k×k kernel W becomes k_t×k×k with every temporal plane equal to W/k_t,
so that a video of one repeated frame gives the 2-D network's response. Exactly: the logits of a window equal the 2-D
network's if and only if no kernel on the way reaches past an end of the clip, where convolutions see zeros. C2D sees
one frame at a time and is always equal; an I3D is equal in the middle of a clip that is long enough to have one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from nlnet.errors import WeightsError, listed


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What happened to every key of the model and of the weights."""

    copied: tuple[str, ...]
    inflated: tuple[str, ...]
    missing: tuple[str, ...]
    """Keys of the model that the weights do not have: they keep their initial values."""
    unexpected: tuple[str, ...]
    """Keys of the weights that the model does not have: they were not used."""
    mismatched: tuple[str, ...]
    """Keys of both whose shapes differ and do not inflate: not used, the model keeps its initial values."""

    @property
    def transferred(self) -> tuple[str, ...]:
        """Keys of the model that took their values from the weights."""
        return self.copied + self.inflated

    def __str__(self) -> str:
        return (
            f"{len(self.copied)} copied, {len(self.inflated)} inflated, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        )


def inflate(weight: Tensor, shape: Sequence[int]) -> Tensor | None:
    """The kernel `weight` inflated to the 5-D `shape` (O, I, k_t, k_h, k_w), or None if it cannot be.

    Takes a 4-D kernel (O, I, k_h, k_w), or a 5-D one with k_t = 1.
    """
    if weight.ndim == 4:
        weight = weight.unsqueeze(2)
    if weight.ndim != 5 or len(shape) != 5 or weight.shape[2] != 1:
        return None
    if tuple(weight.shape[:2]) != tuple(shape[:2]) or tuple(weight.shape[3:]) != tuple(shape[3:]):
        return None
    planes = shape[2]
    # the sum over time of a constant input is then the 2-D response
    return weight.expand(*shape) / planes


@torch.no_grad()
def load_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    may_miss: Sequence[str] = (),
    may_drop: Sequence[str] = (),
) -> LoadReport:
    """Copy or inflate `weights` into `model` by name.

    A module may keep its initial values only as a whole: a block that lacked only its norm would load and, with the
    initial γ = 0, be switched off.

    Args:
        may_miss: globs of model keys that the weights may lack. One that ends in ".*" names modules (a new classifier:
            "fc.*"; fresh blocks: "*.nonlocal_block.*"), for which the weights must have all keys or none.
        may_drop: globs of keys in `weights` that may stay unused. `num_batches_tracked` always may.
            A key whose shape does not fit is missing in the weights and unused in the model: it needs a glob in both.

    Raises:
        WeightsError: a key of the model or the weights is left over and no glob allows it; some kernels have one
            temporal plane where the model's have several, while others have several. The model is then unchanged.
    """
    own = model.state_dict()
    values: dict[str, Tensor] = {}
    inflated, mismatched = [], []
    for key in own.keys() & weights.keys():
        value, target = weights[key], own[key]
        if value.shape == target.shape:
            values[key] = value
        elif (kernel := inflate(value, target.shape)) is not None:
            values[key] = kernel
            inflated.append(key)
        else:
            mismatched.append(key)
    # a counter that only files of newer versions have, and that no result depends on
    missing = sorted(key for key in own.keys() - weights.keys() if not key.endswith("num_batches_tracked"))
    unexpected = sorted(key for key in weights.keys() - own.keys() if not key.endswith("num_batches_tracked"))
    absent = {*missing, *mismatched}
    allowed = [key for key in absent if _may_miss(key, own, absent, may_miss)]
    surprising_missing = [key for key in missing if key not in allowed]
    surprising_shape = sorted(
        key for key in mismatched if key not in allowed or _not_matching([key], may_drop)
    )
    surprising_extra = _not_matching(unexpected, may_drop)
    if surprising_missing or surprising_shape or surprising_extra:
        shapes = [f"{k} {tuple(weights[k].shape)} → {tuple(own[k].shape)}" for k in surprising_shape]
        # keys that a glob names but that are refused, since the weights have other keys of their module
        half = [k for k in (*surprising_missing, *surprising_shape) if not _not_matching([k], may_miss)]
        raise WeightsError(
            "the weights do not fit the model."
            + _line("only in the model", surprising_missing)
            + _line("only in the weights", surprising_extra)
            + _line("of another shape (weights → model)", shapes)
            + (
                "\n  a block or a classifier keeps its initial values only if all of its keys are missing"
                if half
                else ""
            )
        )
    _check_planes(own, weights, inflated)
    # from here on nothing fails: the model changes as a whole or not at all
    for key, value in values.items():
        own[key].copy_(value)
    return LoadReport(
        copied=tuple(sorted(values.keys() - set(inflated))),
        inflated=tuple(sorted(inflated)),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        mismatched=tuple(sorted(mismatched)),
    )


def _not_matching(keys: Sequence[str], globs: Sequence[str]) -> list[str]:
    """The keys that no glob matches."""
    return [key for key in keys if not any(fnmatchcase(key, glob) for glob in globs)]


def _may_miss(key: str, own: Collection[str], absent: Collection[str], globs: Sequence[str]) -> bool:
    """Whether a glob allows this key of the model to be absent from the weights.

    A glob that names modules does so if all keys of the key's module are absent.
    """
    for glob in (glob for glob in globs if fnmatchcase(key, glob)):
        parts = key.split(".")
        paths = [".".join(parts[:end]) for end in range(1, len(parts))]
        # the outermost module on the key's path that the glob names
        module = next((path for path in paths if fnmatchcase(path, glob.removesuffix(".*"))), None)
        if not glob.endswith(".*") or module is None:
            return True
        inside = [k for k in own if k.startswith(f"{module}.") and not k.endswith("num_batches_tracked")]
        if all(k in absent for k in inside):
            return True
    return False


def _check_planes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], inflated: Sequence[str]) -> None:
    """Raise if the weights are of an I3D that inflates other blocks than the model.

    Shapes alone would let such weights load, into another function.
    """
    # a C2D has no kernel of several planes, so all of its kernels may inflate
    deep = [k for k, v in weights.items() if k in own and v.ndim == 5 and v.shape[2] > 1]
    grown = sorted(key for key in inflated if own[key].shape[2] > 1)
    if deep and grown:
        raise WeightsError(
            f"{grown[0]} has 1 temporal plane in the weights and {own[grown[0]].shape[2]} in the model, but {min(deep)} "
            f"has {weights[min(deep)].shape[2]} in the weights: they come from an I3D with temporal kernels "
            "in other blocks, so load them into that network"
        )


def _line(title: str, keys: Sequence[str]) -> str:
    """A line of a message that lists keys; empty without keys."""
    return f"\n  {title}: {listed(keys)}" if keys else ""

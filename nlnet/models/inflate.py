"""Loading weights by name: equal shapes copy, 2-D kernels inflate, and nothing is dropped in silence.

Inflation (§4.1 of the paper; I3D): a k×k kernel W becomes k_t×k×k with every temporal plane equal to W/k_t,
so that a video of one repeated frame gives the 2-D network's response. Exactly: a window's logits equal the 2-D
network's if and only if no kernel on the way looks past an end of the clip, where convolutions see zeros. C2D looks
at nothing beside a frame and is always equal; an I3D is equal in the middle of a clip long enough to have one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What happened to every key of both sides."""

    copied: tuple[str, ...]
    inflated: tuple[str, ...]
    missing: tuple[str, ...]
    """Keys of the model without a counterpart in the weights: they keep their initial values."""
    unexpected: tuple[str, ...]
    """Keys of the weights without a counterpart in the model: they were not used."""
    mismatched: tuple[str, ...]
    """Keys of both whose shapes fit neither way: not used, the model keeps its initial values."""

    @property
    def transferred(self) -> tuple[str, ...]:
        return self.copied + self.inflated

    def __str__(self) -> str:
        return (
            f"{len(self.copied)} copied, {len(self.inflated)} inflated, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        )


class WeightsError(ValueError):
    """Weights and model do not fit."""


def inflate(weight: Tensor, shape: Sequence[int]) -> Tensor | None:
    """The kernel `weight` inflated to the 5-D `shape` (O, I, k_t, k_h, k_w), or None if it cannot be.

    Takes a 4-D kernel (O, I, k_h, k_w), or a 5-D one of one plane.
    """
    if weight.ndim == 4:
        weight = weight.unsqueeze(2)
    if weight.ndim != 5 or len(shape) != 5 or weight.shape[2] != 1:
        return None
    if tuple(weight.shape[:2]) != tuple(shape[:2]) or tuple(weight.shape[3:]) != tuple(shape[3:]):
        return None
    planes = shape[2]
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

    Args:
        may_miss: globs of model keys that need no counterpart (a new classifier: "fc.*"; fresh blocks:
            "*.nonlocal_block.*"). A key whose shape does not fit counts as missing, too.
        may_drop: globs of keys in `weights` that may stay unused. `num_batches_tracked` always may.

    Raises:
        WeightsError: a key is left over on either side and no glob expects it. The model is then unchanged.
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
    missing = sorted(key for key in own.keys() - weights.keys() if not key.endswith("num_batches_tracked"))
    unexpected = sorted(key for key in weights.keys() - own.keys() if not key.endswith("num_batches_tracked"))
    surprising_missing = _outside(missing, may_miss)
    surprising_shape = _outside(sorted(mismatched), may_miss)
    surprising_extra = _outside(unexpected, may_drop)
    if surprising_missing or surprising_shape or surprising_extra:
        shapes = [f"{k} {tuple(weights[k].shape)} → {tuple(own[k].shape)}" for k in surprising_shape]
        raise WeightsError(
            "the weights do not fit the model."
            + _listed("the model has, the weights have not", surprising_missing)
            + _listed("the weights have, the model has not", surprising_extra)
            + _listed("of another shape", shapes)
        )
    for key, value in values.items():
        own[key].copy_(value)
    return LoadReport(
        copied=tuple(sorted(values.keys() - set(inflated))),
        inflated=tuple(sorted(inflated)),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        mismatched=tuple(sorted(mismatched)),
    )


def _outside(keys: Sequence[str], globs: Sequence[str]) -> list[str]:
    return [key for key in keys if not any(fnmatchcase(key, glob) for glob in globs)]


def _listed(title: str, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    shown = ", ".join(keys[:8]) + (f", … ({len(keys)} in all)" if len(keys) > 8 else "")
    return f"\n  {title}: {shown}"

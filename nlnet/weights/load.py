"""Loading weights by name: equal shapes copy, 2-D kernels inflate, and nothing is dropped in silence.

Inflation (§4.1 of the paper; I3D): a k×k kernel W becomes k_t×k×k with every temporal plane equal to W/k_t,
so that a video of one repeated frame gives the 2-D network's response. Exactly: a window's logits equal the 2-D
network's if and only if no kernel on the way looks past an end of the clip, where convolutions see zeros. C2D looks
at nothing beside a frame and is always equal; an I3D is equal in the middle of a clip long enough to have one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from nlnet.errors import WeightsError, listed


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

    A module that may stay fresh does so as a whole: a block of which only the norm is not there would load and, with
    γ = 0, be switched off.

    Args:
        may_miss: globs of model keys that need no counterpart. One that ends in ".*" means modules (a new classifier:
            "fc.*"; fresh blocks: "*.nonlocal_block.*"): such a module has a counterpart for all of its keys or for none.
        may_drop: globs of keys in `weights` that may stay unused. `num_batches_tracked` always may.
            A key whose shape does not fit is missing on one side and unused on the other: both must expect it.

    Raises:
        WeightsError: a key is left over on either side and no glob expects it; some kernels have one plane where the
            model's have several, while others have them. The model is then unchanged.
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
    absent = {*missing, *mismatched}
    whole = [key for key in absent if _may_miss(key, own, absent, may_miss)]
    surprising_missing = [key for key in missing if key not in whole]
    surprising_shape = sorted(key for key in mismatched if key not in whole or _outside([key], may_drop))
    surprising_extra = _outside(unexpected, may_drop)
    if surprising_missing or surprising_shape or surprising_extra:
        shapes = [f"{k} {tuple(weights[k].shape)} → {tuple(own[k].shape)}" for k in surprising_shape]
        half = [k for k in (*surprising_missing, *surprising_shape) if not _outside([k], may_miss)]
        raise WeightsError(
            "the weights do not fit the model."
            + _line("the model has, the weights have not", surprising_missing)
            + _line("the weights have, the model has not", surprising_extra)
            + _line("of another shape", shapes)
            + (
                "\n  a block or a classifier is fresh only as a whole, without any of its keys"
                if half
                else ""
            )
        )
    _check_planes(own, weights, inflated)
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


def _may_miss(key: str, own: Collection[str], absent: Collection[str], globs: Sequence[str]) -> bool:
    """Whether a glob expects the key to be absent, and with it all keys of the module that the glob means."""
    for glob in (glob for glob in globs if fnmatchcase(key, glob)):
        parts = key.split(".")
        paths = [".".join(parts[:end]) for end in range(1, len(parts))]
        module = next((path for path in paths if fnmatchcase(path, glob.removesuffix(".*"))), None)
        if not glob.endswith(".*") or module is None:
            return True
        inside = [k for k in own if k.startswith(f"{module}.") and not k.endswith("num_batches_tracked")]
        if all(k in absent for k in inside):
            return True
    return False


def _check_planes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], inflated: Sequence[str]) -> None:
    """Refuse to inflate a part of a network that looks along time elsewhere: it inflates other blocks than the model."""
    deep = [k for k, v in weights.items() if k in own and v.ndim == 5 and v.shape[2] > 1]
    grown = sorted(key for key in inflated if own[key].shape[2] > 1)
    if deep and grown:
        raise WeightsError(
            f"{grown[0]} has one plane in the weights and {own[grown[0]].shape[2]} in the model, while {min(deep)} has "
            f"{weights[min(deep)].shape[2]}: a network that inflates other blocks"
        )


def _line(title: str, keys: Sequence[str]) -> str:
    return f"\n  {title}: {listed(keys)}" if keys else ""

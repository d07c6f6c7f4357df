"""The options of a non-local block, written once: names, types, meaning and defaults.

`NonLocalBlock`, `insert_nonlocal`, `create_model`, the configuration of a run and the readers of weight files all take
them from here. A new option is a line in `BlockOptions`, one in `DEFAULTS`, and its use in the block.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

from nlnet.errors import NlnetError, did_you_mean


class BlockOptions(TypedDict, total=False):
    """Keywords of a non-local block, beside the sizes of its map (`in_channels`, `inner_channels`, `ndim`)."""

    pairwise: str
    """f, a name of `nlnet.ops.reference.PAIRWISE`: gaussian, embedded_gaussian, dot_product or concatenation (§3.2)."""
    axis: str
    """Which positions j a position i sees. "spacetime": all; "space": those of its own frame; "time": those of its own
    location (Table 2d). In 2-D "space" is "spacetime", in 1-D "time" is."""
    subsample: bool
    """Max-pool the keys by 2 in space (`nlnet.axes.KeyPool`; §3.3). In 3-D with axis "time" nothing is pooled, because
    every location is a problem of its own."""
    groups: int
    """Split T into this many runs of T/groups frames that do not see each other (long clips)."""
    norm: str
    """After W_z only, a kind of `nlnet.layers.norms.create_norm`."""
    convention: str
    """"paper", "released" or "mmcv": what the next four are when None (`CONVENTIONS`)."""
    pool_position: str | None
    """"before" φ and g, or "after"."""
    scale: float | None
    """s, the softmax temperature or the factor of the dot product."""
    init: str | None
    """"he" is N(0, 2/fan_in) for every weight, "normal" is N(0, 0.01²); biases are 0."""
    out_bias: bool | None
    """Whether W_z has a bias."""
    algorithm: str
    """How the operation is computed, see `nonlocal_operation`; never what it computes."""


DEFAULTS: BlockOptions = {
    "pairwise": "embedded_gaussian",
    "axis": "spacetime",
    "subsample": True,
    "groups": 1,
    "norm": "batch",
    "convention": "paper",
    "pool_position": None,
    "scale": None,
    "init": None,
    "out_bias": None,
    "algorithm": "auto",
}


@dataclass(frozen=True, kw_only=True)
class Convention:
    """The points in which the paper, its released code and the popular ports differ."""

    pool_position: str
    """Keys are pooled "before" φ and g or "after"; max and linear do not commute: weights do not transfer."""
    scaled: bool
    """Whether the embedded Gaussian's softmax has the temperature 1/√d; nothing else ever has one."""
    init: str
    """Of θ, φ, g, W_z and w_f: "he" or "normal"; biases start at zero either way."""
    bias_before_norm: bool
    """Whether W_z has a bias when a norm follows it; without a norm it always has one."""


CONVENTIONS = {
    "paper": Convention(pool_position="after", scaled=False, init="he", bias_before_norm=True),
    "released": Convention(pool_position="before", scaled=True, init="normal", bias_before_norm=True),
    "mmcv": Convention(pool_position="after", scaled=True, init="normal", bias_before_norm=False),
}


def with_defaults(options: BlockOptions, caller: str) -> BlockOptions:
    """Return every option: the given value, else the default.

    Raises:
        TypeError: an option that does not exist, as Python says it of a keyword, with the nearest that does.
    """
    unknown = [name for name in options if name not in DEFAULTS]
    if unknown:
        near = did_you_mean(unknown[0], DEFAULTS)
        raise TypeError(f"{caller}() got an unexpected keyword argument {unknown[0]!r}{near}")
    return {**DEFAULTS, **options}


def check_name(argument: str, value: str, allowed: Mapping[str, Any] | tuple[str, ...]) -> None:
    """Raise NlnetError, with the nearest name, if `value` is not one of the allowed names."""
    if value not in allowed:
        near = did_you_mean(value, allowed, most=1)
        raise NlnetError(f"{argument}: got {value!r}, expected one of {', '.join(allowed)}{near}")


Callee = TypeVar("Callee", bound=Callable[..., Any])


def spelled_out(
    function: Callee, options: type = BlockOptions, defaults: Mapping[str, Any] = DEFAULTS
) -> Callee:
    """Replace `**options` in the function's signature by every single option, for `help()` and notebooks."""
    signature = inspect.signature(function)
    types = options.__annotations__
    spelled = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=types[name])
        for name, value in defaults.items()
        if name not in signature.parameters
    ]
    fixed = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    function.__signature__ = signature.replace(parameters=[*fixed, *spelled])  # type: ignore[attr-defined]
    return function

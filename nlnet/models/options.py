"""The options of `create_model` that decide which function a set of weights is the weights of, and their defaults."""

from typing import Any

DEFAULTS: dict[str, Any] = {
    "variant": "32x2",
    "padding": "released",
    "pool2": True,
    "norm": "batch",
    "pairwise": "embedded_gaussian",
    "axis": "spacetime",
    "subsample": True,
    "groups": 1,
    "nonlocal_norm": "batch",
    "convention": "released",
    "pool_position": None,
    "scale": None,
    "out_bias": None,
}
"""What a network has where neither the caller nor the file of its weights says otherwise: the paper's clip, the
release's block. A configuration (`nlnet.engine.config.ModelConfig`) begins with the release's faster clip, 8x8."""

OPTIONS = tuple(DEFAULTS)

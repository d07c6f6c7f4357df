"""Encode images and weights as text for JSON, so that an exported file can hold what the server sends.

The server sends weights as little-endian float32 in base64. An exported page holds one byte for each weight and a
float32 factor for each row: the error is at most 1/510 of the row's largest weight (1/254 for signed weights).
"""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

LOSSLESS_SIDE = 96
"""Frames with sides up to this, in pixels, are sent as PNG, exactly as the network sees them; larger ones as JPEG."""


def image_url(frame: UInt8[Tensor, "3 H W"]) -> str:
    """Encode a frame as a data: URL."""
    image = Image.fromarray(np.ascontiguousarray(frame.permute(1, 2, 0).numpy()))
    small = max(image.size) <= LOSSLESS_SIDE
    file = io.BytesIO()
    if small:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=90, subsampling=0)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"


def encode_floats(values: Float[Tensor, "..."]) -> str:
    """Encode all values in order as float32 in base64, without loss."""
    return base64.b64encode(values.detach().cpu().numpy().astype("<f4").tobytes()).decode()


def encode_rows_as_bytes(rows: Float[Tensor, "Q ..."], *, signed: bool) -> Mapping[str, Any]:
    """Quantise Q rows of weights to bytes with a float32 factor for each row: weight ≈ byte · factor.

    The factor is the largest |weight| of the row divided by 255 (127 if signed).
    """
    flat = rows.detach().cpu().flatten(1).numpy()
    top = 127 if signed else 255
    factors = (np.abs(flat).max(axis=1, keepdims=True) / top).astype("<f4")
    # a row of zeros has factor 0: its bytes are 0 and not NaN
    levels = np.rint(np.divide(flat, factors, out=np.zeros_like(flat), where=factors > 0)).clip(-top, top)
    data = levels.astype("i1" if signed else "u1").tobytes()
    return {
        "bytes": base64.b64encode(data).decode(),
        "signed": signed,
        "factors": base64.b64encode(factors.tobytes()).decode(),
    }

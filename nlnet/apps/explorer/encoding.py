"""How pictures and numbers travel to the page: as text inside JSON, so that a file can hold the same answers.

Weights are little-endian float32 in base64 when the server answers. A page that is written to a file holds them as
one byte each and a float32 factor a row: off by at most 1/510 of the row's largest weight (1/254 where the weights
have signs).
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
"""Frames up to this side, pixels, travel as PNG, as the network sees them; larger ones as JPEG."""


def picture_url(frame: UInt8[Tensor, "3 H W"]) -> str:
    """A frame as a data: address."""
    image = Image.fromarray(np.ascontiguousarray(frame.permute(1, 2, 0).numpy()))
    small = max(image.size) <= LOSSLESS_SIDE
    file = io.BytesIO()
    if small:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "JPEG", quality=90, subsampling=0)
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"


def floats(values: Float[Tensor, "..."]) -> str:
    """All values in order, exactly."""
    return base64.b64encode(values.detach().cpu().numpy().astype("<f4").tobytes()).decode()


def byte_rows(rows: Float[Tensor, "Q ..."], *, signed: bool) -> Mapping[str, Any]:
    """Q rows of weights as one byte each: weight = byte · factor of its row, factor = max |weight| / 255 (127)."""
    flat = rows.detach().cpu().flatten(1).numpy()
    top = 127 if signed else 255
    factors = (np.abs(flat).max(axis=1, keepdims=True) / top).astype("<f4")
    levels = np.rint(np.divide(flat, factors, out=np.zeros_like(flat), where=factors > 0)).clip(-top, top)
    data = levels.astype("i1" if signed else "u1").tobytes()
    return {
        "bytes": base64.b64encode(data).decode(),
        "signed": signed,
        "factors": base64.b64encode(factors.tobytes()).decode(),
    }

"""Test protocols by name: which pixels of a video are scored, and how the network's head averages the scores.

A protocol is one frozen set of rules. `nlnet.data.clips` and `nlnet.data.transforms` follow its clips and crops,
`nlnet.engine.network` its head. Not part of a protocol: sizes in pixels and clip sampling (the network's),
normalisation and padding of weights (the training's).

Letters: N frames in the video, K clips, L frames in a clip, s the stride between them. A clip spans `span` frames
of the video; `room` = max(N − span, 0) is the number of frames by which it can move.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nlnet.errors import NlnetError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class EvalProtocol:
    """The rules of one test protocol."""

    clips: int
    """Default number of clips per video."""
    crops: Literal[1, 3]
    """Default number of crops per clip."""
    starts: Literal["video", "room", "ends", "centre"]
    """First frame of clip k: "video" ⌊k·N/K⌋; "room" k·room/K; "ends" k·room/(K − 1), rounded half to even (the
    centre if K is 1); "centre" ⌊room/2⌋."""
    span: Literal["strides", "frames"] = "strides"
    """Frames of the video that a clip spans: "strides" L·s; "frames" (L − 1)·s + 1, its first to its last frame."""
    frames: Literal["wrap", "spread"] = "wrap"
    """Frame i of a clip: "wrap" (start + i·s) mod N; "spread" ⌊start + i·(span − 1)/(L − 1)⌋, at most N − 1."""
    rate: int | None = None
    """Frame rate at which the stride counts: span becomes L·s·(the video's rate)/rate. None: the video's own rate."""
    rounding: Literal["down", "nearest"] = "down"
    """Rounding of the longer side when the shorter side is scaled to its target size."""
    crop: Literal["halves", "ends", "whole"] = "halves"
    """Offsets of 3 crops along the longer side, with r = side − crop: "halves" 0, ⌊r/2⌋, 2⌊r/2⌋; "ends" 0, ⌈r/2⌉, r.
    "whole": no crop, the whole frame."""
    head: Literal["window", "pool"] = "window"
    """"window": an average-pooling window, as large as the last map of a training clip, slides over the last map, and
    the scores at its positions are averaged. "pool": the whole map is averaged and scored once."""


PROTOCOLS: dict[str, EvalProtocol] = {
    # The authors' code: lib/datasets (clip starts, wrap-around), TEST_FULLY_CONV (256 crops, 2×2 grid of softmaxes).
    "released": EvalProtocol(clips=10, crops=3, starts="video"),
    # §4.1 of the paper: "spatially fully-convolutional inference on videos whose shorter side is rescaled to 256",
    # 10 clips "evenly" from the full-length video; the clip starts are those of the authors' code.
    "paper": EvalProtocol(clips=10, crops=1, starts="video", crop="whole"),
    # PySlowFast with a video decoded whole: get_start_end_idx, temporal_sampling, uniform_crop; ResNetBasicHead's
    # average pool has the training crop's kernel and stride 1, then softmax, then the mean over the grid.
    "slowfast": EvalProtocol(clips=10, crops=3, starts="room", frames="spread", rate=30, crop="ends"),
    # mmaction2: SampleFrames(test_mode, out_of_bound_opt='loop'), Resize by mmcv, ThreeCrop, I3DHead's global pool.
    "mmaction2": EvalProtocol(clips=10, crops=3, starts="ends", rounding="nearest", head="pool"),
    # mmaction2 as its release 1 computes it: the span is (L − 1)·s + 1, so the last start lies s − 1 frames later.
    "mmaction2_v1": EvalProtocol(
        clips=10, crops=3, starts="ends", span="frames", rounding="nearest", head="pool"
    ),
    # The middle clip alone: validation during training, quick checks.
    "single": EvalProtocol(clips=1, crops=1, starts="centre"),
}

if TYPE_CHECKING:
    Protocol = str  # mypy does not accept a Literal whose names are computed
else:
    Protocol = Literal[*PROTOCOLS]


def protocol_of(name: Protocol) -> EvalProtocol:
    """The rules of a named protocol. Raises NlnetError for an unknown name."""
    if name not in PROTOCOLS:
        raise NlnetError(
            f"unknown test protocol {name!r}; expected one of {', '.join(PROTOCOLS)}"
            f"{did_you_mean(name, PROTOCOLS)}"
        )
    return PROTOCOLS[name]

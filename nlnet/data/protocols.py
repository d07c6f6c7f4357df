"""Test protocols by name: everything that decides which pixels of a video are scored and how the head reads them.

A protocol is one frozen description; `nlnet.data.clips` and `nlnet.data.transforms` follow its rules, and testing
follows its head. Sizes in pixels and the clip's own sampling belong to the network, not to the protocol; the
normalisation and the weights' padding belong to what was trained. Letters: N frames, K clips, L frames in a
clip, s the stride; `room` is the number of frames by which a clip can move, N − span, 0 in a short video.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Protocol = Literal["released", "slowfast", "mmaction2", "single", "paper", "mmaction2_v1"]


@dataclass(frozen=True, kw_only=True)
class EvalProtocol:
    """The rules of one way of testing."""

    clips: int
    """Clips of a video, unless told otherwise."""
    crops: Literal[1, 3]
    """Crops of a clip, unless told otherwise."""
    starts: Literal["video", "room", "ends", "centre"]
    """First frame of clip k: ⌊k·N/K⌋; k·room/K; k·room/(K − 1) rounded half to even (the centre if K is 1); ⌊room/2⌋."""
    span: Literal["strides", "frames"] = "strides"
    """What a clip takes of the video: L·s, or (L − 1)·s + 1, from its first frame to its last."""
    frames: Literal["wrap", "spread"] = "wrap"
    """Frame i of a clip: (start + i·s) mod N; or ⌊start + i·(span − 1)/(L − 1)⌋, at most N − 1."""
    rate: int | None = None
    """Frames per second at which the stride counts: span is L·s·(the video's rate)/rate. None: the video's own."""
    scaled: Literal["down", "nearest"] = "down"
    """How the longer side is made an integer when the shorter is scaled to its size."""
    crop: Literal["halves", "ends", "whole"] = "halves"
    """Places of 3 crops along the longer side, with r = side − crop: 0, ⌊r/2⌋, 2⌊r/2⌋; or 0, ⌈r/2⌉, r. Or no crop."""
    head: Literal["window", "pool"] = "window"
    """A window of the training clip's size slides over the last map, and the places' scores are averaged; or the
    whole map is averaged first and scored once."""


PROTOCOLS: dict[Protocol, EvalProtocol] = {
    # The authors' code: lib/datasets (clip starts, wrap-around), TEST_FULLY_CONV (256 crops, 2×2 grid of softmaxes).
    "released": EvalProtocol(clips=10, crops=3, starts="video"),
    # §4.1 of the paper: "spatially fully-convolutional inference on videos whose shorter side is rescaled to 256",
    # 10 clips "evenly" from the full-length video; where they start is taken from the authors' code.
    "paper": EvalProtocol(clips=10, crops=1, starts="video", crop="whole"),
    # PySlowFast with a video decoded whole: get_start_end_idx, temporal_sampling, uniform_crop; ResNetBasicHead's
    # average pool has the training crop's kernel and stride 1, then softmax, then the mean over the grid.
    "slowfast": EvalProtocol(clips=10, crops=3, starts="room", frames="spread", rate=30, crop="ends"),
    # mmaction2: SampleFrames(test_mode, out_of_bound_opt='loop'), Resize by mmcv, ThreeCrop, I3DHead's global pool.
    "mmaction2": EvalProtocol(clips=10, crops=3, starts="ends", scaled="nearest", head="pool"),
    # The same as its release 1 computes it: the clip's span is (L − 1)·s + 1, so the starts reach s − 1 further.
    "mmaction2_v1": EvalProtocol(
        clips=10, crops=3, starts="ends", span="frames", scaled="nearest", head="pool"
    ),
    # One look at the middle: validation during training, quick checks.
    "single": EvalProtocol(clips=1, crops=1, starts="centre"),
}


def protocol_of(name: Protocol) -> EvalProtocol:
    """The description of a named protocol."""
    if name not in PROTOCOLS:
        raise ValueError(f"unknown test protocol {name!r}; expected one of {', '.join(get_args(Protocol))}")
    return PROTOCOLS[name]

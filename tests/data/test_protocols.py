"""Each named protocol is the whole description that its name promises."""

from dataclasses import FrozenInstanceError, asdict
from typing import get_args

import pytest

from nlnet.data.protocols import PROTOCOLS, Protocol, protocol_of

# clips × crops, starts, span, frames, rate, rounding, crop places, head; from the code of each project, read for facts
WORDS = {
    "released": (10, 3, "video", "strides", "wrap", None, "down", "halves", "window"),
    "paper": (10, 1, "video", "strides", "wrap", None, "down", "whole", "window"),
    "slowfast": (10, 3, "room", "strides", "spread", 30, "down", "ends", "window"),
    "mmaction2": (10, 3, "ends", "strides", "wrap", None, "nearest", "halves", "pool"),
    "mmaction2_v1": (10, 3, "ends", "frames", "wrap", None, "nearest", "halves", "pool"),
    "single": (1, 1, "centre", "strides", "wrap", None, "down", "halves", "window"),
}


def test_every_name_has_its_description():
    assert set(PROTOCOLS) == set(get_args(Protocol)) == set(WORDS)
    for name, words in WORDS.items():
        assert tuple(asdict(protocol_of(name)).values()) == words


def test_a_description_is_frozen():
    with pytest.raises(FrozenInstanceError):
        PROTOCOLS["released"].clips = 5


@pytest.mark.unhooked  # the shape checker would refuse the name before our own message
def test_an_unknown_name():
    with pytest.raises(ValueError, match="unknown test protocol 'best'; expected one of released, slowfast"):
        protocol_of("best")

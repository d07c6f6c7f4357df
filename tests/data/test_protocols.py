"""Each named protocol has the rules of the project that it is named after."""

from dataclasses import FrozenInstanceError, asdict
from typing import get_args

import pytest

from nlnet.data.protocols import PROTOCOLS, Protocol, protocol_of
from nlnet.errors import NlnetError

# clips × crops, starts, span, frames, rate, rounding, crop offsets, head; as read in the code of each project
RULES = {
    "released": (10, 3, "video", "strides", "wrap", None, "down", "halves", "window"),
    "paper": (10, 1, "video", "strides", "wrap", None, "down", "whole", "window"),
    "slowfast": (10, 3, "room", "strides", "spread", 30, "down", "ends", "window"),
    "mmaction2": (10, 3, "ends", "strides", "wrap", None, "nearest", "halves", "pool"),
    "mmaction2_v1": (10, 3, "ends", "frames", "wrap", None, "nearest", "halves", "pool"),
    "single": (1, 1, "centre", "strides", "wrap", None, "down", "halves", "window"),
}


def test_every_name_has_its_rules():
    assert set(PROTOCOLS) == set(get_args(Protocol)) == set(RULES)
    for name, rules in RULES.items():
        assert tuple(asdict(protocol_of(name)).values()) == rules


def test_a_protocol_is_frozen():
    with pytest.raises(FrozenInstanceError):
        PROTOCOLS["released"].clips = 5


@pytest.mark.unhooked  # the shape checker would refuse the name before our own message
def test_an_unknown_name():
    with pytest.raises(
        NlnetError, match="unknown test protocol 'pape'; expected one of released, .*; did you mean 'paper'"
    ):
        protocol_of("pape")

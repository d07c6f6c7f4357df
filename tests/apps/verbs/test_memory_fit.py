"""The number of clips that fit, from the bytes that the network's own count gives."""

import json

import pytest

from nlnet.apps.cli.commands import app
from nlnet.apps.recipes.catalogue import recipe_or_file
from nlnet.apps.recipes.costs import network_cost
from nlnet.apps.verbs import memory_fit as module
from nlnet.apps.verbs.memory_fit import SHARE, fits

DEMO = recipe_or_file("demo_nonlocal")


def test_the_most_clips_are_what_the_memory_holds():
    """One byte less than k clips need holds k − 1; half precision halves activations, never weights."""
    plain, checked, half, _ = fits(DEMO, 10, 1 << 40)
    memory = network_cost(DEMO, 10).memory
    assert (plain.clip_bytes, checked.clip_bytes) == (memory.kept, memory.checkpointed)
    assert half.clip_bytes == pytest.approx(plain.clip_bytes / 2, abs=1)
    assert half.state_bytes == plain.state_bytes == 12 * network_cost(DEMO, 10).parameters
    for clips in (1, 5, 32):
        needed = plain.state_bytes + clips * plain.clip_bytes
        assert fits(DEMO, 10, round(needed / SHARE) + 2)[0].clips == clips
        assert fits(DEMO, 10, round((needed - plain.clip_bytes / 10) / SHARE))[0].clips == clips - 1


def test_the_settings_make_the_recipes_batch():
    """Batch 32: five clips fit, so passes of four; all fit: nothing to set; none fits: nothing helps."""
    clip, states = fits(DEMO, 10, 1)[0].clip_bytes, fits(DEMO, 10, 1)[0].state_bytes
    five = fits(DEMO, 10, round((states + 5.5 * clip) / SHARE))[0]
    assert (five.clips, five.accumulate, five.settings) == (5, 8, "training.accumulate=8")
    plain, _, _, last = fits(DEMO, 10, 1 << 40)
    assert (plain.clips, plain.accumulate, plain.settings) == (DEMO.training.batch, 1, "")
    assert last.settings == "training.precision=bf16 training.checkpointing=true"
    none = fits(DEMO, 10, 1000)[0]
    assert (none.clips, none.accumulate, none.settings) == (0, None, "")


def test_the_command_prints_what_fits(monkeypatch, capsys):
    monkeypatch.setattr(module, "memory_here", lambda: (2**30, "a small machine"))
    code = app(["doctor", "--recipe", "demo_nonlocal"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert code == 0
    assert "demo_nonlocal on a small machine: 85% of 1 GiB" in printed
    assert "float32, checkpointing: training.checkpointing=true" in printed
    monkeypatch.setattr(module, "memory_here", lambda: (1000, "a tiny machine"))
    assert app(["doctor", "--recipe", "demo_nonlocal", "--json"], standalone_mode=False) == 1
    assert [fit["clips"] for fit in json.loads(capsys.readouterr().out)["fits"]] == [0, 0, 0, 0]

"""Initial weights: folded batch norms compute the same function, and dropped weights stay fresh."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.networks import randomised
from support.training import run, settings, weights

from nlnet.engine.config import InitConfig
from nlnet.engine.training.initial_weights import load_initial, read_initial
from nlnet.errors import ConfigError, RunError, WeightsError
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.layers.folding import fold_batch_norms
from nlnet.layers.norms import FrozenAffine, create_norm
from nlnet.weights.write import write_weights
from nlnet.zoo import create_model

LONG = {"norm": "affine", "nonlocal_norm": "none"}


def test_one_norm_is_folded_to_its_closed_form():
    """γ = 3, β = 1, m = 2, v = 4 − eps: y = 3 (x − 2)/2 + 1 = 1.5 x − 2."""
    weights = {
        "weight": torch.tensor([3.0]),
        "bias": torch.tensor([1.0]),
        "running_mean": torch.tensor([2.0]),
        "running_var": torch.tensor([4.0 - 1e-5]),
        "num_batches_tracked": torch.tensor(7),
    }
    named = {f"0.{name}": value for name, value in weights.items()}
    folded = fold_batch_norms(torch.nn.Sequential(FrozenAffine(1)), named)
    assert folded.keys() == {"0.weight", "0.bias"}
    torch.testing.assert_close(folded["0.weight"], torch.tensor([1.5]))
    torch.testing.assert_close(folded["0.bias"], torch.tensor([-2.0]))
    assert named.keys() == {f"0.{name}" for name in weights}


@pytest.mark.parametrize("name", ["i3d_mini", "c2d_mini_nl1", "c2d_mini_rb1"])
def test_the_folded_network_gives_the_logits_of_the_batch_normed_one(name):
    """To 1e-5, in evaluation; every weight and statistic is random."""
    plain = randomised(create_model(name, num_classes=7, variant="8x8")).eval()
    folded = create_model(
        name, num_classes=7, variant="8x8", norm="affine", nonlocal_norm="affine", weights=plain.state_dict()
    ).train()
    folded.dropout.eval()
    x = torch.randn(2, 3, 8, 32, 32)
    torch.testing.assert_close(folded(x), plain(x), rtol=1e-5, atol=1e-5)
    trained = {key for key, p in folded.named_parameters() if p.requires_grad}
    assert not any(".bn" in key or key.startswith("bn") for key in trained)


def test_weights_that_are_affine_already_stay():
    model = create_model("c2d_mini", variant="8x8", norm="affine")
    state = randomised(model).state_dict()
    assert fold_batch_norms(model, state).keys() == state.keys()
    assert all(torch.equal(v, state[k]) for k, v in fold_batch_norms(model, state).items())


def test_a_norm_without_all_its_parts():
    state = create_norm("batch", 2, ndim=3).state_dict()
    del state["running_var"]
    with pytest.raises(ValueError, match=r"0\.running_mean comes without 0\.running_var"):
        fold_batch_norms(
            torch.nn.Sequential(FrozenAffine(2)), {f"0.{key}": value for key, value in state.items()}
        )


def test_a_long_clip_run_starts_from_a_folded_baseline(color_videos, tmp_path):
    """As in the release: train a local network, fold it, add fresh blocks and a new classifier, train on."""
    run(settings(color_videos, "model.name=i3d_mini", "schedule.iterations=4"), tmp_path / "baseline")
    more = (
        "model.norm=affine",
        "model.nonlocal_norm=none",
        "model.groups=2",
        "data.frames=8",  # 4 frames at the block: two groups
        "data.stride=1",
        "training.precise_norm=0",
        f"init.weights={tmp_path / 'baseline'}",
        'init.drop=["fc.*", "*.nonlocal_block.*"]',
        "schedule.iterations=2",
        "training.log_every=1",
    )
    run(settings(color_videos, *more), tmp_path / "long")
    before, after = weights(tmp_path / "baseline"), weights(tmp_path / "long")
    # frozen for ever: w' = w/√(v + eps)
    scale = before["layer1.0.bn1.weight"] / (before["layer1.0.bn1.running_var"] + 1e-5).sqrt()
    torch.testing.assert_close(after["layer1.0.bn1.weight"], scale)
    assert not any("running" in key for key in after)
    assert after["layer2.1.nonlocal_block.W_z.weight"].any()  # it was zero, and learns
    assert not torch.equal(before["layer1.0.conv1.weight"], after["layer1.0.conv1.weight"])


def test_dropped_weights_are_fresh_and_reported(tmp_path):
    source = randomised(create_model("i3d_mini_nl1", num_classes=5, variant="8x8"))
    torch.save(source.state_dict(), tmp_path / "w.pt")
    model = create_model("i3d_mini_nl1", num_classes=5, variant="8x8", **LONG)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    drop = ("fc.*", "*.nonlocal_block.*")
    origin, report = load_initial(model, InitConfig(weights=tmp_path / "w.pt", drop=drop))
    assert torch.equal(model.fc.weight, fresh["fc.weight"])
    block = "layer2.1.nonlocal_block"
    assert torch.equal(model.state_dict()[f"{block}.theta.weight"], fresh[f"{block}.theta.weight"])
    assert not nonlocal_blocks(model)[block].W_z.weight.any()
    # θ, φ, g, W_z and the norm: 4 × 2 + 5; fc has 2. Norms: 1 + 3·5 blocks + 3 shortcuts
    assert "15 left out (init.drop)" in origin
    assert "19 batch norms folded into affine layers" in origin
    assert set(report.missing) == {k for k in fresh if k.startswith(("fc.", block))}


def test_no_weights():
    assert load_initial(create_model("c2d_mini", variant="8x8"), InitConfig()) == (None, None)


def test_dropping_everything(tmp_path):
    model = create_model("c2d_mini", variant="8x8")
    torch.save(model.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"init\.drop: \* drops all 1\d\d tensors"):
        load_initial(model, InitConfig(weights=tmp_path / "w.pt", drop=("*",)))


def test_a_block_without_its_norm_is_an_error(tmp_path):
    state = randomised(create_model("i3d_mini_nl1", variant="8x8")).state_dict()
    torch.save({k: v for k, v in state.items() if ".nonlocal_block.norm." not in k}, tmp_path / "w.pt")
    model = create_model("i3d_mini_nl1", variant="8x8")
    with pytest.raises(WeightsError, match=r"nonlocal_block\.norm\.bias"):
        load_initial(model, InitConfig(weights=tmp_path / "w.pt"))
    load_initial(model, InitConfig(weights=tmp_path / "w.pt", drop=("*.nonlocal_block.*",)))


def test_a_source_that_the_keys_do_not_tell_is_given(tmp_path):
    model = create_model("i3d_mini", variant="8x8", padding="padded")
    write_weights(randomised(model), tmp_path / "x.pkl", "slowfast_pkl")
    named = InitConfig(weights=tmp_path / "x.pkl", source="slowfast_pkl")
    assert "differs" not in load_initial(model, named)[0]
    guessed = load_initial(model, InitConfig(weights=tmp_path / "x.pkl"))[0]
    assert "the network differs from that of the weights (the Caffe2 release): stride of conv1" in guessed
    with pytest.raises(RunError, match="source: got 'keras'"):
        load_initial(model, InitConfig(weights=tmp_path / "x.pkl", source="keras"))


def test_the_normalisation_of_the_weights_is_reported(tmp_path, color_videos):
    model = create_model("i3d_mini_nl1", padding="mmaction2", convention="mmcv", scale=1.0)
    write_weights(randomised(model), tmp_path / "x.pth", "mmaction2")
    told = load_initial(model, InitConfig(weights=tmp_path / "x.pth"))[0]
    assert "trained on RGB with mean (0.485, 0.456, 0.406), deviation (0.229, 0.224, 0.225)" in told
    torch.save(model.state_dict(), tmp_path / "w.pt")
    assert "trained on RGB" not in load_initial(model, InitConfig(weights=tmp_path / "w.pt"))[0]
    run(settings(color_videos, "schedule.iterations=1"), tmp_path / "run")
    assert read_initial(InitConfig(weights=tmp_path / "run")).statistics == (0.45, 0.225)


class Foreign:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_plain_weights(tmp_path):
    weights = {"w": torch.randn(2)}
    torch.save(weights, tmp_path / "a.pth")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "b.pth")
    save_file(weights, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pth", "c.safetensors"):
        assert torch.equal(read_initial(InitConfig(weights=tmp_path / name)).state["w"], weights["w"])


def test_weights_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Foreign()}, "foreign.pth")
    with pytest.raises(RunError, match=r"foreign\.pth: not weights that can be loaded safely"):
        read_initial(InitConfig(weights=Path("foreign.pth")))
    assert not Path("owned").exists()
    torch.save([1, 2], "list.pth")
    with pytest.raises(RunError, match=r"list\.pth: expected a state dict .*, got list"):
        read_initial(InitConfig(weights=Path("list.pth")))
    with pytest.raises(RunError, match=r"none\.pth: no such file"):
        read_initial(InitConfig(weights=Path("none.pth")))

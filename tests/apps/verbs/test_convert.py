"""`nlnet convert`: from other projects and back through the command line, and its report."""

import json

import pytest
import torch
from safetensors import safe_open

from nlnet.apps.cli.main import main
from nlnet.engine.config import InitConfig
from nlnet.engine.network import build_model
from nlnet.engine.runs.checkpoint import load_checkpoint
from nlnet.engine.training.initial_weights import read_initial
from nlnet.errors import RunError
from nlnet.weights.read import read_weights
from nlnet.weights.write import write_weights
from nlnet.zoo import create_model


def randomised(model):
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + (0.9 if "var" in name else -0.1))
    return model.eval()


def nlnet(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["nlnet", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, capsys.readouterr()


CLIP = torch.linspace(-2, 2, 3 * 16 * 24 * 24).sin().view(1, 3, 16, 24, 24)


@pytest.fixture
def mmaction2(tmp_path):
    model = create_model("i3d_mini_nl1", num_classes=3, padding="mmaction2", convention="mmcv", scale=1.0)
    model = randomised(model)
    write_weights(model, tmp_path / "theirs.pth", "mmaction2")
    return model, tmp_path / "theirs.pth"


def test_a_converted_network_computes_what_its_source_does(tmp_path, monkeypatch, capsys, mmaction2):
    model, theirs = mmaction2
    (tmp_path / "names.txt").write_text("bow\njump\nwave\n")
    out = tmp_path / "ours.safetensors"
    code, printed = nlnet(
        monkeypatch, capsys, "convert", theirs, out, "--classes", tmp_path / "names.txt", "--json"
    )
    assert code == 0, printed.err
    report = json.loads(printed.out)
    assert (report["source"], report["format"], report["classes"]) == ("mmaction2", "nlnet", 3)
    assert report["settings"]["padding"] == {
        "value": "mmaction2",
        "why": "its pool1 is 1×3×3 with stride 2 in time, padded by one pixel",
    }
    assert report["bookkeeping"] == ["meta"]
    assert report["fresh"] == report["dropped"] == []
    checkpoint = load_checkpoint(out)
    assert (checkpoint.classes, checkpoint.iteration) == (("bow", "jump", "wave"), 0)
    assert checkpoint.config.data.mean == (0.485, 0.456, 0.406)
    again = build_model(checkpoint.config, 3)
    again.load_state_dict(checkpoint.weights)
    with torch.no_grad():
        assert torch.equal(again.eval()(CLIP), model(CLIP))
    with safe_open(out, "pt") as file:
        origin = json.loads(file.metadata()["origin"])
    assert (origin["source"], origin["file"]) == ("mmaction2", "theirs.pth")
    assert origin["settings"]["scale"] == [1.0, "use_scale is off in mmaction2's I3D configurations"]


def test_converting_back_gives_the_same_weights(tmp_path, monkeypatch, capsys, mmaction2):
    _, theirs = mmaction2
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.pth"
    assert nlnet(monkeypatch, capsys, "convert", theirs, ours)[0] == 0
    assert nlnet(monkeypatch, capsys, "convert", ours, back, "--to", "mmaction2")[0] == 0
    first, second = (torch.load(p, weights_only=True)["state_dict"] for p in (theirs, back))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_report_in_the_terminal(tmp_path, monkeypatch, capsys, mmaction2):
    code, printed = nlnet(monkeypatch, capsys, "convert", mmaction2[1], tmp_path / "o.safetensors")
    assert code == 0
    shown = " ".join(printed.out.split())
    assert "source mmaction2" in shown
    assert "i3d_mini_nl1" in shown
    assert "none left over" in shown
    assert "Options of the network, and where each comes from" in shown


def test_given_settings_are_in_the_checkpoint(tmp_path, monkeypatch, capsys):
    model = randomised(create_model("c2d_mini_nl1", num_classes=3, variant="8x8", pairwise="dot_product"))
    with pytest.warns(UserWarning, match="pairwise=dot_product"):
        write_weights(model, tmp_path / "a.pkl", "caffe2")
    out = tmp_path / "o.safetensors"
    given = ("model.variant=8x8", "model.pairwise=dot_product", "data.crop=32", "data.scales=[36,40]")
    code, printed = nlnet(monkeypatch, capsys, "convert", tmp_path / "a.pkl", out, *given, "--json")
    assert code == 0, printed.err
    report = json.loads(printed.out)
    assert report["settings"]["variant"] == {"value": "8x8", "why": "given"}
    assert set(report["bookkeeping"]) == {"lr", "model_iter"}
    config = load_checkpoint(out).config
    assert (config.model.pairwise, config.data.crop, config.data.mean) == ("dot_product", 32, 0.45)
    assert load_checkpoint(out).classes == ("0", "1", "2")


def test_another_network_starts_from_the_file(tmp_path, monkeypatch, capsys):
    write_weights(
        randomised(create_model("c2d_mini", num_classes=5, variant="8x8", padding="padded")),
        tmp_path / "still.pth",
        "torchvision",
    )
    out = tmp_path / "o.safetensors"
    (tmp_path / "two.txt").write_text("up\ndown\n")
    code, printed = nlnet(
        monkeypatch, capsys, "convert", tmp_path / "still.pth", out, "--model", "i3d_mini_nl1",
        "--classes", tmp_path / "two.txt", "--json",
    )  # fmt: skip
    assert code == 0, printed.err
    report = json.loads(printed.out)
    assert {"fc.weight", "fc.bias"} < set(report["fresh"])
    assert report["settings"] == {}
    assert report["inflated"] > 0
    assert load_checkpoint(out).config.model.padding == "released"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "caffe2"), "the Caffe2 release cannot build this network: pool1 has"),
        (("--to", "onnx"), "format: got 'onnx'"),
        (("--source", "keras"), "source: got 'keras'"),
        (("model.paddin=padded",), "unknown key 'model.paddin'; did you mean 'model.padding'"),
        (
            ("training.batch=3",),
            "expected a setting of the network or its data, model.KEY=VALUE or data.KEY=VALUE",
        ),
        (
            ("--classes", "{two}"),
            "has 2 class names, but the classifier has 3 outputs; give as many names, or --model NETWORK for a new classifier",
        ),
        (("--model", "i3d_r50"), "the weights do not fit the model"),
    ],
)
def test_wrong_input_writes_nothing(tmp_path, monkeypatch, capsys, mmaction2, arguments, message):
    (tmp_path / "two.txt").write_text("up\ndown\n")
    arguments = [argument.format(two=tmp_path / "two.txt") for argument in arguments]
    before = sorted(tmp_path.iterdir())
    code, printed = nlnet(monkeypatch, capsys, "convert", mmaction2[1], tmp_path / "out", *arguments)
    assert code == 1
    assert message in " ".join(printed.err.split())
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_overwritten(tmp_path, monkeypatch, capsys, mmaction2):
    (tmp_path / "out").write_text("mine")
    code, printed = nlnet(monkeypatch, capsys, "convert", mmaction2[1], tmp_path / "out")
    assert code == 1
    assert "exists already; remove it, or choose another name" in printed.err
    assert (tmp_path / "out").read_text() == "mine"


def test_weights_without_a_classifier_need_names_and_a_network(tmp_path, monkeypatch, capsys):
    state = create_model("c2d_mini", num_classes=3).state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "body.pth")
    code, printed = nlnet(monkeypatch, capsys, "convert", tmp_path / "body.pth", tmp_path / "out")
    assert code == 1
    assert "the weights have no classifier; give --classes FILE and --model NETWORK" in printed.err


def test_init_weights_reads_the_same_files(tmp_path, mmaction2):
    model, theirs = mmaction2
    state = read_initial(InitConfig(weights=theirs)).state
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert read_weights(theirs).state.keys() == state.keys()
    theirs.write_bytes(theirs.read_bytes()[:-40])
    with pytest.raises(RunError, match=r"theirs\.pth: not weights that can be loaded safely"):
        read_initial(InitConfig(weights=theirs))


def converted(monkeypatch, capsys, *arguments):
    """The network that the converted file's configuration builds, with its weights, and the report."""
    code, printed = nlnet(monkeypatch, capsys, "convert", *arguments, "--json")
    assert code == 0, printed.err
    checkpoint = load_checkpoint(arguments[1])
    model = build_model(checkpoint.config, len(checkpoint.classes))
    model.load_state_dict(checkpoint.weights)
    return model.eval(), json.loads(printed.out)


@pytest.mark.parametrize("name", [None, "i3d_mini_nl1"])
def test_convert_and_create_model_build_the_same_network(tmp_path, monkeypatch, capsys, name):
    """A file with its block at another position than the name's, and its own pools and convention."""
    theirs = randomised(
        create_model(
            "i3d_mini_nl1",
            num_classes=3,
            padding="mmaction2",
            convention="mmcv",
            scale=1.0,
            where=["layer3.0"],
        )
    )
    write_weights(theirs, tmp_path / "x.pth", "mmaction2")
    named = () if name is None else ("--model", name)
    model, report = converted(monkeypatch, capsys, tmp_path / "x.pth", tmp_path / "o.safetensors", *named)
    started = create_model("i3d_mini_nl1", num_classes=3, weights=tmp_path / "x.pth").eval()
    assert (report["model"]["stage"], report["model"]["where"]) == ("res4", None)
    with torch.no_grad():
        assert torch.equal(model(CLIP), theirs(CLIP))
        assert torch.equal(started(CLIP), theirs(CLIP))


@pytest.mark.parametrize("name", [None, "c2d_mini"])
def test_convert_and_create_model_give_an_image_network_the_same_variant(tmp_path, monkeypatch, capsys, name):
    flat = randomised(create_model("c2d_mini", num_classes=3, padding="padded"))
    write_weights(flat, tmp_path / "still.pth", "torchvision")
    named = () if name is None else ("--model", name)
    model, report = converted(monkeypatch, capsys, tmp_path / "still.pth", tmp_path / "o.safetensors", *named)
    started = create_model("c2d_mini", num_classes=3, weights=tmp_path / "still.pth")
    assert report["model"]["variant"] == "32x2"
    assert model.conv1.stride == started.conv1.stride == (2, 2, 2)


def test_a_note_on_what_the_written_file_does_not_say(tmp_path, monkeypatch, capsys):
    model = randomised(create_model("i3d_mini_nl1", num_classes=3, pairwise="dot_product"))
    torch.save(model.state_dict(), tmp_path / "w.pt")
    given = (tmp_path / "w.pt", tmp_path / "x.pkl", "model.pairwise=dot_product", "--to", "caffe2")
    code, printed = nlnet(monkeypatch, capsys, "convert", *given, "--json")
    assert code == 0, printed.err
    assert json.loads(printed.out)["notes"] == [
        "nothing in the file says that its blocks use the dot product: read it with pairwise=dot_product"
    ]
    assert printed.err == ""
    given = (tmp_path / "w.pt", tmp_path / "y.pkl", "model.pairwise=dot_product", "--to", "caffe2")
    assert "read it with pairwise=dot_product" in " ".join(
        nlnet(monkeypatch, capsys, "convert", *given)[1].out.split()
    )

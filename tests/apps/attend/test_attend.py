"""`nlnet attend`: its numbers are the affinity rows of the view that `nlnet test` scores, and its files are complete."""

import json
import shutil
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from support.command_line import nlnet
from torch import nn

from nlnet.apps.attend import command as attend
from nlnet.apps.attend.command import output_folder, select_blocks
from nlnet.apps.attend.video_attention import view_of
from nlnet.attention.observe import attention_row
from nlnet.data import EvalTransform, EvalViews, VideoItem, VideoList, normalize
from nlnet.engine.config import Config, DataConfig, EvalConfig, ModelConfig
from nlnet.engine.network import build_model, load_network
from nlnet.engine.runs.checkpoint import Checkpoint
from nlnet.engine.runs.directory import RunDir

CLASSES = ("blue", "green", "red")


def save_run(path: Path, model: ModelConfig, **test: object) -> Path:
    """Write a run of an untrained network whose blocks change their input (γ is 1, not 0)."""
    config = Config(
        model=model,
        data=DataConfig(frames=8, stride=1, crop=24, scales=(26, 26)),
        test=EvalConfig(clips=2, crops=3, short_side=28, crop=24, **test),
    )
    torch.manual_seed(0)
    network = build_model(config, len(CLASSES))
    for name, parameter in network.named_parameters():
        if "nonlocal_block.norm.weight" in name:
            nn.init.ones_(parameter)
    run = RunDir(path)
    run.create(config, CLASSES)
    weights = network.state_dict()
    run.save("last", Checkpoint(weights=weights, config=config, classes=CLASSES, iteration=0, metrics={}))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(
        tmp_path_factory.mktemp("attend") / "run",
        ModelConfig(name="c2d_mini_nl1", variant="8x8", pairwise="dot_product"),
    )


@pytest.fixture
def video(color_videos: Path) -> Path:
    return color_videos / "val" / "red" / "0.mp4"


def test_the_numbers_are_the_rows_of_the_tested_view(run: Path, video: Path, tmp_path: Path) -> None:
    done = nlnet("attend", run, video, "--at", "3,5,20", "--at", "0,0,0", "--out", tmp_path / "o", "--json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    model, loaded = load_network(run, "last", torch.device("cpu"))
    test = loaded.config.test
    views = EvalViews(
        VideoList(items=(VideoItem(path=video, label=None),), classes=(), source=video),
        length=8,
        stride=1,
        num_clips=test.clips,
        protocol=test.protocol,
        transform=EvalTransform(test.crop, test.short_side, test.crops, test.protocol),
    )[0].clips
    # 2 clips × 3 crops: view 1 is the centre crop of the first clip, the earlier of the two middle ones
    clip = normalize(views[1:2], loaded.config.data.mean, loaded.config.data.std)
    assert numbers["view"] == {"number": 1, "of": 6, "start_frame": 0}
    assert [gaze["position"] for gaze in numbers["gazes"]] == [[3, 5, 20], [0, 0, 0]]
    for gaze in numbers["gazes"]:
        expected = attention_row(model, clip, gaze["position"])[gaze["block"]]
        torch.testing.assert_close(torch.tensor(gaze["weights"]), expected, atol=1e-6, rtol=1e-5)
        assert gaze["signed"]
        assert [len(gaze["centres"][axis]) for axis in "tyx"] == list(expected.shape)
        best = gaze["strongest"][0]
        assert abs(best["weight"]) == pytest.approx(expected.abs().max().item(), rel=1e-5)
    assert sum(numbers["classes"].values()) == pytest.approx(1, abs=1e-5)
    assert numbers["label"] == "red"
    assert json.loads((tmp_path / "o" / "attention.json").read_text()) == numbers


def test_every_file_is_there_and_can_be_opened(run: Path, video: Path, tmp_path: Path) -> None:
    """Frames of 24 pixels, one position, one block: two panels, enlarged 11 times to 264 pixels."""
    out = tmp_path / "pictures"
    done = nlnet("attend", run, video, "--at", "3,5,20", "--out", out)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        f"attention.{k}" for k in ("gif", "json", "mp4", "png")
    ]
    for name in (
        "attention.png",
        "attention.gif",
        "attention.mp4",
        "attention.json",
        "label red",
        "layer2.1",
    ):
        assert name in done.stdout
    with Image.open(out / "attention.gif") as gif:
        assert (gif.n_frames, gif.size) == (8, (2 * (11 * 24 + 8), 11 * 24 + 24))
    with av.open(str(out / "attention.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 8
    with Image.open(out / "attention.png") as picture:
        assert picture.width == 1300


def test_positions_are_chosen_where_the_block_changes_most(run: Path, video: Path) -> None:
    """By default one position, and files in the run's own folder; a checkpoint file can be given instead of a run."""
    done = nlnet("attend", run / "checkpoints" / "last.safetensors", video, "--json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert numbers["positions_chosen_by"] == "the strongest response of layer2.1.nonlocal_block"
    assert len(numbers["gazes"]) == 1
    assert (run / "checkpoints" / "attention" / "0" / "attention.png").exists()
    more = json.loads(nlnet("attend", run, video, "--queries", "2", "--json").stdout)
    assert len(more["gazes"]) == 2
    assert more["gazes"][0]["position"] == numbers["gazes"][0]["position"]
    assert (run / "attention" / "0" / "attention.png").exists()


def test_videos_of_one_name_do_not_overwrite_each_other(
    run: Path, color_videos: Path, tmp_path: Path
) -> None:
    """red/0.mp4, blue/0.mp4 and another blue/0.mp4, then the first again."""
    other = tmp_path / "blue" / "0.mp4"
    other.parent.mkdir()
    shutil.copy(color_videos / "train" / "blue" / "0.mp4", other)
    root = tmp_path / "run"
    videos = [color_videos / "val" / "red" / "0.mp4", color_videos / "val" / "blue" / "0.mp4", other]
    folders = []
    for video in [*videos, videos[0]]:
        folders.append(output_folder(video, root))
        folders[-1].mkdir(parents=True, exist_ok=True)
        (folders[-1] / "attention.json").write_text(json.dumps({"video": str(video)}))
    assert [folder.name for folder in folders] == ["0", "blue_0", "0-2", "0"]
    (root / "0" / "attention.json").write_text("cut sh")  # its video is unknown: the folder is left alone
    assert output_folder(videos[0], root).name == "red_0"


def test_the_second_video_of_a_name_has_a_folder_of_its_own(
    run: Path, color_videos: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied, ignore=shutil.ignore_patterns("attention"))
    for color in ("red", "blue"):
        assert nlnet("attend", copied, color_videos / "val" / color / "0.mp4").returncode == 0
    told = {
        path.parent.name: json.loads(path.read_text())["label"]
        for path in copied.glob("attention/*/attention.json")
    }
    assert told == {"0": "red", "blue_0": "blue"}


def test_estimated_positions_are_reported(
    run: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In attention.json and on the terminal; positions that were traced are not mentioned."""

    def loaded(*arguments: object) -> object:
        model, checkpoint = load_network(run, "last", torch.device("cpu"))
        model.layer2.register_forward_pre_hook(lambda module, args: (args[0].roll(1, dims=3),))
        return model, checkpoint

    options = {
        "at": ["3,5,20"],
        "blocks": [],
        "queries": 1,
        "view": None,
        "top": 5,
        "checkpoint": "last",
        "device": "cpu",
    }
    for folder, exact in (("traced", True), ("estimated", False)):
        if not exact:
            monkeypatch.setattr(attend, "load_network", loaded)
        attend.run_attend(run, video, out=tmp_path / folder, as_json=False, **options)
        said = " ".join(capsys.readouterr().out.split())
        assert ("positions estimated from map sizes: layer2.1.nonlocal_block" in said) != exact
        numbers = json.loads((tmp_path / folder / "attention.json").read_text())
        assert [gaze["places_exact"] for gaze in numbers["gazes"]] == [exact]


def test_the_animation_has_the_videos_frame_rate(run: Path, video: Path, tmp_path: Path) -> None:
    """25 frames per second, every frame taken: limited to the largest rate of an animation."""
    config = load_network(run, "last", torch.device("cpu"))[1].config
    assert view_of(video, config).seconds == pytest.approx([n / 25 for n in range(8)])
    done = nlnet("attend", run, video, "--out", tmp_path / "o", "--json")
    assert json.loads(done.stdout)["film"] == {"frames_per_second": 12.0}
    with av.open(str(tmp_path / "o" / "attention.mp4")) as container:
        assert container.streams.video[0].average_rate == 12


def test_another_view_is_another_clip(run: Path, video: Path) -> None:
    config = load_network(run, "last", torch.device("cpu"))[1].config
    first, last = view_of(video, config, 0), view_of(video, config, 5)
    assert (first.start, last.start, last.of) == (0, 5, 6)  # ⌊1·10/2⌋
    assert not torch.equal(first.clip, last.clip)
    assert view_of(video, config).number == 1


def test_blocks_are_selected_by_path_or_by_module_in_the_networks_order() -> None:
    paths = ["layer2.1.nonlocal_block", "layer3.1.nonlocal_block", "layer3.11.nonlocal_block"]
    assert select_blocks(paths, []) == paths
    assert select_blocks(paths, ["layer3.1", "layer2.1.nonlocal_block"]) == paths[:2]
    assert select_blocks(paths, ["layer3"]) == paths[1:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--at", "3,5"), "--at: got '3,5', expected t,y,x"),
        (("--at", "3,5,a"), "--at: got '3,5,a', expected t,y,x"),
        (
            ("--at", "8,0,0"),
            "--at: got 8,0,0, which is outside the clip; expected a frame from 0 to 7, a row from 0 to 23",
        ),
        (("--block", "layer9"), "block: got 'layer9', expected one of layer2.1.nonlocal_block"),
        (("--view", "6"), "view: got 6, expected 0 to 5; the run tests 2 clips × 3 crops of a video"),
        (("--top", "0"), "--top"),
        (("--queries", "0"), "--queries"),
    ],
)
def test_bad_options_get_one_message(
    run: Path, video: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = nlnet("attend", run, video, *options, "--out", tmp_path / "o")
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_network_without_blocks_is_named(tmp_path: Path, video: Path) -> None:
    local = save_run(tmp_path / "local", ModelConfig(name="c2d_mini", variant="8x8"))
    done = nlnet("attend", local, video)
    assert done.returncode == 1
    assert "c2d_mini has no non-local block, so there is no attention to show" in done.stderr


def test_an_unreadable_video_is_named(run: Path, tmp_path: Path) -> None:
    bad = tmp_path / "notes.mp4"
    bad.write_text("no video")
    done = nlnet("attend", run, bad)
    assert done.returncode == 1
    assert str(bad) in done.stderr

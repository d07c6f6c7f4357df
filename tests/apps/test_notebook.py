"""A trained run in Python gives the numbers of the command line, prints nothing, and names what it cannot read."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from support.command_line import nlnet as command
from support.runs import CLASSES, save_run

import nlnet
from nlnet.apps import plots
from nlnet.apps.notebook import Prediction, TrainedRun
from nlnet.data import EvalTransform, EvalViews, VideoItem, VideoList, normalize
from nlnet.engine.evaluation.evaluate import evaluate
from nlnet.engine.network import load_network
from nlnet.errors import EvaluationError, NlnetError, RunError


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("notebook") / "mine")


@pytest.fixture(scope="module")
def run(directory: Path) -> TrainedRun:
    return nlnet.load(directory, device="cpu")


@pytest.fixture(scope="module")
def videos(color_videos: Path) -> list[Path]:
    return [color_videos / "val" / color / "0.mp4" for color in ("red", "blue", "green")]


@pytest.fixture
def unreadable(tmp_path: Path) -> Path:
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    return path


def views_of(run: TrainedRun, video: Path) -> EvalViews:
    """The test views of a video, normalised, as the data set of `nlnet test` gives them: (V, 3, T, H, W)."""
    test, data = run.config.test, run.config.data
    clips = EvalViews(
        VideoList(items=(VideoItem(path=video, label=None),), classes=(), source=video),
        length=data.frames,
        stride=data.stride,
        num_clips=test.clips,
        protocol=test.protocol,
        transform=EvalTransform(test.crop, test.short_side, test.crops, test.protocol),
    )[0].clips
    return normalize(clips, data.mean, data.std)


def test_a_run_has_its_network_configuration_classes_and_metrics(directory, run):
    assert isinstance(run.model, torch.nn.Module)
    assert not run.model.training
    assert run.classes == CLASSES
    assert run.iteration == 20
    assert run.config.model.name == "c2d_mini_nl1"
    assert [record["kind"] for record in run.metrics] == ["train", "validation"] * 2
    assert repr(run) == f"TrainedRun('{directory}': c2d_mini_nl1, 3 classes, iteration 20, on cpu)"
    assert nlnet.load(str(directory), checkpoint="best").iteration == 10


def test_a_checkpoint_file_is_a_run_without_metrics(directory, run, videos):
    file = nlnet.load(directory / "checkpoints" / "last.safetensors", device="cpu")
    assert file.metrics == []
    assert file.predict(videos[0]) == run.predict(videos[0])
    with pytest.raises(
        RunError, match=r"last.safetensors: no training metrics here; curves need the run directory"
    ):
        file.curves()


def test_predictions_are_those_of_the_command(directory, run, videos):
    """To the last digit; the command shows the top 2 of 3 classes."""
    done = command("predict", directory, *videos, "--top", "2", "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    found = run.predict(videos)
    for answer, prediction in zip(json.loads(done.stdout)["videos"], found, strict=True):
        assert str(prediction.path) == answer["path"]
        assert prediction.views == answer["views"] == 6
        assert list(prediction.scores.items())[:2] == list(answer["classes"].items())
    assert run.predict(str(videos[1])) == found[1]


def test_a_prediction_is_the_mean_of_the_views_by_the_code_of_a_test(directory, run, videos):
    model, _ = load_network(directory, "last", torch.device("cpu"))
    clips = views_of(run, videos[0])
    with torch.no_grad():
        expected = model(clips).softmax(dim=1).mean(dim=0)
    prediction = run.predict(videos[0])
    assert isinstance(prediction, Prediction)
    assert prediction.path == videos[0]
    assert set(prediction.scores) == set(CLASSES)
    got = torch.tensor([prediction.scores[name] for name in CLASSES])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert prediction.label == CLASSES[int(expected.argmax())]
    assert prediction.score == max(prediction.scores.values())
    assert list(prediction.scores.values()) == sorted(prediction.scores.values(), reverse=True)


def test_nothing_is_printed_unless_asked(run, videos, capfd):
    run.predict(videos)
    run.features(videos[0])
    run.attention(videos[0]).figure()
    run.curves()
    assert capfd.readouterr() == ("", "")


def test_progress_shows_the_bar_of_the_command(run, videos, monkeypatch):
    from nlnet.apps.verbs import predict

    shown = []

    def watched(model, videos, config, world):
        shown.append(len(videos))
        return evaluate(model, videos, config, world=world), 0.0

    monkeypatch.setattr(predict, "watched_evaluation", watched)
    run.predict(videos)
    assert shown == []
    run.predict(videos, progress=True)
    assert shown == [3]


def test_an_unreadable_video_is_named(run, videos, unreadable):
    with pytest.raises(EvaluationError, match=r"notes\.mp4") as caught:
        run.predict(unreadable)
    assert isinstance(caught.value, NlnetError)
    with pytest.raises(EvaluationError, match=r"notes\.mp4"):
        run.predict([videos[0], unreadable])
    for look in (run.features, run.attention):
        with pytest.raises(NlnetError, match=r"notes\.mp4"):
            look(unreadable)


def test_unreadable_videos_can_be_skipped(run, videos, unreadable, tmp_path):
    with pytest.warns(UserWarning, match=r"skipped .*notes\.mp4"):
        found = run.predict([videos[0], unreadable, videos[1]], errors="skip")
    assert found == [run.predict(videos[0]), None, run.predict(videos[1])]
    with pytest.warns(UserWarning, match=r"skipped .*notes\.mp4"):
        assert run.predict(unreadable, errors="skip") is None
    with pytest.warns(UserWarning, match="skipped") as warned:
        assert run.predict([unreadable, tmp_path / "absent.mp4"], errors="skip") == [None, None]
    assert [warning.filename for warning in warned] == [__file__] * 2
    with pytest.raises(NlnetError, match="errors: got 'ignore', expected 'raise' or 'skip'"):
        run.predict(videos, errors="ignore")


def test_no_videos_give_no_predictions(run):
    assert run.predict([]) == []


@pytest.mark.parametrize("protocol", ["mmaction2", "released"])
def test_the_classifier_of_features_gives_the_logits(tmp_path, videos, protocol):
    """fc is linear: the logits of the mean of the views are the mean of their logits. The windows of "released" cover
    the whole map, since the test crop is the training crop."""
    run = nlnet.load(save_run(tmp_path / "run", f"test.protocol={protocol}"), device="cpu")
    views = run.features(videos[0], per_view=True)
    assert views.shape == (6, run.model.fc.in_features)
    with torch.no_grad():
        logits = run.model(views_of(run, videos[0]))
        torch.testing.assert_close(run.model.fc(views), logits, rtol=1e-4, atol=1e-5)
        mean = run.features(videos[0])
        assert mean.shape == (run.model.fc.in_features,)
        torch.testing.assert_close(run.model.fc(mean), logits.mean(dim=0), rtol=1e-4, atol=1e-5)
    assert (mean.dtype, mean.requires_grad) == (torch.float32, False)


def test_features_are_the_average_of_the_map_where_windows_are_smaller(tmp_path, videos):
    """A test crop of 72 pixels on a network trained at 48: a 5×5 map under 3×3 windows."""
    run = nlnet.load(save_run(tmp_path / "run", "test.crop=72", "test.short_side=72"), device="cpu")
    clips = views_of(run, videos[0])
    with torch.no_grad():
        maps = run.model.features(clips)
    assert maps.shape[3:] == (5, 5)
    torch.testing.assert_close(
        run.features(videos[0], per_view=True), maps.mean(dim=(2, 3, 4)), rtol=1e-4, atol=1e-5
    )


def test_attention_has_the_numbers_of_the_command(directory, run, videos, tmp_path):
    options = ("--at", "3,5,20", "--view", "4", "--out", tmp_path / "o", "--json", "--device", "cpu")
    done = command("attend", directory, videos[0], *options)
    assert done.returncode == 0, done.stderr
    (expected,) = json.loads(done.stdout)["gazes"]
    found = run.attention(videos[0], (3, 5, 20), view=4)
    assert found.blocks == (expected["block"],) == ("layer2.1.nonlocal_block",)
    weights = found.weights[expected["block"]]
    assert weights.tolist() == expected["weights"]
    assert weights.ndim == 3
    for centres, axis in zip(found.centres[expected["block"]], "tyx", strict=True):
        assert centres.tolist() == expected["centres"][axis]
    assert list(found.query_cells[expected["block"]]) == expected["query_cell"]
    assert list(found.query_centres[expected["block"]]) == expected["query_centre"]
    assert [{"weight": w, "centre": list(c)} for w, c in found.strongest_keys()] == expected["strongest"]
    assert list(found.scores.items()) == list(json.loads(done.stdout)["classes"].items())


def test_the_figure_is_the_picture_of_the_command(directory, run, videos, tmp_path):
    done = command(
        "attend", directory, videos[0], "--at", "3,5,20", "--out", tmp_path / "o", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    figure = run.attention(videos[0], (3, 5, 20)).figure()
    assert isinstance(figure, Figure)
    plots.save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == (tmp_path / "o" / "attention.png").read_bytes()


def test_attention_without_a_position_is_that_of_the_strongest(directory, run, videos, tmp_path):
    done = command("attend", directory, videos[0], "--queries", "3", "--out", tmp_path / "o", "--json")
    expected = [tuple(gaze["position"]) for gaze in json.loads(done.stdout)["gazes"]]
    found = run.attention(videos[0])
    assert found.strongest(3) == expected
    assert found.position == expected[0]
    second = found.at(expected[1])
    again = run.attention(videos[0], expected[1])
    assert second.weights.keys() == again.weights.keys()
    torch.testing.assert_close(second.weights, again.weights, rtol=0, atol=0)
    assert found.clip.shape == (3, 4, 48, 48)
    assert found.clip.dtype == torch.uint8


def test_blocks_are_chosen_by_the_modules_that_hold_them(tmp_path, videos):
    """Five blocks in res2 (1), res3 (2) and res4 (2): positions and keys are those of the last one that was chosen."""
    run = nlnet.load(save_run(tmp_path / "run", "model.name=c2d_mini20_nl5"), device="cpu")
    found = run.attention(videos[0], blocks=["layer2"])
    paths = ("layer2.0.nonlocal_block", "layer2.1.nonlocal_block")
    assert found.blocks == tuple(found.weights) == tuple(found.centres) == tuple(found.query_cells) == paths
    everything = run.attention(videos[0], found.position)
    assert len(everything.blocks) == 5
    assert found.position == everything.strongest(1, paths[1])[0] == found.strongest()[0]
    torch.testing.assert_close(found.weights, {p: everything.weights[p] for p in paths}, rtol=0, atol=0)
    for block in paths:
        (largest, centre), *_ = found.strongest_keys(3, block)
        row = found.weights[block]
        t, y, x = (int(i) for i in torch.unravel_index(row.abs().argmax(), row.shape))
        assert largest == row[t, y, x].item()
        assert centre == tuple(c[i].item() for c, i in zip(found.centres[block], (t, y, x), strict=True))
    assert found.strongest_keys(3) == found.strongest_keys(3, paths[1]) != found.strongest_keys(3, paths[0])


def test_wrong_arguments_of_attention_are_named(tmp_path, run, videos):
    with pytest.raises(NlnetError, match="view: got 6, expected 0 to 5; the run tests 2 clips × 3 crops"):
        run.attention(videos[0], view=6)
    with pytest.raises(NlnetError, match="block: got 'layer9', expected one of layer2.1.nonlocal_block"):
        run.attention(videos[0], blocks=["layer9"])
    with pytest.raises(ValueError, match=r"position: got \(4, 0, 0\), expected"):
        run.attention(videos[0], (4, 0, 0))
    with pytest.raises(NlnetError, match="block: got 'layer9', expected one of"):
        run.attention(videos[0]).strongest_keys(block="layer9")
    local = nlnet.load(save_run(tmp_path / "local", "model.name=c2d_mini"), device="cpu")
    with pytest.raises(NlnetError, match="c2d_mini has no non-local block, so there is no attention to show"):
        local.attention(videos[0])


def test_curves_show_loss_and_accuracy(run):
    figure = run.curves()
    loss, accuracy = (panel.lines[0] for panel in figure.axes)
    assert np.asarray(loss.get_xydata()).tolist() == [[10, 1.0], [20, 0.5]]
    assert np.asarray(accuracy.get_xydata()).tolist() == [[10, 30.0], [20, 60.0]]
    assert figure.axes[1].get_legend_handles_labels()[1] == ["mine"]


def test_curves_of_a_multi_label_run_show_its_metric():
    records = [{"kind": "validation", "iteration": 5, "clip_map": 12.0}]
    figure = plots.curves_figure({"charades-0": records})
    assert figure.axes[1].get_ylabel() == "validation clip_map, %"
    assert np.asarray(figure.axes[1].lines[0].get_xydata()).tolist() == [[5, 12.0]]


def test_a_saved_figure_is_the_figure(run, tmp_path):
    """What the demo saves and what a notebook shows are one drawing."""
    runs = {"mine-0": run.metrics}
    plots.curves(runs, tmp_path / "a.png", chance={})
    plots.save(run.curves(), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_figure_is_a_png_in_a_notebook_and_leaves_its_backend_alone(directory, videos):
    """In a process of its own: the backend is one of the process. pdf stands for the notebook's own."""
    code = (
        "import matplotlib, nlnet; matplotlib.use('pdf'); import matplotlib.pyplot as plt; "
        f"run = nlnet.load({str(directory)!r}, device='cpu'); "
        f"figures = run.curves(), run.attention({str(videos[0])!r}).figure(); "
        "print(plt.get_backend(), plt.get_fignums(), *(f._repr_png_()[:4] for f in figures))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "pdf [] b'\\x89PNG' b'\\x89PNG'"


def test_it_works_twice_and_from_a_thread(directory, run, videos):
    """With a decoding process of its own, too, as most runs have one."""
    first = run.predict(videos)
    workers = nlnet.load(save_run(directory.parent / "workers", "data.workers=1"), device="cpu")
    found = []

    def work() -> None:
        found.extend([run.predict(videos), workers.predict(videos), run.features(videos[0])])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=60)
    assert found[:2] == [first, first]
    torch.testing.assert_close(found[2], run.features(videos[0]), rtol=0, atol=0)


def test_torchrun_does_not_make_it_wait_for_other_processes(run, videos, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "3")
    again = nlnet.load(run.path, device="cpu")
    assert again.predict(videos) == run.predict(videos)
    assert not torch.distributed.is_initialized()


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match="no such"):
        nlnet.load(tmp_path / "absent")
    with pytest.raises(RunError, match="checkpoint: got 'newest', expected 'last' or 'best'"):
        nlnet.load(tmp_path, checkpoint="newest")
    with pytest.raises(NlnetError, match="device: got 'gpu', expected auto, cpu or cuda"):
        nlnet.load(tmp_path, device="gpu")

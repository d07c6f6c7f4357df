"""The diagnostic as files: the right clips, an atomic write, and no shortcut to the label in the pixels."""

import json

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from nlnet.data import Video, read_videos
from nlnet.data.diagnostic.bounds import additive_bound, single_item_bound
from nlnet.data.diagnostic.files import cut_into_chunks, write_dataset
from nlnet.data.diagnostic.task import STILL_CLASSES, DiagnosticSpec, make_clip, make_still
from nlnet.errors import NlnetError

SPEC = DiagnosticSpec(height=36, width=36, frames=18, tile=14, visible=4)
COUNTS = {"train": 30, "val": 10, "test": 10, "stills": 22}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("diagnostic") / "data"
    write_dataset(SPEC, root, COUNTS)
    return root


def test_the_files_are_an_ordinary_data_set(written):
    videos = read_videos(written / "train")
    assert (len(videos.items), len(videos.classes)) == (30, 10)
    stills = read_videos(written / "stills" / "train")
    assert set(stills.classes) == set(STILL_CLASSES)
    assert len(read_videos(written / "stills" / "val", classes=stills.classes).items) == 3


def test_decoded_frames_are_the_clips(written):
    """Decoded frames equal the clips up to noise: H.264 keeps the items."""
    for path in sorted((written / "test").glob("*/*.mp4")):
        clip = make_clip(SPEC, "test", int(path.stem))
        assert path.parent.name == str(clip.label)
        with Video(path) as video:
            frames = video.frames(range(video.num_frames)).numpy()
        assert frames.shape == clip.frames.shape
        assert np.abs(frames.astype(int) - clip.frames).mean() < 9
        for item in clip.items:
            inside = np.s_[list(item.frames), item.top + 2 : item.top + 12, item.left + 2 : item.left + 12]
            assert (
                np.abs(frames[inside].mean(axis=(0, 1, 2)) - clip.frames[inside].mean(axis=(0, 1, 2))).max()
                < 6
            )


def test_stills_are_lossless(written):
    for path in (written / "stills" / "train").glob("*/*.png"):
        frame, label = make_still(SPEC, "train", int(path.stem))
        assert path.parent.name == STILL_CLASSES[label]
        with Video(path) as still:
            assert torch.equal(still.frames([0])[0], torch.from_numpy(frame))


def test_writing_again_gives_the_same_bytes_in_any_number_of_processes(written, tmp_path):
    write_dataset(SPEC, tmp_path / "again", COUNTS, processes=2)
    files = sorted(p.relative_to(written) for p in written.rglob("*.*"))
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*.*"))
    assert all((written / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)


def test_the_same_data_set_is_left_alone_and_another_is_not_overwritten(written, tmp_path):
    stamp = (written / "dataset.json").stat().st_mtime_ns
    write_dataset(SPEC, written, COUNTS)
    assert (written / "dataset.json").stat().st_mtime_ns == stamp
    with pytest.raises(NlnetError, match=r"holds another diagnostic data set \(different counts\)"):
        write_dataset(SPEC, written, COUNTS | {"val": 11})
    (tmp_path / "mine").mkdir()
    with pytest.raises(NlnetError, match="mine exists and is not a diagnostic data set; choose another"):
        write_dataset(SPEC, tmp_path / "mine", COUNTS)
    with pytest.raises(NlnetError, match=r"counts: unknown tset; expected train"):
        write_dataset(SPEC, tmp_path / "x", {"tset": 1})


def test_a_failure_leaves_nothing(tmp_path):
    def fail(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(SPEC, tmp_path / "data", COUNTS, progress=fail)
    assert not list(tmp_path.iterdir())


def test_chunks_cover_every_file_once():
    chunks = list(cut_into_chunks({"train": 250, "stills": 101}))
    assert sum(p.last - p.first for p in chunks) == 250 + 101 + 11
    assert [(p.first, p.last) for p in chunks if not p.still] == [(0, 100), (100, 200), (200, 250)]


def test_the_description_is_recorded(written):
    facts = json.loads((written / "dataset.json").read_text())
    assert facts["spec"]["tile"] == 14
    assert facts["counts"] == COUNTS


@pytest.mark.parametrize("view", ["one frame", "mean of frames", "bag of pixels"])
def test_classifiers_without_relations_stay_below_the_bounds(view):
    """Linear classifiers on a frame, on the mean frame, and on a bag of local features, on held-out digit images."""
    clips = {
        split: [make_clip(SPEC, split, i) for i in range(n)] for split, n in (("train", 400), ("test", 200))
    }

    def features(clip):
        small = clip.frames[:, 1::3, 1::3].astype(np.float32)
        if view == "one frame":
            return small[9].ravel()
        if view == "mean of frames":
            return small.mean(axis=0).ravel()
        return np.histogramdd(small.reshape(-1, 3), bins=(6, 6, 6), range=((0, 256),) * 3)[0].ravel()

    x, y = (
        {s: np.stack([f(c) for c in clips[s]]) for s in clips}
        for f in (features, lambda c: np.array(c.label))
    )
    shrink = PCA(40, random_state=0).fit(x["train"])
    fit = LogisticRegression(max_iter=300).fit(shrink.transform(x["train"]) / 100, y["train"])
    rate = fit.score(shrink.transform(x["test"]) / 100, y["test"])
    bound = single_item_bound() if view == "one frame" else additive_bound()
    assert rate <= bound + 3 * (bound * (1 - bound) / 200) ** 0.5


def test_an_oracle_that_relates_items_is_always_right():
    for i in range(50):
        red, green, cue = make_clip(SPEC, "test", i).items
        assert make_clip(SPEC, "test", i).label == (red if cue.color == "red" else green).digit


@pytest.mark.parametrize("task", ["space", "time", "spacetime"])
def test_every_task_can_be_written(task, tmp_path):
    write_dataset(DiagnosticSpec(task=task), tmp_path / "data", {"train": 10, "stills": 22})
    assert len(read_videos(tmp_path / "data" / "train").items) == 10


def test_a_data_set_of_a_version_without_a_field_is_recognised(written):
    """A missing field means its default."""
    path = written / "dataset.json"
    text = path.read_text()
    facts = json.loads(text)
    del facts["spec"]["layout"]
    path.write_text(json.dumps(facts))
    try:
        write_dataset(SPEC, written, COUNTS)
        assert json.loads(path.read_text()) == facts, "left alone"
        facts["spec"]["noise"] = 0.5
        path.write_text(json.dumps(facts))
        with pytest.raises(NlnetError, match="different spec"):
            write_dataset(SPEC, written, COUNTS)
    finally:
        path.write_text(text)

"""The file of scores: round trip, a format that other programs can read, atomic writes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.scores import saved_scores

from nlnet.engine.evaluation.score_files import SavedScores, read_scores, write_scores
from nlnet.engine.evaluation.video_scores import Evaluation
from nlnet.errors import ScoresError


def assert_same(a: SavedScores, b: SavedScores) -> None:
    for one, other in zip(a.evaluation.videos, b.evaluation.videos, strict=True):
        assert torch.equal(one.views, other.views)
        assert replace(one, views=0) == replace(other, views=0)
    empty = Evaluation((), (), ())
    assert replace(a, evaluation=empty) == replace(b, evaluation=empty)
    assert replace(a.evaluation, videos=()) == replace(b.evaluation, videos=())


@pytest.mark.parametrize("labels", [(0, 1, 0), ((), (0, 1), (1,)), (None, None, None)])
def test_round_trip(labels, tmp_path):
    saved = saved_scores(labels)
    write_scores(tmp_path / "test" / "scores.safetensors", saved)
    for place in (tmp_path / "test" / "scores.safetensors", tmp_path / "test", tmp_path):
        assert_same(read_scores(place), saved)


def test_sigmoids_of_the_largest_view(tmp_path):
    saved = saved_scores(((0,), (1,), ()), score="sigmoid")
    videos = tuple(replace(v, aggregate="max") for v in saved.evaluation.videos)
    saved = replace(
        saved,
        test=saved.test.model_copy(update={"aggregate": "max"}),
        evaluation=replace(saved.evaluation, videos=videos),
    )
    write_scores(tmp_path / "s", saved)
    again = read_scores(tmp_path / "s")
    assert_same(again, saved)
    assert torch.equal(again.evaluation.videos[0].video, saved.evaluation.videos[0].views.amax(dim=0))


def test_other_programs_can_read_the_file(tmp_path):
    """They need safetensors and JSON alone."""
    path = tmp_path / "scores.safetensors"
    write_scores(path, saved_scores())
    with safe_open(path, "np") as file:
        metadata = file.metadata()
        assert file.get_tensor("4").shape == (6, 2)
    assert metadata["format"] == "nlnet scores 1"
    assert json.loads(metadata["classes"]) == ["a b", "ü"]
    assert json.loads(metadata["videos"])[1] == {"index": 2, "path": "v/1.mp4", "label": 1, "starts": [0, 6]}
    assert json.loads(metadata["unread"])[0]["reason"] == "v/bad.mp4: is empty; download it again"
    assert json.loads(metadata["test"])["protocol"] == "released"
    assert json.loads(metadata["sampling"]) == {"frames": 8, "stride": 2}
    assert (metadata["score"], metadata["run"], metadata["iteration"]) == ("softmax", "runs/x", "500")


def spoiled(path: Path, *, drop: str | None = None, tensors=None, **changes: str) -> Path:
    """A file of scores with metadata changed, a key dropped, or other tensors."""
    write_scores(path, saved_scores())
    with safe_open(path, "pt") as file:
        metadata = {k: v for k, v in (file.metadata() | changes).items() if k != drop}
    save_file(tensors or load_file(path), path, metadata)
    return path


def test_older_files_have_no_entry_of_missing_videos(tmp_path):
    saved = read_scores(spoiled(tmp_path / "s.safetensors", drop="missing"))
    assert saved.evaluation.missing == ()
    assert len(saved.evaluation.failures) == 1


def labelled(label: object) -> str:
    """The metadata of one video with that label."""
    return json.dumps([{"index": 0, "path": "a.mp4", "label": label, "starts": [0]}])


def test_files_that_are_not_scores(tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(
        ScoresError, match=r"s.safetensors: no such file of scores; `nlnet test RUN` writes one"
    ):
        read_scores(path)
    with pytest.raises(ScoresError, match="test/scores.safetensors: no such file of scores"):
        read_scores(tmp_path)
    path.write_bytes(b"nothing")
    with pytest.raises(ScoresError, match="s.safetensors: not a readable .safetensors file"):
        read_scores(path)
    save_file({"0": torch.zeros(2, 3)}, path)
    with pytest.raises(ScoresError, match="expected scores of the format 'nlnet scores 1', got None"):
        read_scores(path)
    rows = {str(k): torch.zeros(6, 2) for k in (0, 2, 4)}
    for changes, message in (
        ({"drop": "classes"}, "not a readable .*KeyError: 'classes'"),
        ({"score": "logits"}, "s.safetensors: score: expected softmax or sigmoid, got 'logits'"),
        ({"videos": labelled(2)}, "video 0: label 2 is not one of the 2 classes"),
        ({"videos": labelled([0, -1])}, r"video 0: label \[0, -1\] is not one of the 2 classes"),
        ({"videos": labelled("a b")}, "video 0: label 'a b' is not one of the 2 classes"),
        ({"videos": "[{"}, "not a readable .*JSONDecodeError"),
        ({"test": '{"clips": 0}'}, "not a readable .*clips"),
        ({"tensors": {"0": torch.zeros(6, 2)}}, "not a readable .*KeyError: '2'"),
        ({"tensors": rows | {"2": torch.zeros(5, 2)}}, r"video 2: expected views \(6, 2\), got \(5, 2\)"),
        ({"tensors": rows | {"9": torch.zeros(6, 2)}}, "tensors 9 belong to no video"),
    ):
        with pytest.raises(ScoresError, match=f"(?s){message}"):
            read_scores(spoiled(path, **changes))


def test_an_interrupted_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "scores.safetensors"
    write_scores(path, saved_scores())
    before = path.read_bytes()

    def interrupted(tensors, temporary, metadata):
        Path(temporary).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("nlnet.engine.evaluation.score_files.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_scores(path, saved_scores(seed=1))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["scores.safetensors"]

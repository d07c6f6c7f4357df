"""The file that keeps the scores of a test.

It is a safetensors file. Tensor "17" holds video number 17: (V, K) float32, a row a view, clips outermost and
crops inside, a column a class. Its metadata say everything else, as text:

    format      "nlnet scores 1"
    score       "softmax" or "sigmoid": what a row is
    classes     JSON list: the name of each column
    videos      JSON list of {index, path, label, starts}: label is a class number, a list of them, or null;
                starts are the first frames of the clips
    unread      JSON list of {index, path, label, reason}: the videos that gave no scores
    missing     JSON list of {path, label}: the videos that the list named and the disk lacked; absent in older files
    test        JSON object: the test section of the configuration (protocol, clips, crops, sizes, aggregate)
    sampling    JSON object {frames, stride} of a clip
    run, checkpoint, iteration      where the network came from
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nlnet.data import Label
from nlnet.engine.config import EvalConfig
from nlnet.engine.evaluation.video_scores import Evaluation, Missing, Unread, VideoScores
from nlnet.engine.runs.atomic_write import atomically
from nlnet.errors import ScoresError

FORMAT = "nlnet scores 1"
Score = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class SavedScores:
    """An evaluation with what is needed to know how it came about."""

    evaluation: Evaluation
    score: Score
    test: EvalConfig
    frames: int
    stride: int
    run: str
    checkpoint: str
    iteration: int


def write_scores(path: Path, saved: SavedScores) -> None:
    """Write the file described above, whole or not at all."""
    videos, unread = saved.evaluation.videos, saved.evaluation.failures
    metadata = {
        "format": FORMAT,
        "score": saved.score,
        "classes": json.dumps(saved.evaluation.classes),
        "videos": json.dumps(
            [{"index": v.index, "path": str(v.path), "label": v.label, "starts": v.starts} for v in videos]
        ),
        "unread": json.dumps([asdict(f) | {"path": str(f.path)} for f in unread]),
        "missing": json.dumps([{"path": str(m.path), "label": m.label} for m in saved.evaluation.missing]),
        "test": saved.test.model_dump_json(),
        "sampling": json.dumps({"frames": saved.frames, "stride": saved.stride}),
        "run": saved.run,
        "checkpoint": saved.checkpoint,
        "iteration": str(saved.iteration),
    }
    tensors = {str(v.index): v.views.float().contiguous() for v in videos}
    atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def read_scores(path: Path) -> SavedScores:
    """The scores in a file, in the `test` folder of a run, or in a folder that `nlnet test --out` filled.

    Raises ScoresError naming the file and what is wrong with it.
    """
    if path.is_dir():
        places = [path / "scores.safetensors", path / "test" / "scores.safetensors"]
        path = next((place for place in places if place.exists()), places[1])
    if not path.exists():
        raise ScoresError(f"{path}: no scores here; `nlnet test RUN` writes them")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ScoresError(
                    f"{path}: expected scores of the format {FORMAT!r}, got {metadata.get('format')!r}; "
                    "write them anew with `nlnet test`"
                )
            return _from_file(metadata, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except ScoresError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ScoresError(
            f"{path}: not a readable file of scores ({type(error).__name__}: {error})"
        ) from None


def _from_file(metadata: dict[str, str], tensors: dict[str, Tensor]) -> SavedScores:
    test, classes = EvalConfig.model_validate_json(metadata["test"]), tuple(json.loads(metadata["classes"]))
    sampling = json.loads(metadata["sampling"])
    shape = (test.clips * test.crops, len(classes))
    videos = []
    for row in json.loads(metadata["videos"]):
        views = tensors.pop(str(row["index"]))
        if views.shape != shape:
            raise ValueError(f"video {row['index']}: expected views {shape}, got {tuple(views.shape)}")
        if not all(type(k) is int and 0 <= k < len(classes) for k in _numbers(row["label"])):
            raise ValueError(
                f"video {row['index']}: label {row['label']!r} is not of the {len(classes)} classes"
            )
        place = Path(row["path"])
        videos.append(
            VideoScores(
                row["index"], place, _label(row["label"]), views, tuple(row["starts"]), test.aggregate
            )
        )
    if tensors:
        raise ValueError(f"tensors {', '.join(sorted(tensors))} belong to no video")
    unread = [
        Unread(row["index"], Path(row["path"]), _label(row["label"]), row["reason"])
        for row in json.loads(metadata["unread"])
    ]
    missing = [
        Missing(Path(row["path"]), _label(row["label"])) for row in json.loads(metadata.get("missing", "[]"))
    ]
    score = metadata["score"]
    if score not in get_args(Score):
        raise ValueError(f"score: expected {' or '.join(get_args(Score))}, got {score!r}")
    return SavedScores(
        evaluation=Evaluation(tuple(videos), tuple(unread), classes, tuple(missing)),
        score=score,  # type: ignore[arg-type]
        test=test,
        frames=sampling["frames"],
        stride=sampling["stride"],
        run=metadata["run"],
        checkpoint=metadata["checkpoint"],
        iteration=int(metadata["iteration"]),
    )


def _numbers(label: int | list[int] | None) -> list[int]:
    """The class numbers in a label."""
    return [] if label is None else label if isinstance(label, list) else [label]


def _label(value: int | list[int] | None) -> Label:
    return tuple(value) if isinstance(value, list) else value

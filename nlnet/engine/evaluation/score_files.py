"""The file that stores the scores of a test.

It is a safetensors file. Tensor "17" holds the scores of video number 17: (V, K) float32, one row a view (all crops of
the first clip, then those of the next), one column a class. Its metadata hold everything else, as text:

    format      "nlnet scores 1"
    score       "softmax" or "sigmoid": the kind of score
    classes     JSON list: the name of each column
    videos      JSON list of {index, path, label, starts}: label is a class number, a list of them, or null;
                starts are the first frames of the clips
    unread      JSON list of {index, path, label, reason}: the videos that could not be read
    missing     JSON list of {path, label}: the videos that the list names and the disk lacks; absent in older files
    test        JSON object: the test section of the configuration (protocol, clips, crops, sizes, aggregate)
    sampling    JSON object {frames, stride} of a clip
    run, checkpoint, iteration      the network that was tested
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
from nlnet.engine.runs.atomic_write import one_line, write_atomically
from nlnet.errors import ScoresError

FORMAT = "nlnet scores 1"
Score = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class SavedScores:
    """The scores of a test, with its settings and the network that was tested."""

    evaluation: Evaluation
    score: Score
    test: EvalConfig
    frames: int
    stride: int
    run: str
    checkpoint: str
    iteration: int


def write_scores(path: Path, saved: SavedScores) -> None:
    """Write a file of scores (format above) atomically."""
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
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def read_scores(path: Path) -> SavedScores:
    """Read the scores of a file, of a run directory, or of a folder that `nlnet test --out` wrote.

    Raises:
        ScoresError: there is no such file, or it is not a file of scores.
    """
    if path.is_dir():
        places = [path / "scores.safetensors", path / "test" / "scores.safetensors"]
        path = next((place for place in places if place.exists()), places[1])
    if not path.exists():
        raise ScoresError(f"{path}: no such file of scores; `nlnet test RUN` writes one")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ScoresError(f"{path}: not a readable .safetensors file ({one_line(error)})") from None
    if metadata.get("format") != FORMAT:
        raise ScoresError(
            f"{path}: expected scores of the format {FORMAT!r}, got {metadata.get('format')!r}; write the file "
            "again with `nlnet test`"
        )
    try:
        return _from_file(metadata, tensors)
    except ScoresError as error:
        raise ScoresError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ScoresError(
            f"{path}: not a readable file of scores ({type(error).__name__}: {one_line(error)})"
        ) from None


def _from_file(metadata: dict[str, str], tensors: dict[str, Tensor]) -> SavedScores:
    """Build the scores from the content of a file.

    Raises:
        ScoresError: entries that do not fit each other.
        ValueError, KeyError, TypeError: an entry that is missing or malformed.
    """
    test, classes = EvalConfig.model_validate_json(metadata["test"]), tuple(json.loads(metadata["classes"]))
    sampling = json.loads(metadata["sampling"])
    shape = (test.clips * test.crops, len(classes))
    videos = []
    for row in json.loads(metadata["videos"]):
        views = tensors.pop(str(row["index"]))  # popped: what is left in the end belongs to no video
        if views.shape != shape:
            raise ScoresError(f"video {row['index']}: expected views {shape}, got {tuple(views.shape)}")
        # not isinstance: true and false of JSON are integers in Python
        if not all(type(k) is int and 0 <= k < len(classes) for k in _numbers(row["label"])):
            raise ScoresError(
                f"video {row['index']}: label {row['label']!r} is not one of the {len(classes)} classes"
            )
        path = Path(row["path"])
        videos.append(
            VideoScores(row["index"], path, _label(row["label"]), views, tuple(row["starts"]), test.aggregate)
        )
    if tensors:
        raise ScoresError(f"tensors {', '.join(sorted(tensors))} belong to no video")
    unread = [
        Unread(row["index"], Path(row["path"]), _label(row["label"]), row["reason"])
        for row in json.loads(metadata["unread"])
    ]
    missing = [
        Missing(Path(row["path"]), _label(row["label"])) for row in json.loads(metadata.get("missing", "[]"))
    ]
    score = metadata["score"]
    if score not in get_args(Score):
        raise ScoresError(f"score: expected {' or '.join(get_args(Score))}, got {score!r}")
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
    """The class numbers of a label, as a list."""
    return [] if label is None else label if isinstance(label, list) else [label]


def _label(value: int | list[int] | None) -> Label:
    """A label read from JSON: a list becomes a tuple."""
    return tuple(value) if isinstance(value, list) else value

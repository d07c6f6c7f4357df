"""`nlnet attend`: where a run's non-local blocks look in a video, as pictures and as numbers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nlnet.apps.attend.figures import Gaze, strip
from nlnet.apps.attend.film import film, pace, write_gif, write_mp4
from nlnet.apps.console import OUT, print_json, table
from nlnet.attention.observe import Observation, observe
from nlnet.data import normalize
from nlnet.engine.config import Config
from nlnet.engine.distributed import world
from nlnet.engine.evaluation.video_views import cut_video, middle_view, score_view
from nlnet.engine.network import load_network
from nlnet.engine.runs.atomic_write import write_json
from nlnet.engine.runs.checkpoint import Checkpoint
from nlnet.insertion.insert import nonlocal_blocks
from nlnet.models.resnet import VideoResNet

TOP = 20
"""Arrows of a picture, as in the paper's Figure 3, and strongest keys that the numbers list."""


@dataclass(frozen=True, eq=False)
class View:
    """One view of a video, as `nlnet test` cuts it."""

    video: Path
    clip: Tensor
    """uint8 (3, T, H, W)"""
    number: int
    of: int
    start: int
    """The video's frame at which the clip starts."""
    seconds: tuple[float, ...] | None = None
    """When each frame is shown in the video, where that is known."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What a network makes of one view: its answer, and where its blocks look."""

    view: View
    observation: Observation
    scores: dict[str, float]
    """Probability of each class for this view, the largest first."""
    label: str | None
    """The name of the video's folder, where that is a class."""

    @property
    def title(self) -> str:
        name, probability = next(iter(self.scores.items()))
        known = "" if self.label is None else f", label {self.label}"
        return f"{self.view.video.name}: answer {name} ({100 * probability:.1f} %){known}"

    @property
    def frames(self) -> np.ndarray:
        """The clip for people, (T, H, W, 3) uint8."""
        frames: np.ndarray = self.view.clip.permute(1, 2, 3, 0).numpy()
        return frames

    def gazes(self, positions: Sequence[Sequence[int]], paths: Sequence[str]) -> list[Gaze]:
        """Position by position, every block."""
        rows, seen = self.observation.rows(positions), self.observation
        centres = {path: tuple(c.numpy() for c in seen.centres(path)) for path in paths}
        return [
            Gaze(path, tuple(position), rows[path][i].cpu().numpy(), centres[path], seen.signed(path))  # type: ignore[arg-type]
            for i, position in enumerate(positions)
            for path in paths
        ]


def view_of(video: Path, config: Config, number: int | None = None) -> View:
    """View `number` of a video under the run's test settings; the centre crop of the middle clip if None."""
    test, footage = config.test, cut_video(video, config)
    total = len(footage)
    number = middle_view(test.clips, test.crops) if number is None else number
    if not 0 <= number < total:
        raise ValueError(
            f"--view: got {number}, expected 0 to {total - 1}: {test.clips} clips × {test.crops} crops"
        )
    start = footage.numbers[number // test.crops][0]
    return View(video, footage.view(number), number, total, start, footage.seconds(number))


def sight(model: VideoResNet, checkpoint: Checkpoint, view: View) -> Sight:
    """Score one view and look at it (in float32)."""
    config = checkpoint.config
    best = score_view(model, config, view.clip).sort(descending=True)
    ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    folder = view.video.absolute().parent.name
    return Sight(
        view,
        observe(model, normalize(view.clip[None], config.data.mean, config.data.std)),
        {checkpoint.classes[i]: p for i, p in ranked},
        folder if folder in checkpoint.classes else None,
    )


def run_attend(
    run: Path,
    video: Path,
    *,
    at: Sequence[str],
    blocks: Sequence[str],
    queries: int,
    view: int | None,
    top: int,
    out: Path | None,
    checkpoint: str,
    device: str,
    as_json: bool,
) -> None:
    """`nlnet attend`."""
    asked = [position_of(text) for text in at]
    with world(device) as here:
        model, loaded = load_network(run, checkpoint, here.device)
        if not nonlocal_blocks(model):
            raise ValueError(
                f"{run}: {loaded.config.model.name} has no non-local block, so there is nothing to look at; "
                "give a run of a network with one, such as i3d_r50_nl5"
            )
        seen = sight(model, loaded, view_of(video, loaded.config, view))
    paths = chosen(seen.observation.paths, blocks)
    positions = asked or seen.observation.strongest(queries, paths[-1])
    gazes = seen.gazes(positions, paths)
    out = out or folder_of(video, (run if run.is_dir() else run.parent) / "attention")
    numbers = as_numbers(
        seen, gazes, run=run, chosen_by="--at" if asked else f"the strongest response of {paths[-1]}"
    )
    pictures = write_pictures(seen, gazes, out, top=top)
    numbers["files"] = [str(path) for path in (*pictures, out / "attention.json")]
    write_json(out / "attention.json", numbers)
    if as_json:
        print_json(numbers)
    else:
        show(seen, gazes, numbers["files"], out)


def folder_of(video: Path, root: Path) -> Path:
    """Where the files about a video go: `root`/STEM, or PARENT_STEM and then STEM-2, … where another video has that."""
    names = chain(
        [video.stem, f"{video.absolute().parent.name}_{video.stem}"], (f"{video.stem}-{n}" for n in count(2))
    )
    return next(root / name for name in names if holds(root / name, video))


def holds(folder: Path, video: Path) -> bool:
    """Whether a folder is free for this video: not there yet, or about this video already."""
    numbers = folder / "attention.json"
    if not numbers.exists():
        return not folder.exists()
    try:
        told = json.loads(numbers.read_text())["video"]
    except (ValueError, KeyError, TypeError):
        return False
    return Path(told).resolve() == video.resolve()


def position_of(text: str) -> tuple[int, ...]:
    """ "t,y,x" as integers."""
    try:
        position = tuple(int(part) for part in text.split(","))
    except ValueError:
        position = ()
    if len(position) != 3:
        raise ValueError(
            f"--at: got {text!r}, expected t,y,x: frame, row and column in the clip, such as 3,100,80"
        )
    return position


def chosen(paths: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The blocks meant by `wanted`, paths of blocks or of modules that hold one; all if empty. In the network's order."""
    for name in wanted:
        if not any(path == name or path.startswith(f"{name}.") for path in paths):
            raise ValueError(f"--block: got {name!r}, expected one of {', '.join(paths)}")
    return [p for p in paths if not wanted or any(p == name or p.startswith(f"{name}.") for name in wanted)]


def write_pictures(seen: Sight, gazes: Sequence[Gaze], out: Path, *, top: int) -> list[Path]:
    """attention.png, .gif and .mp4 under `out`."""
    strip(seen.frames, gazes, out / "attention.png", title=seen.title, top=top)
    pictures, rate = film(seen.frames, gazes), pace(seen.view.seconds)
    write_gif(pictures, out / "attention.gif", rate)
    write_mp4(pictures, out / "attention.mp4", rate)
    return [out / f"attention.{kind}" for kind in ("png", "gif", "mp4")]


def as_numbers(seen: Sight, gazes: Sequence[Gaze], *, run: Path, chosen_by: str) -> dict[str, Any]:
    """Everything behind the pictures; positions and centres are (t, y, x) in the clip."""
    return {
        "run": str(run),
        "video": str(seen.view.video),
        "view": {"number": seen.view.number, "of": seen.view.of, "start_frame": seen.view.start},
        "clip": {"size": list(seen.observation.grid), "coordinates": "t, y, x: clip frame, row, column"},
        "classes": dict(list(seen.scores.items())[:5]),
        "label": seen.label,
        "film": {"frames_per_second": float(pace(seen.view.seconds))},
        "positions_chosen_by": chosen_by,
        "gazes": [
            {
                "block": gaze.block,
                "position": list(gaze.position),
                "query_cell": list(seen.observation.query_cell(gaze.block, gaze.position)),
                "query_centre": list(seen.observation.query_centre(gaze.block, gaze.position)),
                "signed": gaze.signed,
                "places_exact": seen.observation.exact(gaze.block),
                "centres": dict(zip("tyx", (c.tolist() for c in gaze.centres), strict=True)),
                "weights": gaze.weights.tolist(),
                "strongest": [{"weight": w, "centre": list(c)} for w, c in gaze.strongest(TOP)],
            }
            for gaze in gazes
        ],
    }


def show(seen: Sight, gazes: Sequence[Gaze], files: Sequence[str], out: Path) -> None:
    rows = []
    for gaze in gazes:
        weight, centre = gaze.strongest(1)[0]
        where = ", ".join(f"{c:g}" for c in centre)
        rows.append(
            [gaze.name, ", ".join(map(str, gaze.position)), f"{weight:.3g}", where, gaze.weights.size]
        )
    view = f"view {seen.view.number} of {seen.view.of}, from frame {seen.view.start} of the video"
    columns = ["block", "from t, y, x", "strongest weight", "at t, y, x", "keys"]
    OUT.print(table(f"{seen.title}; {view}", columns, rows))
    guessed = [g for g in dict.fromkeys(gaze.block for gaze in gazes) if not seen.observation.exact(g)]
    if guessed:
        OUT.print(
            f"[yellow]places estimated from sizes:[/yellow] {', '.join(guessed)}. The network moves cells before these "
            "blocks in a way that is not followed."
        )
    OUT.print(
        table(
            f"written to {out}",
            ["file", "KiB"],
            [[Path(f).name, f"{Path(f).stat().st_size / 1024:.0f}"] for f in files],
        )
    )

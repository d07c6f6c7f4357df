"""`nlnet attend`: write the attention of a run's non-local blocks on a video as a figure, animations and JSON."""

import json
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from nlnet.apps.attend.animation import animation_frames, frame_rate, write_gif, write_mp4
from nlnet.apps.attend.attention_map import AttentionMap
from nlnet.apps.attend.figures import attention_figure
from nlnet.apps.attend.video_attention import VideoAttention, attention_of_video, view_of
from nlnet.apps.console import OUT, print_json, table
from nlnet.apps.plots import save
from nlnet.engine.distributed import world
from nlnet.engine.network import load_network
from nlnet.engine.runs.atomic_write import write_json
from nlnet.errors import NlnetError, did_you_mean
from nlnet.insertion.insert import nonlocal_blocks

TOP = 20
"""Arrows in a figure, as in Figure 3 of the paper, and strongest keys listed in attention.json."""


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
    """Run `nlnet attend`: write attention.png, .gif, .mp4 and .json, and print a summary or the JSON.

    Args:
        at: query positions "t,y,x" in the clip; if empty, the `queries` positions that the last chosen block changes
            most.
        blocks: paths of blocks, or of modules that contain blocks; if empty, all blocks.
    """
    asked = [parse_position(text) for text in at]
    with world(device) as here:
        model, loaded = load_network(run, checkpoint, here.device)
        if not nonlocal_blocks(model):
            raise NlnetError(
                f"{run}: {loaded.config.model.name} has no non-local block, so there is no attention to show; "
                "give a run of a network with one, such as i3d_r50_nl5"
            )
        found = attention_of_video(model, loaded, view_of(video, loaded.config, view))
    check_positions(asked, found.observation.grid)
    paths = select_blocks(found.observation.paths, blocks)
    positions = asked or found.observation.strongest(queries, paths[-1])
    maps = found.maps(positions, paths)
    out = out or output_folder(video, (run if run.is_dir() else run.parent) / "attention")
    numbers = as_numbers(
        found, maps, run=run, chosen_by="--at" if asked else f"the strongest response of {paths[-1]}"
    )
    pictures = write_pictures(found, maps, out, top=top)
    numbers["files"] = [str(path) for path in (*pictures, out / "attention.json")]
    # last, so that a folder with attention.json has all the files that it names
    write_json(out / "attention.json", numbers)
    if as_json:
        print_json(numbers)
    else:
        print_summary(found, maps, numbers["files"], out)


def parse_position(text: str) -> tuple[int, ...]:
    """Parse "t,y,x" into three integers."""
    try:
        position = tuple(int(part) for part in text.split(","))
    except ValueError:
        position = ()
    if len(position) != 3:
        raise NlnetError(
            f"--at: got {text!r}, expected t,y,x: frame, row and column in the clip, such as 3,100,80"
        )
    return position


def check_positions(positions: Sequence[Sequence[int]], size: Sequence[int]) -> None:
    """Check that all positions lie inside a clip of `size` (T, H, W); NlnetError for the first one outside."""
    for position in positions:
        if not all(0 <= p < n for p, n in zip(position, size, strict=True)):
            frame, row, column = (n - 1 for n in size)
            raise NlnetError(
                f"--at: got {','.join(map(str, position))}, which is outside the clip; expected a frame from 0 to "
                f"{frame}, a row from 0 to {row} and a column from 0 to {column}"
            )


def select_blocks(paths: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Select blocks by their paths or by modules that contain them, in the network's order; all if `wanted` is empty."""

    def matches(path: str, name: str) -> bool:
        return path == name or path.startswith(f"{name}.")

    for name in wanted:
        if not any(matches(path, name) for path in paths):
            raise NlnetError(
                f"block: got {name!r}, expected one of {', '.join(paths)}{did_you_mean(name, paths)}"
            )
    return [path for path in paths if not wanted or any(matches(path, name) for name in wanted)]


def output_folder(video: Path, root: Path) -> Path:
    """The output folder of a video: `root`/STEM, or PARENT_STEM, STEM-2, … if another video has used that folder."""
    names = chain(
        [video.stem, f"{video.absolute().parent.name}_{video.stem}"], (f"{video.stem}-{n}" for n in count(2))
    )
    return next(root / name for name in names if is_free_for(root / name, video))


def is_free_for(folder: Path, video: Path) -> bool:
    """Whether a folder does not exist yet, or holds an earlier result for the same video."""
    numbers = folder / "attention.json"
    if not numbers.exists():
        return not folder.exists()
    try:
        written_for = json.loads(numbers.read_text())["video"]
    except (ValueError, KeyError, TypeError):  # not a file of ours, or damaged: never overwrite it
        return False
    return Path(written_for).resolve() == video.resolve()


def write_pictures(found: VideoAttention, maps: Sequence[AttentionMap], out: Path, *, top: int) -> list[Path]:
    """Write attention.png, attention.gif and attention.mp4 into `out`, and return their paths."""
    figure = attention_figure(found.frames, maps, title=found.title, top=top)
    save(figure, out / "attention.png")
    pictures, rate = animation_frames(found.frames, maps), frame_rate(found.view.seconds)
    write_gif(pictures, out / "attention.gif", rate)
    write_mp4(pictures, out / "attention.mp4", rate)
    return [out / f"attention.{kind}" for kind in ("png", "gif", "mp4")]


def as_numbers(
    found: VideoAttention, maps: Sequence[AttentionMap], *, run: Path, chosen_by: str
) -> dict[str, Any]:
    """The content of attention.json: all weights and their geometry; positions and centres are (t, y, x) in the clip."""
    seen, view = found.observation, found.view
    return {
        "run": str(run),
        "video": str(view.video),
        "view": {"number": view.number, "of": view.of, "start_frame": view.start},
        "clip": {"size": list(seen.grid), "coordinates": "t, y, x: clip frame, row, column"},
        "classes": dict(list(found.scores.items())[:5]),
        "label": found.label,
        "film": {"frames_per_second": float(frame_rate(view.seconds))},  # the GIF and the MP4
        "positions_chosen_by": chosen_by,
        "gazes": [  # the attention maps; the keys stay as they are for readers of existing files
            {
                "block": attention.block,
                "position": list(attention.position),
                "query_cell": list(seen.query_cell(attention.block, attention.position)),
                "query_centre": list(seen.query_centre(attention.block, attention.position)),
                "signed": attention.signed,
                "places_exact": seen.exact(attention.block),
                "centres": dict(zip("tyx", (c.tolist() for c in attention.centres), strict=True)),
                "weights": attention.weights.tolist(),
                "strongest": [{"weight": w, "centre": list(c)} for w, c in attention.strongest(TOP)],
            }
            for attention in maps
        ],
    }


def print_summary(
    found: VideoAttention, maps: Sequence[AttentionMap], files: Sequence[str], out: Path
) -> None:
    """Print the strongest key of each attention map, the blocks with estimated positions, and the files."""
    rows = []
    for attention in maps:
        weight, centre = attention.strongest(1)[0]
        query, key = ", ".join(map(str, attention.position)), ", ".join(f"{c:g}" for c in centre)
        rows.append([attention.name, query, f"{weight:.3g}", key, attention.weights.size])
    view = f"view {found.view.number} of {found.view.of}, from frame {found.view.start} of the video"
    columns = ["block", "query t, y, x", "largest weight", "key t, y, x", "keys"]
    OUT.print(table(f"{found.title}; {view}", columns, rows))
    blocks = dict.fromkeys(attention.block for attention in maps)
    estimated = [block for block in blocks if not found.observation.exact(block)]
    if estimated:
        OUT.print(
            f"[yellow]positions estimated from map sizes:[/yellow] {', '.join(estimated)}. A layer before these blocks "
            "moves the cells of its map in a way that cannot be traced back to the clip."
        )
    sizes = [[Path(file).name, f"{Path(file).stat().st_size / 1024:.0f}"] for file in files]
    OUT.print(table(f"written to {out}", ["file", "KiB"], sizes))

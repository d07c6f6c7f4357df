"""`nlnet data make` and `nlnet data check`."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from rich.text import Text

from nlnet.apps.console import OUT, bar, facts, print_json, show_missing
from nlnet.data import VideoList, check_videos
from nlnet.data.diagnostic.files import write_dataset
from nlnet.data.diagnostic.task import DiagnosticSpec
from nlnet.engine.config import from_mapping
from nlnet.engine.config.inputs import configured_videos


def write_videos(spec: DiagnosticSpec, out: Path, counts: Mapping[str, int]) -> None:
    """Write the diagnostic with a bar, on every core; the same data set is left alone, another one is refused."""
    progress = bar()
    with progress:
        line = progress.add_task("writing videos", total=None, note="")
        write_dataset(
            spec,
            out,
            counts,
            processes=os.cpu_count() or 1,
            progress=lambda done, total: progress.update(line, completed=done, total=total),
        )


def run_data_make(out: Path, *, task: str, counts: dict[str, int], stills: int, seed: int) -> None:
    """`nlnet data make`."""
    start = time.perf_counter()
    write_videos(DiagnosticSpec(task=task, seed=seed), out, counts | {"stills": stills})  # type: ignore[arg-type]
    OUT.print(
        f"{out}: {sum(counts.values())} videos and {stills} stills in {time.perf_counter() - start:.0f} s"
    )


def run_data_check(
    source: Path,
    *,
    root: Path | None,
    format: str,
    classes: Path | None,
    first_frame: bool,
    workers: int | None,
    as_json: bool,
) -> int:
    """`nlnet data check`. Exit code 1 where a video is not there or cannot be read."""
    values = {"root": root, "format": format, "classes": classes, "missing": "leave_out"}
    videos = configured_videos(from_mapping({"data": values}, source="data check").data, source)
    progress = bar()
    with progress:
        what = "opening videos" if first_frame else "decoding videos"
        line = progress.add_task(what, total=len(videos.items), note="")
        checks = check_videos(
            videos,
            every_frame=not first_frame,
            processes=workers or os.cpu_count() or 1,
            progress=lambda check: progress.advance(line),
        )
    bad = [c for c in checks if c.error is not None]
    good = [c for c in checks if c.error is None]
    lengths = sorted(c.num_frames or 0 for c in good)
    missing = [str(path) for path in videos.missing]
    summary = {
        "source": str(source),
        "layout": videos.layout,
        "videos": len(videos.items),
        "classes": len(videos.classes),
        "labels": label_counts(videos),
        "readable": len(good),
        "decoded": "first frames" if first_frame else "every frame",
        "frames": [lengths[0], lengths[len(lengths) // 2], lengths[-1]] if lengths else [],
        "missing": missing,
        "failures": [c.error for c in bad],
    }
    if as_json:
        print_json(summary)
    else:
        shown = {k: v for k, v in summary.items() if k not in ("source", "failures")} | {
            "missing": len(missing)
        }
        OUT.print(facts(f"{source}", shown))
        for check in bad:
            OUT.print(Text.assemble(("unreadable ", "red"), str(check.error)))
        show_missing(missing)
    return 1 if bad or missing else 0


def label_counts(videos: VideoList) -> str:
    """How many labels the videos have, in words."""
    if videos.multilabel:
        counts = [len(item.label) for item in videos.items if isinstance(item.label, tuple)]
        return f"{min(counts)} to {max(counts)} a video, {sum(counts) / len(counts):.1f} on average"
    return "none" if videos.items[0].label is None else "one a video"

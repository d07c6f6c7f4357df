"""`nlnet data make` and `nlnet data check`: write the diagnostic videos; find missing and damaged videos."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from nlnet.apps.console import OUT, bar, facts, print_json, show_missing
from nlnet.data import VideoList, check_videos
from nlnet.data.diagnostic.files import write_dataset
from nlnet.data.diagnostic.task import DiagnosticSpec
from nlnet.engine.config import from_mapping
from nlnet.engine.config.inputs import configured_videos


def write_videos(spec: DiagnosticSpec, out: Path, counts: Mapping[str, int]) -> None:
    """Write the diagnostic data set on all cores, under a progress bar.

    A folder that holds this data set already is left as it is; one with other content is an error.
    """
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
    """Run `nlnet data make`; `counts` has the number of videos of each split."""
    start = time.perf_counter()
    write_videos(DiagnosticSpec(task=task, seed=seed), out, counts | {"stills": stills})  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    OUT.print(
        f"{out}: {sum(counts.values())} videos and {stills} stills in {seconds:.0f} s",
        markup=False,
        highlight=False,
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
    """Run `nlnet data check` and return its exit code: 1 if a video is missing or damaged, otherwise 0.

    Args:
        first_frame: decode the first frame of each video only.
        workers: number of processes; as many as cores if None.
    """
    values = {"root": root, "format": format, "classes": classes, "missing": "leave_out"}
    videos = configured_videos(from_mapping({"data": values}, source="data check").data, source)
    progress = bar()
    with progress:
        title = "decoding first frames" if first_frame else "decoding videos"
        line = progress.add_task(title, total=len(videos.items), note="")
        checks = check_videos(
            videos,
            every_frame=not first_frame,
            processes=workers or os.cpu_count() or 1,
            progress=lambda check: progress.advance(line),
        )
    unreadable = [str(check.error) for check in checks if check.error is not None]
    lengths = sorted(check.num_frames or 0 for check in checks if check.error is None)
    missing = [str(path) for path in videos.missing]
    summary = {
        "source": str(source),
        "layout": videos.layout,
        "videos": len(videos.items),
        "classes": len(videos.classes),
        "labels": label_counts(videos),
        "readable": len(lengths),
        "decoded": "first frames" if first_frame else "every frame",
        # shortest, median and longest
        "frames": [lengths[0], lengths[len(lengths) // 2], lengths[-1]] if lengths else [],
        "missing": missing,
        "failures": unreadable,
    }
    if as_json:
        print_json(summary)
    else:
        show_check(summary)
    return 1 if unreadable or missing else 0


def show_check(summary: Mapping[str, Any]) -> None:
    """Print what a check found, and each video that is unreadable or missing."""
    lines = {key: value for key, value in summary.items() if key not in ("source", "frames", "failures")}
    if summary["frames"]:
        lines["frames"] = "{} to {}, median {}".format(*(summary["frames"][k] for k in (0, 2, 1)))
    lines |= {"missing": len(summary["missing"]), "unreadable": len(summary["failures"])}
    OUT.print(facts(summary["source"], lines))
    for reason in summary["failures"]:
        OUT.print(Text.assemble(("unreadable ", "red"), reason))
    show_missing(summary["missing"])


def label_counts(videos: VideoList) -> str:
    """Return the number of labels of a video, in words."""
    if videos.multilabel:
        counts = [len(item.label) for item in videos.items if isinstance(item.label, tuple)]
        return f"{min(counts)} to {max(counts)} a video, {sum(counts) / len(counts):.1f} on average"
    return "none" if videos.items[0].label is None else "one a video"

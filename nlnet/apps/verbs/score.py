"""`nlnet score`: metrics from saved scores: of fewer views, with another aggregation, or of several fused runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from nlnet.apps.console import OUT, counted, print_json, table
from nlnet.apps.verbs.test import percent
from nlnet.engine.evaluation.rescore import by_clips, fuse, select
from nlnet.engine.evaluation.score_files import SavedScores, read_scores
from nlnet.errors import ScoresError


def run_score(
    sources: Sequence[Path],
    *,
    weights: Sequence[float] | None,
    clips: int | None,
    centre_crop: bool,
    aggregate: Literal["mean", "max"] | None,
    as_json: bool,
) -> None:
    """Run `nlnet score`.

    Args:
        weights: of the sources in their fusion; equal if None.
        clips: use that many of the saved clips, evenly spread; all if None.
        aggregate: over the views; as the test did if None.

    Raises:
        ScoresError: weights for a single source, or scores without labels.
    """
    if weights and len(sources) == 1:
        raise ScoresError("--weight: fusion needs the scores of two or more runs, got those of one")
    tested = [read_scores(source) for source in sources]
    for source, saved in zip(sources, tested, strict=True):
        if not saved.evaluation.metrics():
            raise ScoresError(f"{source}: its videos have no labels, so no metric can be computed")
    # messages name a source by the argument, since one run may have several tests
    chosen = [
        select(replace(saved, run=str(source)), clips=clips, centre_crop=centre_crop, aggregate=aggregate)
        for source, saved in zip(sources, tested, strict=True)
    ]
    report: dict[str, Any] = {
        "sources": [
            {"run": saved.run, **describe(selected)} for saved, selected in zip(tested, chosen, strict=True)
        ]
    }
    if len(sources) > 1:
        fused = fuse(chosen, weights)
        video = {name: v for name, v in fused.metrics().items() if name.startswith("video_")}
        report["weights"] = list(weights or [1.0] * len(sources))
        report["fused"] = {"videos": len(fused.videos), "metrics": video}
    print_json(report) if as_json else show(report)


def describe(saved: SavedScores) -> dict[str, Any]:
    """Return how the scores of one source were made, and their metrics, as a JSON document."""
    described: dict[str, Any] = {
        "source": saved.run,
        "checkpoint": saved.checkpoint,
        "protocol": saved.test.protocol,
        "clips": saved.test.clips,
        "crops": saved.test.crops,
        "aggregate": saved.test.aggregate,
        "score": saved.score,
        "videos": len(saved.evaluation.videos),
        "unread": len(saved.evaluation.failures),
        "missing": len(saved.evaluation.missing),
        "metrics": saved.evaluation.metrics(),
        "by_clips": by_clips(saved),
        "classes": saved.evaluation.by_class(),
    }
    if not saved.evaluation.complete:
        described["metrics_unread_as_wrong"] = saved.evaluation.metrics(unread_as_wrong=True)
    return described


def show(report: dict[str, Any]) -> None:
    """Print the metrics of the sources and of their fusion side by side, then by the number of clips."""
    sources = report["sources"]
    for source in sources:
        left_out = "".join(f", {source[how]} {how}" for how in ("unread", "missing") if source[how])
        OUT.print(
            f"{source['source']}: {counted(source['videos'], 'video')}{left_out}, protocol {source['protocol']}, "
            f"{source['aggregate']} over {counted(source['clips'], 'clip')} × {counted(source['crops'], 'crop')}",
            markup=False,
            highlight=False,
        )
    columns = {Path(source["source"]).name or source["source"]: source["metrics"] for source in sources}
    if len(columns) < len(sources):  # two sources have the same last part
        columns = {source["source"]: source["metrics"] for source in sources}
    names = list(columns)
    if len(sources) == 1 and "metrics_unread_as_wrong" in sources[0]:
        columns["unread as wrong"] = sources[0]["metrics_unread_as_wrong"]
    if "fused" in report:
        columns["fused"] = report["fused"]["metrics"]
    rows = [[name, *(percent(c.get(name)) for c in columns.values())] for name in sources[0]["metrics"]]
    weights = ", ".join(f"{weight:g}" for weight in report.get("weights", []))
    OUT.print(table(f"fused with weights {weights}" if weights else "metrics", ["metric", *columns], rows))
    main = "video_top1" if "video_top1" in sources[0]["metrics"] else "video_map"
    most_clips = max(source["clips"] for source in sources)
    if most_clips > 1:
        rows = [
            [
                clips,
                *(percent(s["by_clips"][clips - 1][main]) if clips <= s["clips"] else None for s in sources),
            ]
            for clips in range(1, most_clips + 1)
        ]
        OUT.print(table(f"{main} by the number of clips, evenly spread", ["clips", *names], rows))

"""`nlnet score`: saved scores judged again, on fewer views or otherwise aggregated, and several runs' fused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from nlnet.apps.console import OUT, print_json, table
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
    """`nlnet score`."""
    if weights and len(sources) == 1:
        raise ScoresError("weights: fusing needs the scores of two runs or more, got one")
    tested = [read_scores(source) for source in sources]
    for source, saved in zip(sources, tested, strict=True):
        if not saved.evaluation.metrics():
            raise ScoresError(f"{source}: its videos have no labels, so there is nothing to score")
    # messages name a source as the user did: one run may have been tested in several ways
    chosen = [
        select(replace(saved, run=str(source)), clips=clips, centre_crop=centre_crop, aggregate=aggregate)
        for source, saved in zip(sources, tested, strict=True)
    ]
    report: dict[str, Any] = {
        "sources": [{"run": a.run, **facts_of(b)} for a, b in zip(tested, chosen, strict=True)]
    }
    if len(sources) > 1:
        fused = fuse(chosen, weights)
        video = {name: v for name, v in fused.metrics().items() if name.startswith("video_")}
        report["weights"] = list(weights or [1.0] * len(sources))
        report["fused"] = {"videos": len(fused.videos), "metrics": video}
    print_json(report) if as_json else show(report)


def facts_of(saved: SavedScores) -> dict[str, Any]:
    """What is known of one source, and its figures."""
    facts: dict[str, Any] = {
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
        facts["metrics_unread_as_wrong"] = saved.evaluation.metrics(unread_as_wrong=True)
    return facts


def many(count: int, thing: str) -> str:
    return f"{count} {thing}" + ("" if count == 1 else "s")


def show(report: dict[str, Any]) -> None:
    """The sources' figures side by side, with the fused ones; then how they grow with the number of clips."""
    sources = report["sources"]
    for source in sources:
        lost = "".join(f", {source[how]} {how}" for how in ("unread", "missing") if source[how])
        OUT.print(
            f"{source['source']}: {source['videos']} videos{lost}, protocol {source['protocol']}, "
            f"{source['aggregate']} over {many(source['clips'], 'clip')} × {many(source['crops'], 'crop')}",
            highlight=False,
        )
    columns = {Path(source["source"]).name or source["source"]: source["metrics"] for source in sources}
    if len(columns) < len(sources):
        columns = {source["source"]: source["metrics"] for source in sources}
    names = list(columns)
    if len(sources) == 1 and "metrics_unread_as_wrong" in sources[0]:
        columns["unread as wrong"] = sources[0]["metrics_unread_as_wrong"]
    if "fused" in report:
        columns["fused"] = report["fused"]["metrics"]
    rows = [[name, *(percent(c.get(name)) for c in columns.values())] for name in sources[0]["metrics"]]
    weights = ", ".join(f"{weight:g}" for weight in report.get("weights", []))
    OUT.print(table(f"fused with weights {weights}" if weights else "figures", ["metric", *columns], rows))
    main = "video_top1" if "video_top1" in sources[0]["metrics"] else "video_map"
    most = max(source["clips"] for source in sources)
    if most > 1:
        growth = [
            [
                clips,
                *(percent(s["by_clips"][clips - 1][main]) if clips <= s["clips"] else None for s in sources),
            ]
            for clips in range(1, most + 1)
        ]
        OUT.print(table(f"{main} by the number of clips, spread evenly", ["clips", *names], growth))

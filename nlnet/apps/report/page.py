"""report.md: the report of a run as a Markdown page."""

from collections.abc import Mapping, Sequence
from typing import Any


def page(report: Mapping[str, Any]) -> str:
    """Return the page, from the content of report.json (`command.write_report`)."""
    lines = [f"# {report['run']}", "", *_facts(report), ""]
    if report["missing"]:
        lines += ["Not in this report:", "", *(f"- {line}" for line in report["missing"]), ""]
    lines += [
        "## Training",
        "",
        *_picture(report, "training", "loss, accuracy and learning rate over iterations"),
    ]
    if report["blocks"]:
        lines += ["## Non-local blocks", ""]
        lines += [f"- `{block}` {found['words']}" for block, found in report["blocks"].items()]
        lines += [
            "",
            "A fresh block is the identity: its γ is 0, or its W_z if its norm has no γ. *inactive*: the block adds less "
            "than 0.1 % of its input, or mean |γ| is below 0.001. *saturated*: the entropy of its softmax attention is below "
            "0.02 log M. *uniform*: the entropy is above 0.995 log M. *learned*: none of these; whether that helps, the test "
            "shows.",
            "",
            *_picture(report, "blocks", "block statistics over iterations"),
        ]
    if "test" in report:
        lines += _test(report, report["test"])
    return "\n".join(lines)


def _facts(report: Mapping[str, Any]) -> list[str]:
    """The first lines: network, iterations, last loss and last validation."""
    lines = [
        f"`{report['model']}`, {report['classes']} classes, {report['iterations']} of {report['of']} iterations done."
    ]
    if report["loss"] is not None:
        lines.append(f"Last training loss {report['loss']:.3f}.")
    if report["validation"]:
        metrics = {k: v for k, v in report["validation"].items() if k.startswith(("clip_", "video_"))}
        shown = ", ".join(f"{name} {value:.2f} %" for name, value in metrics.items())
        lines.append(f"Last validation, at iteration {report['validation']['iteration']}: {shown}.")
    if report["skipped"]:
        lines.append(f"{report['skipped']} videos were skipped in training; metrics.jsonl has the reasons.")
    return lines


def _test(report: Mapping[str, Any], test: Mapping[str, Any]) -> list[str]:
    unread = f", {test['unread']} could not be read" if test["unread"] else ""
    lines = [
        "## Test",
        "",
        f"{test['videos']} videos{unread}; {test['views']} views each ({test['protocol']}), checkpoint "
        f"`{test['checkpoint']}` of iteration {test['iteration']}. Column clip: each view on its own; column video: the "
        "scores of all views of a video combined.",
        "",
        *_clip_and_video(test["metrics"]),
    ]
    if test.get("confused"):
        lines += ["Most confused classes:", ""]
        lines += _table(
            ["class", "taken for", "videos", "% of the class"],
            [[p["class"], p["taken for"], p["videos"], p["share"]] for p in test["confused"]],
        )
    lines += _picture(report, "confusion", "confusion matrix")
    lines += _picture(report, "classes", "classes, sorted")
    if absent := test.get("classes_without_videos"):
        lines += [f"{absent} of the classes have no test video.", ""]
    if test.get("hardest"):
        lines += ["Hardest videos, whose own class got the lowest probability:", ""]
        lines += _picture(report, "hardest", "middle frames of the hardest videos")
        lines += _table(
            ["video", "is", "%", "seen as", "%"],
            [
                [
                    f"`{v['path']}`",
                    v["truth"],
                    f"{100 * v['probability']:.1f}",
                    v["prediction"],
                    f"{100 * v['predicted']:.1f}",
                ]
                for v in test["hardest"]
            ],
        )
    return lines


def _clip_and_video(metrics: Mapping[str, float]) -> list[str]:
    """A table with a row for each metric: on single clips, and on whole videos."""
    # clip_top1 and video_top1 share a row; a dict keeps the order
    names = dict.fromkeys(name.partition("_")[2] for name in metrics)
    rows = [
        [
            name,
            *(
                "–" if (v := metrics.get(f"{unit}_{name}")) is None else f"{v:.2f}"
                for unit in ("clip", "video")
            ),
        ]
        for name in names
    ]
    return _table(["%", "clip", "video"], rows) if rows else []


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table, followed by an empty line."""
    cells = [columns, ["---"] * len(columns), *rows]
    return [*("| " + " | ".join(_plain(str(cell)) for cell in row) + " |" for row in cells), ""]


def _plain(text: str) -> str:
    """Escape vertical bars in a text, since a bar would end the table cell."""
    return text.replace("|", "\\|")


def _picture(report: Mapping[str, Any], name: str, words: str) -> list[str]:
    """A picture, if the report has it."""
    return [f"![{words}]({name}.png)", ""] if f"{name}.png" in report["pictures"] else []

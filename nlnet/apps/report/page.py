"""The page of a run's report, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def page(report: Mapping[str, Any]) -> str:
    lines = [f"# {report['run']}", "", *_facts(report), ""]
    if report["missing"]:
        lines += ["Not in this report:", "", *(f"- {line}" for line in report["missing"]), ""]
    lines += [
        "## Training",
        "",
        *_picture(report, "training", "loss, accuracy and learning rate over iterations"),
    ]
    if report["blocks"]:
        lines += ["## Did the blocks learn?", ""]
        lines += [f"- `{block}` {found['words']}" for block, found in report["blocks"].items()]
        lines += [
            "",
            "A fresh block is the identity: its γ (W_z where no norm has one) is 0. *asleep*: it adds less than 0.1 % of "
            "its input, or mean |γ| is below 0.001. *saturated*: softmax attention of entropy below 0.02 log M. "
            "*uniform*: entropy above 0.995 log M. *learned*: none of these; what it learned, the test tells.",
            "",
            *_picture(report, "vitals", "the blocks over iterations"),
        ]
    if "test" in report:
        lines += _test(report, report["test"])
    return "\n".join(lines)


def _facts(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"`{report['model']}`, {report['classes']} classes, {report['iterations']} of {report['of']} iterations done."
    ]
    if report["loss"] is not None:
        lines.append(f"Last training loss {report['loss']:.3f}.")
    if report["validation"]:
        found = {k: v for k, v in report["validation"].items() if k.startswith(("clip_", "video_"))}
        shown = ", ".join(f"{name} {value:.2f} %" for name, value in found.items())
        lines.append(f"Last validation, at iteration {report['validation']['iteration']}: {shown}.")
    if report["skipped"]:
        lines.append(f"{report['skipped']} videos were skipped in training; metrics.jsonl says why.")
    return lines


def _test(report: Mapping[str, Any], test: Mapping[str, Any]) -> list[str]:
    unread = f", {test['unread']} could not be read" if test["unread"] else ""
    lines = [
        "## Test",
        "",
        f"{test['videos']} videos{unread}; {test['views']} views each ({test['protocol']}), checkpoint "
        f"`{test['checkpoint']}` of iteration {test['iteration']}. A clip is one view; a video is all of them.",
        "",
        *_clip_and_video(test["metrics"]),
    ]
    if test.get("confused"):
        lines += ["Most confused:", ""]
        lines += _table(
            ["class", "taken for", "videos", "% of the class"],
            [[p["class"], p["taken for"], p["videos"], p["share"]] for p in test["confused"]],
        )
    lines += _picture(report, "confusion", "confusion matrix")
    lines += _picture(report, "classes", "classes, sorted")
    if absent := test.get("classes_without_videos"):
        lines += [f"No video shows {absent} of the classes.", ""]
    if test.get("hardest"):
        lines += ["The hardest videos: their own class got least.", ""]
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
    """One row a figure, single clips beside whole videos."""
    names = dict.fromkeys(name.partition("_")[2] for name in metrics)
    rows = [
        [
            name,
            *(
                "–" if (v := metrics.get(f"{who}_{name}")) is None else f"{v:.2f}"
                for who in ("clip", "video")
            ),
        ]
        for name in names
    ]
    return _table(["%", "clip", "video"], rows) if rows else []


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table and an empty line."""
    cells = [columns, ["---"] * len(columns), *rows]
    return [*("| " + " | ".join(_plain(str(cell)) for cell in row) + " |" for row in cells), ""]


def _plain(text: str) -> str:
    """Text whose bars do not end a table's cell."""
    return text.replace("|", "\\|")


def _picture(report: Mapping[str, Any], name: str, words: str) -> list[str]:
    return [f"![{words}]({name}.png)", ""] if f"{name}.png" in report["pictures"] else []

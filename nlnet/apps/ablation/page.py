"""ablations.md: the tables, the verdicts on the claims and the method, as a Markdown page made from ablations.json."""

from collections.abc import Mapping
from typing import Any

from nlnet.apps.ablation.claims import RULES
from nlnet.apps.ablation.study import Study
from nlnet.data.diagnostic.bounds import additive_bound, single_item_bound


def page(result: Mapping[str, Any], study: Study) -> str:
    """Return the page as Markdown.

    Args:
        result: what `report.report` returns.
    """
    blind, bound = 100 * single_item_bound(), 100 * additive_bound()
    lines = [
        "# The paper's ablation study in miniature",
        "",
        f"Made by `{result['command']}`; the same numbers as JSON: [ablations.json](ablations.json).",
        "",
        "Each network classifies diagnostic videos (`nlnet/data/diagnostic/task.py`): the class is the digit on the tile that",
        "has the colour of the cue, so a network has to relate two items. Chance is 10 %, the best that reading the digits",
        f"without the cue can reach is {blind:g} %, and the upper bound for any sum of local evidence is {bound:g} %. The",
        "paper's column is its top-1 on the Kinetics-400 validation videos; ours is `video_top1` on held-out handwritings.",
        "Compare the direction of differences, not their size.",
        "",
        "## Verdicts on the claims",
        "",
        "| table | claim | verdict | source of the claim |",
        "|---|---|---|---|",
        *(
            f"| {c['table']} | {c['statement']} | **{c['verdict']}** | {c['source']} |"
            for c in result["claims"]
        ),
        "",
    ]
    if result["failed"]:
        lines += ["These runs failed, so their rows are missing:", ""]
        lines += [f"- {name}: {reason}" for name, reason in result["failed"].items()] + [""]
    for name, table in result["tables"].items():
        lines += _section(name, table, [c for c in result["claims"] if c["table"] == name])
    return "\n".join([*lines, *_method(result, study)])


def _section(name: str, table: Mapping[str, Any], claims: list[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"## {name}. {table['title']}",
        "",
        *([table["note"], ""] if table["note"] else []),
        "| network | paper, top-1 % | ours by seed, % | mean [95 %], % | parameters, M | MACs, M | activations, MB | ms/clip |",
        "|---|---|---|---|---|---|---|---|",
        *(_markdown_row(row) for row in table["rows"]),
        "",
    ]
    if table["without_result"]:
        lines += [f"Without a result: {', '.join(table['without_result'])}.", ""]
    if table["rows"]:
        lines += [f"![{table['title']}](ablations/{name}.png)", ""]
    if "block_stats" in table:
        lines += [f"![block statistics over training](ablations/{table['block_stats']})", ""]
    for claim in claims:
        lines.append(f"- **{claim['verdict']}**: {claim['statement']} ({claim['source']})")
        lines += [f"  - {part['verdict']} ({part['rule']}): {part['text']}" for part in claim["parts"]]
    return [*lines, ""] if claims else lines


def _markdown_row(row: Mapping[str, Any]) -> str:
    value = row["accuracy"]
    cells = [
        row["name"],
        "–" if row["paper"] is None else f"{row['paper'][0]:.1f}",
        " / ".join(f"{seed:.1f}" for seed in value["seeds"]),
        f"{value['value']:.1f} [{value['low']:.1f}, {value['high']:.1f}]",
        f"{row['parameters'] / 1e6:.3f}",
        f"{row['macs'] / 1e6:.1f}",
        f"{row['activation_bytes'] / 1e6:.2f}",
        f"{row['measured']['ms_per_clip']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _method(result: Mapping[str, Any], study: Study) -> list[str]:
    spec, videos = study.stills_spec, result["videos"]
    return [
        "## Method",
        "",
        f"Videos have {spec.height}×{spec.width} pixels and items {spec.tile}×{spec.tile}; {videos['train']} videos are for training and "
        f"{videos['test']} for testing on {result['views']} views each. A 2-D network of each depth learns digits and",
        f"colours on {videos['stills']} single frames. Every row is inflated from it and fine-tuned for {study.iterations} iterations of",
        f"{study.batch} clips by one recipe: SGD, learning rate 0.2 (a quarter of it for transferred weights), {study.warmup} iterations of",
        "warm-up, cosine decay. The recipe was chosen on validation videos (docs/log.md) and not tuned for any row. Blocks start",
        "as the identity and follow the paper's convention with the release's softmax scale 1/√d, except where a row says",
        "otherwise. A seed is one of fine-tuning; all seeds share the 2-D networks and the videos.",
        "",
        "Intervals are 95 %, of the mean over seeds: Wilson's interval over the test videos for an accuracy, the normal interval",
        "of the video-by-video differences for a comparison. They do not cover other seeds, so every rule also asks each seed:",
        "",
        *(f"- *{rule}*: {meaning}." for rule, meaning in RULES.items()),
        "",
        "A claim is shown if all of its parts are, contradicted if the opposite of a part holds by the same rule, and not shown",
        "otherwise. Reach is the accuracy by the distance between the cue and the digit on a tile of its colour. Activations",
        "are what training keeps of one clip for the backward pass. ms/clip is the training time of a clip, with other runs at",
        "the same time.",
        "",
        *_provenance(result),
        "",
    ]


def _provenance(result: Mapping[str, Any]) -> list[str]:
    """The commits and machines that made the runs, and those that made the tables."""
    measured = result["measured"]
    lines = [
        f"{made['runs']} runs: {'not recorded' if made['provenance'] is None else _line(made['provenance'])}."
        for made in measured["runs_made_by"]
    ]
    count = measured["sessions"]
    took = f"{measured['seconds'] / 60:.1f} min in {count} session{'' if count == 1 else 's'} of training and testing"
    return [*lines, f"Tables: {_line(result['provenance'])}. {took}."]


def _line(provenance: Mapping[str, str]) -> str:
    return (
        f"commit {provenance['commit']}, {provenance['machine']}, Python {provenance['python']}, "
        f"torch {provenance['torch']}, nlnet {provenance['nlnet']}"
    )

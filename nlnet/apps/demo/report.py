"""The demo's report: a table, curves, and where the trained network looks."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nlnet.apps.attend.command import TOP, sight
from nlnet.apps.attend.figures import strip
from nlnet.apps.demo.attention import as_it_started, mean_share, scenes, tidy
from nlnet.apps.plots import curves
from nlnet.apps.recipes.catalogue import DEMO_SPEC, DEMO_VIDEOS
from nlnet.data.diagnostic.bounds import additive_bound, blind_rate
from nlnet.engine.config.inputs import sampling
from nlnet.engine.network import load_network
from nlnet.engine.runs.atomic_write import write_json, write_text
from nlnet.engine.runs.directory import RunDir
from nlnet.models.flops import count

NETWORKS = {"local": "C2D, local", "control": "C2D + residual block", "nonlocal": "C2D + non-local block"}

if TYPE_CHECKING:
    from nlnet.apps.jobs import Job


def report(out: Path, runs: Sequence["Job"], *, seconds: float) -> dict[str, Any]:
    """Write report.json, report.md, curves.png and attention.png under `out`; the report's content."""
    networks = [
        summarise(kind, title, [j for j in runs if j.name.startswith(kind)])
        for kind, title in NETWORKS.items()
    ]
    wins = [
        ours > max(others)
        for ours, *others in zip(*(n["video_top1"] for n in reversed(networks)), strict=True)
    ]
    test = json.loads((runs[0].run / "test" / "summary.json").read_text())
    attention = look(out, [job for job in runs if job.name.startswith("nonlocal")], test["videos"])
    result = {
        "title": f"Colour-cued digits in space and time apart: {test['scored']} held-out videos, "
        f"{test['views_per_video']} views each",
        "networks": networks,
        "attention": attention,
        "yardsticks": [
            f"guessing reaches 10.0 %, reading every digit but not the cue {100 * blind_rate():.1f} %",
            f"no sum of local evidence can exceed {100 * additive_bound():.1f} % (nlnet/data/diagnostic/bounds.py)",
            attention_line(attention),
        ],
        "nonlocal_wins_on_every_seed": all(wins),
        "seeds": len(wins),
        "seconds": round(seconds, 1),
        "videos": DEMO_VIDEOS,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }
    curves(
        {job.name: RunDir(job.run).metrics() for job in runs},
        out / "curves.png",
        chance={"blind to the cue": 100 * blind_rate()},
    )
    write_json(out / "report.json", result)
    write_text(out / "report.md", markdown(result))
    return result


def summarise(kind: str, title: str, jobs: Sequence["Job"]) -> dict[str, Any]:
    """One network: its cost and its scores by seed."""
    model, checkpoint = load_network(jobs[0].run, "last", torch.device("cpu"))
    frames, _ = sampling(checkpoint.config)
    cost = count(model, (frames, checkpoint.config.data.crop, checkpoint.config.data.crop))
    metrics = [json.loads((j.run / "test" / "summary.json").read_text())["metrics"] for j in jobs]
    return {
        "network": kind,
        "title": title,
        "model": checkpoint.config.model.name,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "video_top1": [m["video_top1"] for m in metrics],
        "clip_top1": [m["clip_top1"] for m in metrics],
    }


def look(out: Path, jobs: Sequence["Job"], videos: int) -> dict[str, Any]:
    """attention.png of one test video; how much of the cue's attention its partner gets in all of them.

    The picture is that of `nlnet attend` on the first run, from the position that its block changes most, in the first
    video whose cue and partner each fill a pair of frames that the network pools (half of them straddle two pairs).
    """
    trained = [load_network(job.run, "last", torch.device("cpu")) for job in jobs]
    model, checkpoint = trained[0]
    seen = list(scenes(DEMO_SPEC, out / "data" / "test", videos, checkpoint.config))
    first = sight(model, checkpoint, next((scene for scene in seen if tidy(scene)), seen[0]).view)
    gazes = first.gazes(first.observation.strongest(1), first.observation.paths)
    strip(first.frames, gazes, out / "attention.png", title=first.title, top=TOP)
    begun = as_it_started(checkpoint.config, len(checkpoint.classes), out / "stills")
    start = mean_share(begun, checkpoint.config, seen)
    shares = [mean_share(network, loaded.config, seen) for network, loaded in trained]
    return {
        "videos": start.videos,
        "trained": [round(share.partner, 4) for share in shares],
        "before_training": round(start.partner, 4),
        "uniform": round(start.uniform, 4),
        "picture": {"video": str(first.view.video.relative_to(out)), "position": list(gazes[0].position)},
    }


def attention_line(shares: dict[str, Any]) -> str:
    """The measure in words."""
    trained = " / ".join(f"{100 * share:.1f} %" for share in shares["trained"])
    return (
        f"of its attention the cue gives its partner {trained} (by seed, mean over {shares['videos']} test videos); "
        f"before training {100 * shares['before_training']:.1f} %, looking everywhere alike "
        f"{100 * shares['uniform']:.1f} %"
    )


def markdown(result: dict[str, Any]) -> str:
    """The report as a page."""
    lines = [
        "# nlnet demo",
        "",
        f"{result['title']}. {result['machine']}; {result['seconds']:.0f} s for everything.",
        "",
        "| network | parameters | MACs, M | video_top1 by seed, % | clip_top1 by seed, % |",
        "|---|---|---|---|---|",
    ]
    for n in result["networks"]:
        video, clip = (" / ".join(f"{s:.1f}" for s in n[name]) for name in ("video_top1", "clip_top1"))
        lines.append(
            f"| {n['title']} (`{n['model']}`) | {n['parameters']:,} | {n['macs'] / 1e6:.1f} | {video} | {clip} |"
        )
    lines += ["", *(f"- {line}" for line in result["yardsticks"])]
    lines += [
        "",
        "The label is the digit whose tile has the colour of the cue; the three items never share a place or a moment.",
        "Training and test videos show disjoint handwritings. All networks start from the same 2-D network.",
        "",
        "![curves](curves.png)",
        "",
        "Where the non-local block looks in a test clip, from the position that it changes most: arrows to the keys, as "
        "wide as their weight, and the same as a heat map "
        f"(`nlnet attend nonlocal-0 {result['attention']['picture']['video']}`):",
        "",
        "![attention](attention.png)",
        "",
    ]
    return "\n".join(lines)

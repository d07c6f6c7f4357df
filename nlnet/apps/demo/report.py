"""The demo's report: report.json, report.md, training curves, and a picture of the trained block's attention."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nlnet.apps.attend.command import TOP
from nlnet.apps.attend.figures import attention_figure
from nlnet.apps.attend.video_attention import attention_of_video
from nlnet.apps.demo.attention import fills_frame_pairs, make_scenes, mean_share, untrained_network
from nlnet.apps.plots import curves, save
from nlnet.apps.recipes.catalogue import DEMO_SPEC, DEMO_VIDEOS
from nlnet.data.diagnostic.bounds import additive_bound, single_item_bound
from nlnet.engine.config.inputs import sampling
from nlnet.engine.network import load_network
from nlnet.engine.runs.atomic_write import write_json, write_text
from nlnet.engine.runs.directory import RunDir
from nlnet.models.flops import count

if TYPE_CHECKING:
    from nlnet.apps.jobs import Job

NETWORKS = {"local": "C2D, local", "control": "C2D + residual block", "nonlocal": "C2D + non-local block"}
"""Networks of the demo by the name of their recipe (demo_NAME), and their titles."""
BOUNDS = "nlnet/data/diagnostic/bounds.py"
"""Where the two accuracies that the networks are compared with are computed."""


def report(out: Path, runs: Sequence["Job"], *, seconds: float) -> dict[str, Any]:
    """Write report.json, report.md, curves.png and attention.png under `out`; return the content of report.json.

    Args:
        runs: the finished jobs of fine-tuning.
        seconds: wall time of the demo.
    """
    networks = [
        summarise(kind, title, [j for j in runs if j.name.startswith(kind)])
        for kind, title in NETWORKS.items()
    ]
    # zip goes seed by seed; reversed, so that the non-local network comes first
    wins = [
        ours > max(others)
        for ours, *others in zip(*(n["video_top1"] for n in reversed(networks)), strict=True)
    ]
    test = json.loads((runs[0].run / "test" / "summary.json").read_text())
    attention = report_attention(
        out, [job for job in runs if job.name.startswith("nonlocal")], test["videos"]
    )
    result = {
        "title": f"Colour-cued digits, far apart in space and time: {test['scored']} held-out videos, "
        f"{test['views_per_video']} views each",
        "networks": networks,
        "attention": attention,
        "yardsticks": [
            f"chance: 10.0 %; reading the digits but ignoring the cue: {100 * single_item_bound():.1f} % at best",
            f"upper bound for any sum of local evidence: {100 * additive_bound():.1f} % ({BOUNDS})",
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
        chance={"blind to the cue": 100 * single_item_bound()},
    )
    write_json(out / "report.json", result)
    write_text(out / "report.md", markdown(result))
    return result


def summarise(kind: str, title: str, jobs: Sequence["Job"]) -> dict[str, Any]:
    """Return the cost of a network and its accuracies by seed, from the jobs of one network."""
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


def report_attention(out: Path, jobs: Sequence["Job"], videos: int) -> dict[str, Any]:
    """Save attention.png of one test video; return the mean attention from cue to partner over all test videos.

    The picture is that of `nlnet attend` for the first run, with the query at the position that the block changes most.
    The video is the first one whose cue and partner each fill a pair of frames that the network pools into one.

    Args:
        jobs: the runs of the non-local network, one per seed.
        videos: number of test videos.
    """
    trained = [load_network(job.run, "last", torch.device("cpu")) for job in jobs]
    model, checkpoint = trained[0]
    scenes = list(make_scenes(DEMO_SPEC, out / "data" / "test", videos, checkpoint.config))
    # an item that straddles two pairs has its attention on two keys, which makes a poorer example
    example = next((scene for scene in scenes if fills_frame_pairs(scene)), scenes[0])
    found = attention_of_video(model, checkpoint, example.view)
    maps = found.maps(found.observation.strongest(1), found.observation.paths)
    figure = attention_figure(found.frames, maps, title=found.title, top=TOP)
    save(figure, out / "attention.png")
    # the same measure without training, to show that training made the attention
    untrained = untrained_network(checkpoint.config, len(checkpoint.classes), out / "stills")
    start = mean_share(untrained, checkpoint.config, scenes)
    shares = [mean_share(network, loaded.config, scenes) for network, loaded in trained]
    return {
        "videos": start.videos,
        "trained": [round(share.partner, 4) for share in shares],
        "before_training": round(start.partner, 4),
        "uniform": round(start.uniform, 4),
        "picture": {"video": str(found.view.video.relative_to(out)), "position": list(maps[0].position)},
    }


def attention_line(shares: dict[str, Any]) -> str:
    """Return the attention from cue to partner as a line of text."""
    trained = " / ".join(f"{100 * share:.1f} %" for share in shares["trained"])
    return (
        f"attention from the cue to the digit of its colour: {trained} by seed (mean over {shares['videos']} test "
        f"videos); {100 * shares['before_training']:.1f} % before training, {100 * shares['uniform']:.1f} % if uniform"
    )


def markdown(result: dict[str, Any]) -> str:
    """Return report.md."""
    lines = [
        "# nlnet demo",
        "",
        f"{result['title']}. {result['machine']}; {result['seconds']:.0f} s in all.",
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
        "The class of a video is the digit on the tile that has the colour of the cue. The two digits and the cue lie at",
        "three corners of the frame and are never visible at the same time. Training and test videos show different",
        "handwritings. All networks start from the same 2-D network.",
        "",
        "![curves](curves.png)",
        "",
        "Attention of the non-local block in a test clip, with the query at the position that the block changes most. "
        "Top: arrows to the strongest keys, as wide as their weight. Below: the same attention as a heat map "
        f"(`nlnet attend nonlocal-0 {result['attention']['picture']['video']}`):",
        "",
        "![attention](attention.png)",
        "",
    ]
    return "\n".join(lines)

"""The demo's report: a table, curves, and where the trained network looks."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nlnet.apps.commands import load_network
from nlnet.apps.figures import attention_strip, curves
from nlnet.apps.recipes import DEMO_SPEC, DEMO_VIDEOS
from nlnet.attention import attention_row
from nlnet.data import TestTransform, Video, normalize
from nlnet.data.clips import clip_indices, crop_offsets
from nlnet.data.diagnostic import Item, make_clip
from nlnet.data.diagnostic_bounds import additive_bound, blind_rate
from nlnet.engine.config import Config
from nlnet.engine.loading import sampling
from nlnet.engine.rundir import RunDir, write_json, write_text
from nlnet.models import VideoResNet, count

if TYPE_CHECKING:
    from nlnet.apps.demo import Job


def report(out: Path, runs: Sequence["Job"], *, seconds: float) -> dict[str, Any]:
    """Write report.json, report.md, curves.png and attention.png under `out`; the report's content."""
    from nlnet.apps.demo import NETWORKS

    networks = [
        summarise(kind, title, [j for j in runs if j.name.startswith(kind)])
        for kind, title in NETWORKS.items()
    ]
    wins = [
        ours > max(others)
        for ours, *others in zip(*(n["video_top1"] for n in reversed(networks)), strict=True)
    ]
    test = json.loads((runs[0].run / "test" / "summary.json").read_text())
    result = {
        "title": f"Colour-cued digits in space and time apart: {test['scored']} held-out videos, "
        f"{test['views_per_video']} views each",
        "networks": networks,
        "yardsticks": [
            f"guessing reaches 10.0 %, reading every digit but not the cue {100 * blind_rate():.1f} %",
            f"no sum of local evidence can exceed {100 * additive_bound():.1f} % (nlnet/data/diagnostic_bounds.py)",
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
    picture(out, next(job for job in runs if job.name.startswith("nonlocal")))
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


def picture(out: Path, job: "Job", *, index: int = 3) -> None:
    """attention.png: from each item of one test video, where the non-local block looks."""
    model, checkpoint = load_network(job.run, "last", torch.device("cpu"))
    truth = make_clip(DEMO_SPEC, "test", index)
    path = next((out / "data" / "test").glob(f"*/{index:05d}.mp4"))
    clip, corner = centre_clip(path, checkpoint.config)
    rows, titles = [], []
    for item in reversed(truth.items):  # the cue first: it must find its partner
        query = position(item, checkpoint.config, corner)
        (attention,) = attention_row(model, normalized(clip, checkpoint.config), query).values()
        rows.append((query, attention))
        what = f"the {item.color} cue" if item.digit is None else f"the {item.digit} on {item.color}"
        titles.append(
            f"from {what}"
            + (
                f"   (label {truth.label}, answer {answer(model, clip, checkpoint.config)})"
                if not rows[1:]
                else ""
            )
        )
    attention_strip(clip.permute(1, 2, 3, 0), rows, out / "attention.png", titles=titles)


def centre_clip(path: Path, config: Config) -> tuple[Tensor, tuple[int, int]]:
    """The clip (3, T, H, W), uint8, from frame 0 in the central crop, and the crop's top and left pixel."""
    frames, stride = sampling(config)
    with Video(path) as video:
        indices = clip_indices(0, length=frames, stride=stride, num_frames=video.num_frames)
        taken = video.frames(indices)
    transform = TestTransform(config.test.crop, config.test.short_side, 1)
    scaled = transform.scale(taken)
    corner = crop_offsets(scaled.shape[1], scaled.shape[2], config.test.crop, 1)[0]
    return transform(taken)[0], corner


def position(item: Item, config: Config, corner: tuple[int, int]) -> tuple[int, int, int]:
    """The clip coordinates (t, y, x) of an item's centre, at the clip frame in the middle of its visible frames."""
    frames, stride = sampling(config)
    shown = [t for t in range(frames) if t * stride % DEMO_SPEC.frames in item.frames]
    middle = DEMO_SPEC.tile // 2
    return shown[len(shown) // 2], item.top + middle - corner[0], item.left + middle - corner[1]


def normalized(clip: Tensor, config: Config) -> Tensor:
    return normalize(clip[None], config.data.mean, config.data.std)


@torch.no_grad()
def answer(model: VideoResNet, clip: Tensor, config: Config) -> int:
    return int(model(normalized(clip, config)).argmax())


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
        "Where the non-local block looks, from the starred position, in every frame of a test clip:",
        "",
        "![attention](attention.png)",
        "",
    ]
    return "\n".join(lines)

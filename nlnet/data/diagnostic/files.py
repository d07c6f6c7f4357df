"""The diagnostic as files: encoded .mp4 videos and .png stills in class folders, like anyone's data set.

root/{train,val,test}/{digit}/{index}.mp4      clips (`make_clip`)
root/stills/{train,val}/{class}/{index}.png    frames for pre-training a 2-D network (`make_still`)
root/dataset.json                              what they are and how they were made
"""

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from nlnet.data.diagnostic.task import STILL_CLASSES, DiagnosticSpec, Split, make_clip, make_still

FPS = 8
CODEC = {"crf": "20", "preset": "ultrafast", "bf": "0", "threads": "1"}
"""Constant quality of libx264, in the usual 4:2:0 chroma; with B-frames it does not repeat itself bit for bit."""


class Piece(NamedTuple):
    """A run of files that one process writes."""

    still: bool
    split: Split
    first: int
    last: int


def write_dataset(
    spec: DiagnosticSpec,
    root: Path,
    counts: Mapping[str, int],
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the data set, whole or not at all.

    Args:
        counts: clips of "train", "val" and "test", and "stills" for training; a tenth more for validation.
        progress: called with files done and files in all.

    A directory that already holds this very data set is left as it is.

    Raises:
        ValueError: something else is there, or a count is unknown.
    """
    unknown = counts.keys() - {"train", "val", "test", "stills"}
    if unknown:
        raise ValueError(f"counts: got {sorted(unknown)}, expected train, val, test and stills")
    facts = {"spec": asdict(spec), "counts": dict(counts), "fps": FPS, "codec": CODEC}
    if is_written(root, facts):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    partial_root = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial_root, ignore_errors=True)  # what a killed run left
    pieces = list(cut(counts))
    total, done = sum(piece.last - piece.first for piece in pieces), 0
    progress(0, total)
    try:
        for written in _spread(partial(write_piece, spec, partial_root), pieces, processes):
            done += written
            progress(done, total)
        (partial_root / "dataset.json").write_text(
            json.dumps(facts | {"made_with": {"av": av.__version__, "numpy": version("numpy")}}, indent=2)
            + "\n"
        )
        partial_root.rename(root)
    finally:
        shutil.rmtree(partial_root, ignore_errors=True)


def is_written(root: Path, facts: Mapping[str, object]) -> bool:
    """Whether `root` holds exactly this data set; raises if it holds something else."""
    if not root.exists():
        return False
    try:
        there = json.loads((root / "dataset.json").read_text())
    except (OSError, json.JSONDecodeError):
        raise ValueError(f"{root}: something else is there; choose another directory, or remove it") from None
    if isinstance(there.get("spec"), dict):
        # what an older version wrote has no value for newer fields; their defaults are what it meant
        there["spec"] = {field.name: field.default for field in fields(DiagnosticSpec)} | there["spec"]
    differing = sorted(key for key, value in facts.items() if there.get(key) != value)
    if differing:
        raise ValueError(
            f"{root}: another diagnostic data set is there (its {' and '.join(differing)} differ); "
            "choose another directory, or remove it"
        )
    return True


def cut(counts: Mapping[str, int], size: int = 100) -> Iterator[Piece]:
    """The work in pieces of at most `size` files."""
    stills = counts.get("stills", 0)
    splits: tuple[Split, ...] = ("train", "val", "test")
    wanted = [(False, split, counts.get(split, 0)) for split in splits]
    wanted += [(True, "train", stills), (True, "val", -(-stills // 10))]
    for still, split, count in wanted:
        for first in range(0, count, size):
            yield Piece(still, split, first, min(first + size, count))


def write_piece(spec: DiagnosticSpec, root: Path, piece: Piece) -> int:
    """Write one piece; how many files that were."""
    for index in range(piece.first, piece.last):
        if piece.still:
            frame, label = make_still(spec, piece.split, index)
            path = root / "stills" / piece.split / STILL_CLASSES[label] / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(frame))
        else:
            clip = make_clip(spec, piece.split, index)
            path = root / piece.split / str(clip.label) / f"{index:05d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            encode_mp4(clip.frames, path)
    return piece.last - piece.first


def encode_mp4(frames: np.ndarray, path: Path) -> None:
    """H.264 of (T, H, W, 3) uint8 RGB."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=CODEC)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def encode_png(frame: np.ndarray) -> bytes:
    """A lossless still of (H, W, 3) uint8 RGB."""
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width, codec.pix_fmt = frame.shape[0], frame.shape[1], "rgb24"
    codec.time_base = Fraction(1, FPS)
    packets = codec.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")) + codec.encode(None)
    return b"".join(bytes(packet) for packet in packets)


def _spread(work: Callable[[Piece], int], pieces: list[Piece], processes: int) -> Iterator[int]:
    if processes == 1:
        yield from map(work, pieces)
        return
    # a fresh interpreter each: a fork would inherit the threads of whatever the caller has loaded
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, pieces)

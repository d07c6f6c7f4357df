"""Write the diagnostic as files: encoded .mp4 videos and .png stills in class folders, like any data set on disk.

root/{train,val,test}/{digit}/{index}.mp4      clips (`make_clip`)
root/stills/{train,val}/{class}/{index}.png    frames for pre-training a 2-D network (`make_still`)
root/dataset.json                              the spec, the counts, the codec, and the versions that wrote them
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
from nlnet.errors import NlnetError

FPS = 8
CODEC = {"crf": "20", "preset": "ultrafast", "bf": "0", "threads": "1"}
"""Options of libx264, at constant quality. No B-frames and one thread: else two runs differ in some bytes."""


class Chunk(NamedTuple):
    """A range of files that one process writes: indices `first` to `last` − 1 of a split."""

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
    """Write the data set to the directory `root`, which appears complete or not at all.

    A directory that already holds the same data set is left as it is.

    Args:
        counts: numbers of clips in "train", "val" and "test", and of "stills" for training; a tenth as many stills are
            added for validation.
        progress: called with the number of files written and the number of all files.

    Raises:
        NlnetError: `root` holds something else, or `counts` has an unknown key.
    """
    unknown = counts.keys() - {"train", "val", "test", "stills"}
    if unknown:
        raise NlnetError(
            f"counts: unknown {', '.join(sorted(unknown))}; expected train, val, test and stills"
        )
    description = {"spec": asdict(spec), "counts": dict(counts), "fps": FPS, "codec": CODEC}
    if is_written(root, description):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    partial_root = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial_root, ignore_errors=True)  # left by a killed run
    chunks = list(cut_into_chunks(counts))
    total, done = sum(chunk.last - chunk.first for chunk in chunks), 0
    progress(0, total)
    try:
        for written in _map(partial(write_chunk, spec, partial_root), chunks, processes):
            done += written
            progress(done, total)
        (partial_root / "dataset.json").write_text(
            json.dumps(
                description | {"made_with": {"av": av.__version__, "numpy": version("numpy")}}, indent=2
            )
            + "\n"
        )
        partial_root.rename(root)  # atomic: a directory called `root` is always complete
    finally:
        shutil.rmtree(partial_root, ignore_errors=True)


def is_written(root: Path, description: Mapping[str, object]) -> bool:
    """Whether `root` holds the data set of this description. Raises NlnetError if it holds something else."""
    if not root.exists():
        return False
    try:
        found = json.loads((root / "dataset.json").read_text())
    except (OSError, json.JSONDecodeError):
        raise NlnetError(
            f"{root} exists and is not a diagnostic data set; choose another directory, or remove it"
        ) from None
    if isinstance(found.get("spec"), dict):
        # older versions lacked the newer fields and behaved as the defaults of these
        found["spec"] = {field.name: field.default for field in fields(DiagnosticSpec)} | found["spec"]
    differing = sorted(key for key, value in description.items() if found.get(key) != value)
    if differing:
        raise NlnetError(
            f"{root} holds another diagnostic data set (different {' and '.join(differing)}); "
            "choose another directory, or remove it"
        )
    return True


def cut_into_chunks(counts: Mapping[str, int], size: int = 100) -> Iterator[Chunk]:
    """Divide all files into chunks of at most `size` files."""
    stills = counts.get("stills", 0)
    splits: tuple[Split, ...] = ("train", "val", "test")
    wanted = [(False, split, counts.get(split, 0)) for split in splits]
    wanted += [(True, "train", stills), (True, "val", -(-stills // 10))]  # rounded up
    for still, split, count in wanted:
        for first in range(0, count, size):
            yield Chunk(still, split, first, min(first + size, count))


def write_chunk(spec: DiagnosticSpec, root: Path, chunk: Chunk) -> int:
    """Write the files of one chunk and return their number."""
    for index in range(chunk.first, chunk.last):
        if chunk.still:
            frame, label = make_still(spec, chunk.split, index)
            path = root / "stills" / chunk.split / STILL_CLASSES[label] / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_png(frame))
        else:
            clip = make_clip(spec, chunk.split, index)
            path = root / chunk.split / str(clip.label) / f"{index:05d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            encode_mp4(clip.frames, path)
    return chunk.last - chunk.first


def encode_mp4(frames: np.ndarray, path: Path) -> None:
    """Write (T, H, W, 3) uint8 RGB frames as an H.264 video with 4:2:0 chroma."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=CODEC)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def encode_png(frame: np.ndarray) -> bytes:
    """The bytes of a PNG file (lossless) of an (H, W, 3) uint8 RGB frame."""
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width, codec.pix_fmt = frame.shape[0], frame.shape[1], "rgb24"
    codec.time_base = Fraction(1, FPS)
    packets = codec.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")) + codec.encode(None)
    return b"".join(bytes(packet) for packet in packets)


def _map(work: Callable[[Chunk], int], chunks: list[Chunk], processes: int) -> Iterator[int]:
    if processes == 1:
        yield from map(work, chunks)
        return
    # "spawn" starts new interpreters: forking is unsafe once the caller's libraries have started threads
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, chunks)

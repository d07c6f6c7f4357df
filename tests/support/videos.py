"""Small encoded video files for tests: every frame shows its number as eight black or white bars along its top."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH = 48, 64


def numbered_frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame with the bars of `number` above a moving pattern, for which encoders use I-, P- and B-frames."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin((x + 3 * number) / 23 + k) * np.cos((y - 2 * number) / 17) for k in range(3)]
    frame = np.stack(waves, axis=-1).astype(np.uint8)
    for bit in range(8):
        left, right = bit * width // 8, (bit + 1) * width // 8
        frame[: height // 3, left:right] = 235 if number >> bit & 1 else 20
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number in a frame's bars, read at the middle of each bar."""
    height, width = frame.shape[:2]
    return sum(
        int(frame[2 : height // 3 - 2, (2 * bit + 1) * width // 16].mean() > 128) << bit for bit in range(8)
    )


def write_video(
    path: Path,
    count: int,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    stamps_ms: Sequence[int] | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pix_fmt: str = "yuv420p",
    container: str | None = None,
    rotation: int | None = None,
    draw: Callable[[int, int, int], np.ndarray] = numbered_frame,
) -> Path:
    """Write `count` frames at 25 frames per second, or at the times `stamps_ms`."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        if stamps_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for k in range(count):
            frame = av.VideoFrame.from_ndarray(draw(k, *size), format="rgb24")
            if stamps_ms is not None:
                frame.pts, frame.time_base = stamps_ms[k], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def copy_packets(
    source: Path,
    path: Path,
    *,
    keep: Callable[[int], bool] = lambda position: True,
    shift: int = 0,
    container: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Copy the packets that `keep` selects to a new file, shifted in time by `shift`, without encoding again."""
    with av.open(str(source)) as old, av.open(str(path), "w", format=container, options=options or {}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for position, packet in enumerate(old.demux(video=0)):
            if packet.size and keep(position):
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                new.mux(packet)
    return path


def write_packed_avi(path: Path, count: int) -> Path:
    """Write an .avi whose packets hold a P-frame and the B-frame shown before it, each followed by a placeholder.

    Many DivX and XviD files are packed like this. `count` is odd: one I-frame, then pairs.
    """
    encoder = av.CodecContext.create("mpeg4", "w")
    encoder.height, encoder.width, encoder.pix_fmt = HEIGHT, WIDTH, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.options = {"bf": "1", "b_strategy": "0", "g": "10", "sc_threshold": "1000000000"}
    pieces = []
    for k in range(count):
        frame = av.VideoFrame.from_ndarray(numbered_frame(k), format="rgb24").reformat(format="yuv420p")
        frame.pts = k
        pieces += encoder.encode(frame)
    pieces += encoder.encode(None)
    head = bytes(pieces[0])
    group = head.index(b"\x00\x00\x01\xb3")
    packets = [(head[:group] + b"\x00\x00\x01\xb2DivX503b1393p" + head[group:], True)]
    for late, early in zip(pieces[1::2], pieces[2::2], strict=True):
        packets.append((bytes(late) + bytes(early), late.is_keyframe))
        # an empty P-frame: type 01, no whole second passed, marker, tick, marker, "not coded", padding
        bits = f"0101{late.pts % 25:05b}1001111"
        packets.append((b"\x00\x00\x01\xb6" + int(bits, 2).to_bytes(2, "big"), False))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for k, (data, is_keyframe) in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, k, k, Fraction(1, 25)
            packet.is_keyframe = is_keyframe
            out.mux(packet)
    return path


def keyframes(path: Path) -> list[int]:
    """Positions of the keyframes among the packets of a file."""
    with av.open(str(path)) as container:
        return [k for k, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]

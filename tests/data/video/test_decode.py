import pickle
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from support.videos import (
    HEIGHT,
    WIDTH,
    copy_packets,
    keyframes,
    number_of,
    numbered_frame,
    write_packed_avi,
    write_video,
)

from nlnet.data.video.decode import Video
from nlnet.data.video.packets import VideoError, as_fraction

HELD, SOUGHT = 1 << 20, 0  # hold_bytes: all packets in memory, or a seek in the file for every jump
OPEN_GOP = {"x264-params": "open-gop=1:keyint=24:min-keyint=24:scenecut=0:bframes=3:b-adapt=0"}
IRREGULAR_MS = np.cumsum(np.random.default_rng(0).integers(1, 90, 60)).tolist()

Maker = Callable[[Path], Path]


def video(name: str, count: int, **options: object) -> Maker:
    return lambda folder: write_video(folder / name, count, **options)  # type: ignore[arg-type]


def edited(folder: Path) -> Path:
    """A file with five frames before time zero, which the muxer hides by an edit list."""
    return copy_packets(
        write_video(folder / "whole.mp4", 60, options={"g": "12"}), folder / "cut.mp4", shift=-5 * 512
    )


def headless(kind: str, options: dict[str, str], suffix: str) -> Maker:
    """A file that begins at an open-GOP keyframe: frames stored after it but shown before it cannot be decoded."""

    def make(folder: Path) -> Path:
        whole = write_video(folder / f"whole{suffix}", 70, codec=kind, options=options)
        second = keyframes(whole)[1]
        return copy_packets(whole, folder / f"headless{suffix}", keep=lambda position: position >= second)

    return make


def truncated_stream(folder: Path) -> Path:
    """A broadcast recorded from the middle on: five packets are missing, the first keyframe among them."""
    whole = write_video(folder / "whole.ts", 70, options=OPEN_GOP, container="mpegts")
    return copy_packets(whole, folder / "joined.ts", keep=lambda k: k >= 5, container="mpegts")


X265 = {"x265-params": "keyint=24:min-keyint=24:scenecut=0:log-level=none:open-gop=1:bframes=4"}

# name → (how the file is made, the numbers that its frames carry)
FILES: dict[str, tuple[Maker, range]] = {
    "x264 defaults": (video("a.mp4", 60), range(60)),
    "keyframe every 30": (video("a.mp4", 75, options={"g": "30"}), range(75)),
    "every frame a keyframe": (video("a.avi", 20, codec="mjpeg", pix_fmt="yuvj420p"), range(20)),
    "open GOP": (video("a.mp4", 100, options=OPEN_GOP), range(100)),
    "open GOP mkv": (video("a.mkv", 60, options=OPEN_GOP), range(60)),
    "variable rate": (video("a.mp4", 60, stamps_ms=IRREGULAR_MS, options={"g": "20"}), range(60)),
    "variable rate mkv": (video("a.mkv", 60, stamps_ms=IRREGULAR_MS), range(60)),
    "mpeg4 avi": (video("a.avi", 60, codec="mpeg4", options={"g": "12"}), range(60)),
    "mpeg4 avi with B-frames": (video("a.avi", 60, codec="mpeg4", options={"g": "12", "bf": "2"}), range(60)),
    "packed B-frames": (lambda folder: write_packed_avi(folder / "a.avi", 41), range(41)),
    "mpeg2 program stream": (video("a.mpg", 60, codec="mpeg2video", options={"bf": "2"}), range(60)),
    "vp9 webm": (video("a.webm", 40, codec="libvpx-vp9", options={"cpu-used": "8", "g": "15"}), range(40)),
    "hevc open GOP": (video("a.mp4", 60, codec="libx265", options=X265), range(60)),
    "no time stamps": (video("a.h264", 60, options={"g": "20"}, container="h264"), range(60)),
    "negative first stamp": (edited, range(5, 60)),
    "headless open GOP": (headless("libx264", OPEN_GOP, ".mkv"), range(24, 70)),
    "headless hevc": (headless("libx265", X265, ".mp4"), range(24, 70)),
    "joined broadcast": (truncated_stream, range(24, 70)),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    paths: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in paths:
            paths[name] = FILES[name][0](tmp_path_factory.mktemp("video"))
        return paths[name]

    return get


@pytest.mark.parametrize("hold_bytes", [HELD, SOUGHT], ids=["held", "sought"])
@pytest.mark.parametrize("name", FILES)
def test_every_frame_is_the_requested_one(name: str, hold_bytes: int, made: Callable[[str], Path]) -> None:
    numbers = FILES[name][1]
    with Video(made(name), hold_bytes=hold_bytes) as opened:
        assert opened.num_frames == len(numbers)
        in_order = opened.frames(range(opened.num_frames))
        assert [number_of(frame) for frame in in_order.numpy()] == list(numbers)
        rng = random.Random(name)
        for count in (1, 1, 1, 4, 9):
            indices = [rng.randrange(opened.num_frames) for _ in range(count)]
            frames = opened.frames(indices)
            assert torch.equal(frames, in_order[indices])  # bit for bit, from whatever start point
        backwards = range(opened.num_frames - 1, -1, -7)
        assert torch.equal(opened.frames(backwards), in_order[list(backwards)])


def test_pixels_are_those_of_a_plain_decode(made: Callable[[str], Path]) -> None:
    path = made("open GOP")
    with av.open(str(path)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Video(path) as opened:
        assert np.array_equal(opened.frames(range(0, 100, 3)).numpy(), np.stack(plain[::3]))


def test_times_are_those_written(made: Callable[[str], Path]) -> None:
    with Video(made("variable rate")) as opened:
        written = [(ms - IRREGULAR_MS[0]) / 1000 for ms in IRREGULAR_MS]
        assert opened.times_seconds == pytest.approx(written, abs=1e-3)
    with Video(made("keyframe every 30")) as opened:
        assert opened.times_seconds == pytest.approx([k / 25 for k in range(75)])
        assert opened.duration_seconds == pytest.approx(3.0)
    with Video(made("no time stamps")) as opened:
        assert opened.times_seconds == pytest.approx([k / 25 for k in range(60)])
    with Video(made("negative first stamp")) as opened:
        assert opened.times_seconds[:2] == pytest.approx([0, 0.04])


@pytest.mark.parametrize("hold_bytes", [HELD, SOUGHT], ids=["held", "sought"])
def test_only_frames_on_the_way_are_decoded(hold_bytes: int, made: Callable[[str], Path]) -> None:
    with Video(made("every frame a keyframe"), hold_bytes=hold_bytes) as opened:
        assert opened.frames_decoded == 0  # opening decodes nothing
        opened.frames([17, 3, 3, 9, 17])
        assert opened.frames_decoded == 3  # each once
    path = made("keyframe every 30")
    last = keyframes(path)[-1]
    with Video(path, hold_bytes=hold_bytes) as opened:
        opened.frames([last])
        assert opened.frames_decoded == 1
        opened.frames([last + 5])
        assert opened.frames_decoded <= 1 + 6
    with Video(path, hold_bytes=hold_bytes) as opened:
        opened.frames(range(75))
        assert opened.frames_decoded == 75  # no jump back at a keyframe


def test_frames_that_are_not_needed_are_skipped(made: Callable[[str], Path]) -> None:
    # with three B-frames between P-frames, two in four frames are no reference for any other
    with Video(made("open GOP")) as opened:
        opened.frames([96])
        assert opened.frames_decoded <= 15


def test_empty_and_single_indices(made: Callable[[str], Path]) -> None:
    with Video(made("x264 defaults")) as opened:
        assert opened.frames([]).shape[0] == 0
        assert opened.frames([7]).shape == (1, HEIGHT, WIDTH, 3)
        assert (opened.height, opened.width) == (HEIGHT, WIDTH)
        assert opened.nbytes == 60 * HEIGHT * WIDTH * 3


@pytest.mark.parametrize("index", [-1, 60])
def test_a_frame_number_outside_the_video(index: int, made: Callable[[str], Path]) -> None:
    with (
        Video(made("x264 defaults")) as opened,
        pytest.raises(ValueError, match=f"frames 0 to 59, got {index}"),
    ):
        opened.frames([0, index])


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.png", "png", "rgb24"), ("b%d.png", "png", "rgb24"), ("a:b %03d é.jpg", "mjpeg", "yuvj420p")],
)
def test_a_still_image_is_a_video_of_one_frame(name: str, codec: str, pix_fmt: str, tmp_path: Path) -> None:
    # written under a plain name, as the *encoder* would take "%d" for a series
    plain = write_video(tmp_path / "plain.img", 1, codec=codec, pix_fmt=pix_fmt, container="image2")
    with Video(plain.rename(tmp_path / name)) as opened:
        assert opened.num_frames == 1
        frame = opened.frames([0, 0])[1].numpy()
    if codec == "png":
        assert np.array_equal(frame, numbered_frame(0))
    else:
        assert np.abs(frame.astype(int) - numbered_frame(0)).mean() < 10


@pytest.mark.parametrize(("rotation", "quarter_turns"), [(90, 1), (-90, -1), (180, 2)])
def test_recorded_rotation_is_applied(rotation: int, quarter_turns: int, tmp_path: Path) -> None:
    # x264's assembly does not give the same B-frames twice in frames as small as these
    path = write_video(tmp_path / "phone.mp4", 3, options={"bf": "0"}, rotation=rotation)
    upright = write_video(tmp_path / "upright.mp4", 3, options={"bf": "0"})
    with Video(path) as turned, Video(upright) as plain:
        expected = np.rot90(plain.frames([2])[0].numpy(), quarter_turns)  # both count counter-clockwise
        assert np.array_equal(turned.frames([2])[0].numpy(), expected)
        assert (turned.height, turned.width) == expected.shape[:2]


def test_recorded_mirroring_is_applied(tmp_path: Path) -> None:
    unit = 1 << 16
    path = tmp_path / "selfie.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.set_display_matrix([-unit, 0, 0, 0, unit, 0, WIDTH * unit, 0, 1 << 30])  # x' = width − x
        out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered_frame(5), format="rgb24")))
        out.mux(stream.encode(None))
    with Video(path) as opened:
        assert number_of(opened.frames([0])[0].numpy()[:, ::-1]) == 5


def test_a_rotation_by_another_angle_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 2, rotation=30)
    with (
        Video(path) as opened,
        pytest.raises(VideoError, match="not a multiple of 90°; re-encode it upright"),
    ):
        opened.frames([0])


def test_a_change_of_size_is_refused(tmp_path: Path) -> None:
    small = write_video(tmp_path / "a.h264", 5, container="h264")
    large = write_video(tmp_path / "b.h264", 5, container="h264", size=(64, 96))
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with (
        Video(both) as opened,
        pytest.raises(VideoError, match=r"frame 5 \(0.20 s\) is 64×96 after 48×64; re-encode"),
    ):
        opened.frames([0, 5])


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def overwrite(data: bytes, at: int, count: int) -> bytes:
    return data[:at] + np.random.default_rng(1).bytes(count) + data[at + count :]


def faststart(folder: Path) -> bytes:
    whole = write_video(folder / "w.mp4", 60, options={"g": "12"})
    return copy_packets(whole, folder / "fast.mp4", options={"movflags": "faststart"}).read_bytes()


def plain_mp4(folder: Path) -> bytes:
    return write_video(folder / "w.mp4", 60, options={"g": "12"}).read_bytes()


def still(folder: Path, codec: str = "png", pix_fmt: str = "rgb24") -> bytes:
    path = folder / "w.img"
    return write_video(path, 1, codec=codec, pix_fmt=pix_fmt, container="image2").read_bytes()


def sound(folder: Path) -> bytes:
    path = folder / "w.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        for k in range(5):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 44100, k * 1024
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", lambda _: b"", r"is empty \(0 bytes\); get the file again or take it out of the list"),
        ("text.mp4", lambda _: b"clips/a.mp4 3\n" * 50, "is not a video or image that FFmpeg can read"),
        ("list.txt", lambda _: b"clips/a.mp4 3\n" * 50, "is a text file, not a video; name a video file"),
        (
            "garbage.mp4",
            lambda _: np.random.default_rng(0).bytes(20000),
            "is not a video or image that FFmpeg",
        ),
        ("no moov.mp4", lambda folder: cut(plain_mp4(folder)), "is not a video or image .*Invalid data"),
        ("audio.mp4", sound, "has no video stream; is it an audio file"),
        (
            "damaged moov.mp4",
            lambda folder: overwrite(data := plain_mp4(folder), data.index(b"moov") + 20, 380),
            "has no video stream; .* is its index damaged",
        ),
        (
            "unknown codec.mp4",
            lambda folder: plain_mp4(folder).replace(b"avc1", b"zzzz"),
            "is in a video format that this FFmpeg lacks; re-encode it to H.264",
        ),
        (
            "cut faststart.mp4",
            lambda folder: cut(faststart(folder)),
            "is cut short or damaged (at|after) packet",
        ),
        (
            "cut.avi",
            lambda folder: cut(
                write_video(folder / "w.avi", 60, codec="mpeg4", size=(240, 320)).read_bytes()
            ),
            "is cut short or damaged at packet",
        ),
        ("cut.png", lambda folder: still(folder)[:60], "has no keyframe, so that decoding cannot start"),
    ],
)
def test_a_file_that_cannot_be_opened_says_why(
    name: str, content: Callable[[Path], bytes], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content(tmp_path))
    with pytest.raises(VideoError, match=reason) as caught:
        Video(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.path == path


def test_a_missing_file_a_folder_and_a_forbidden_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VideoError, match="gone.mp4: does not exist; check the path"):
        Video(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match="is a folder, not a video"):
        Video(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise av.error.PermissionError(13, "Permission denied")

    monkeypatch.setattr(av, "open", refuse)  # tests may run as root, whom no file refuses
    with pytest.raises(
        VideoError, match="cannot be opened .permission denied.; give your user permission to read it"
    ):
        Video(tmp_path / "secret.mp4")


@pytest.mark.parametrize("hold_bytes", [HELD, SOUGHT], ids=["held", "sought"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_names_the_frame_and_leaves_others_alone(codec: str, hold_bytes: int, tmp_path: Path) -> None:
    path = write_video(
        tmp_path / ("a.mp4" if codec == "libx264" else "a.avi"),
        60,
        codec=codec,
        options={"g": "12"},
        size=(96, 128),
    )
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][30]
        at, size = packet.pos, packet.size
    path.write_bytes(overwrite(path.read_bytes(), at + 8, size - 8))
    with Video(path, hold_bytes=hold_bytes) as opened:
        assert [number_of(frame) for frame in opened.frames([0, 11, 59]).numpy()] == [0, 11, 59]
        with pytest.raises(VideoError, match=r"frame (2\d|3\d) \(1.\d\d s\) is damaged") as caught:
            opened.frames(range(60))
        assert str(path) in str(caught.value)
        with pytest.raises(VideoError, match="is damaged"):
            opened.verify()


def test_damage_in_a_stream_that_is_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.h264", 40, options={"g": "10"}, container="h264", size=(96, 128))
    data = path.read_bytes()
    path.write_bytes(overwrite(data, len(data) * 6 // 10, 20))
    with pytest.raises(VideoError, match=r"(packet|frame) \d+ .*is damaged"):
        Video(path)


def test_verify_passes_a_sound_file(made: Callable[[str], Path]) -> None:
    with Video(made("open GOP mkv")) as opened:
        opened.verify()
        assert opened.frames_decoded == 60


def test_a_decoder_that_outputs_nothing(made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with Video(made("x264 defaults")) as opened:
        monkeypatch.setattr(opened, "_decode_from", lambda *_: iter(()))
        with pytest.raises(VideoError, match=r"frame 3 \(0.12 s\) is not output by the decoder"):
            opened.frames([3])
        later = next(iter(Video._decode_from(opened, (0, 0))))[1]
        monkeypatch.setattr(opened, "_decode_from", lambda *_: iter([(1 << 40, later)]))
        with pytest.raises(VideoError, match=r"frame 3 \(0.12 s\) is not output"):
            opened.frames([3])  # a later frame is no substitute
    monkeypatch.setattr(Video, "_decode_from", lambda *_: iter(()))
    with pytest.raises(VideoError, match="has no frame that can be decoded"):
        Video(made("no time stamps"))


def test_an_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(VideoError("a b.mp4", "is empty", "fetch it")))
    assert str(error) == "a b.mp4: is empty; fetch it"
    assert (error.path, error.reason, error.fix) == (Path("a b.mp4"), "is empty", "fetch it")


def test_ratios_of_any_version() -> None:
    assert as_fraction(Fraction(1, 25), Fraction(7)) == Fraction(1, 25)
    assert as_fraction(None, Fraction(7)) == 7

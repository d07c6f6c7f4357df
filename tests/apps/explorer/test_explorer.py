"""The explorer's server: answers, rejected requests, uploads and the exported page. The page: test_explorer_page.py."""

import asyncio
import base64
import http.client
import io
import json
import os
import re
import signal
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from threading import Lock
from time import sleep
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from support.explorer import CLASSES, saved_run, saved_video, serving
from support.videos import write_packed_avi, write_video

from nlnet.apps.explorer import server as explorer_server
from nlnet.apps.explorer import session as explorer_session
from nlnet.apps.explorer.access import LOOPBACK, SECURITY_HEADERS, reason_to_reject
from nlnet.apps.explorer.command import listening, run_explore, short_names, split_runs_and_videos
from nlnet.apps.explorer.encoding import encode_floats, encode_rows_as_bytes, image_url
from nlnet.apps.explorer.export import bundle_modules, export_page, grid_coordinates
from nlnet.apps.explorer.lru_cache import LRUCache
from nlnet.apps.explorer.server import MODULES, page_file, shown_name
from nlnet.apps.explorer.session import Session, load_run
from nlnet.apps.explorer.uploads import UploadError, Uploads, container_of
from nlnet.apps.verbs import doctor
from nlnet.attention.observe import observe
from nlnet.data import EvalTransform, EvalViews, Video, VideoItem, VideoList, normalize
from nlnet.engine.distributed import world
from nlnet.engine.evaluation.evaluate import evaluate
from nlnet.engine.evaluation.video_views import cut_video, middle_view
from nlnet.errors import NlnetError

LIMIT = 200_000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two runs, a local network and a video."""
    root = tmp_path_factory.mktemp("explorer")
    saved_run(root / "softmax")
    saved_run(root / "dot", "model.pairwise=dot_product")
    saved_run(root / "local", "model.name=i3d_mini")
    saved_video(root / "disc.mp4")
    return root


@pytest.fixture(scope="module")
def explorer(place):
    runs = [place / name for name in ("softmax", "dot", "local")]
    with serving(runs, [place / "disc.mp4"], limit_bytes=LIMIT) as live:
        yield live


def ask(explorer, address, *, method="GET", body=None, **headers):
    """Send one request and return (status, headers, body); header names are written with underscores."""
    connection = http.client.HTTPConnection("127.0.0.1", explorer.port, timeout=30)
    try:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.putrequest(method, address, skip_host="Host" in named)
        for key, value in named.items():
            connection.putheader(key, value)
        if isinstance(body, bytes) and "Content-Length" not in named:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body, encode_chunked=not isinstance(body, bytes | None))
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def told(explorer, address, **options):
    status, _, body = ask(explorer, address, **options)
    assert status == 200, body
    return json.loads(body)


def views(place, run):
    """The views of the video, from the data set that `nlnet test` uses."""
    test = run.config.test
    item = VideoItem(path=place / "disc.mp4", label=None)
    return EvalViews(
        VideoList(items=(item,), classes=(), source=item.path),
        length=8,
        stride=2,
        num_clips=test.clips,
        transform=EvalTransform(test.crop, test.short_side, test.crops, test.protocol),
    )[0]


def weights(text):
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f4").copy())


# --- answers


def test_the_index_names_what_was_given(explorer):
    index = told(explorer, "/api/index")
    assert [run["name"] for run in index["runs"]] == ["softmax", "dot", "local"]
    assert index["runs"][0]["network"] == "i3d_mini_nl1 8x8, iteration 7"
    assert index["runs"][0]["classes"] == list(CLASSES)
    assert (index["runs"][0]["clips"], index["runs"][0]["crops"]) == (2, 3)
    assert index["videos"] == ["disc.mp4"]
    assert index["upload_limit"] == LIMIT


def test_frames_are_what_the_network_is_given_and_carry_the_videos_times(explorer, place):
    clip = told(explorer, "/api/clip?run=0&video=0&view=4")
    assert clip["size"] == [8, 64, 64]
    expected = views(place, explorer.session.runs[0]).clips[4]
    for t, url in enumerate(clip["frames"]):
        kind, data = url.split(",")
        assert kind == "data:image/png;base64"
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert (picture == expected[:, t].permute(1, 2, 0).numpy()).all()
    # view 4 is the centre crop of the second clip, which begins at frame ⌊1·24/2⌋ and wraps round; 25 frames a second
    assert clip["numbers"] == [12, 14, 16, 18, 20, 22, 0, 2]
    assert clip["seconds"] == pytest.approx([n / 25 for n in clip["numbers"]])


@pytest.mark.parametrize("run", [0, 1])
def test_rows_are_those_of_observe(explorer, place, run):
    """Expected: `observe` with the explorer's network on a view that the test reads without the explorer."""
    loaded = explorer.session.runs[run]
    seen = observe(loaded.model, normalize(views(place, loaded).clips[2][None]))
    (path,) = seen.paths
    blocks = told(explorer, f"/api/blocks?run={run}&video=0&view=2")
    assert [block["path"] for block in blocks] == [path]
    assert blocks[0]["keys"] == [axis.tolist() for axis in seen.centres(path)]
    assert blocks[0]["signed"] == (run == 1)
    assert blocks[0]["strongest"] == [list(position) for position in seen.strongest(5, path)]
    for at in ((0, 0, 0), (3, 20, 41), (7, 63, 63)):
        row = told(explorer, f"/api/rows?run={run}&video=0&view=2&at={','.join(map(str, at))}")[path]
        np.testing.assert_allclose(
            weights(row["weights"]), seen.rows([at])[path][0].flatten(), rtol=1e-4, atol=1e-7
        )
        assert row["centre"] == list(seen.query_centre(path, at))
        # a query's centre is among those that the page steps through, axis by axis
        assert all(c in axis for c, axis in zip(row["centre"], blocks[0]["queries"], strict=True))


def test_scores_of_all_views_are_what_a_test_gives(explorer, place):
    run = explorer.session.runs[0]
    item = VideoItem(path=place / "disc.mp4", label=None)
    with world("cpu") as here:
        tested = evaluate(run.model, VideoList((item,), CLASSES, item.path), run.config, world=here).videos[0]
    scores = [told(explorer, f"/api/scores?run=0&video=0&view={view}") for view in range(6)]
    np.testing.assert_allclose(scores, tested.views, rtol=0, atol=1e-6)


def test_a_local_network_has_scores_but_no_blocks(explorer):
    assert told(explorer, "/api/blocks?run=2&video=0&view=0") == []
    assert sum(told(explorer, "/api/scores?run=2&video=0&view=0")) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("address", "status", "message"),
    [
        ("/api/clip?run=9&video=0&view=0", 404, "run 9 does not exist: there are 3, numbered from 0"),
        ("/api/clip?run=0&video=9&view=0", 404, r"video 9 does not exist: there are \d+, numbered from 0"),
        (
            "/api/blocks?run=0&video=0&view=6",
            404,
            "view 6 does not exist: run softmax has 6 of each video, numbered from 0",
        ),
        ("/api/blocks?run=-1&video=0&view=0", 404, "run -1"),
        ("/api/rows?run=0&video=0&view=0&at=1,2", 422, "^at: got '1,2', expected t,y,x as whole numbers"),
        (
            "/api/rows?run=0&video=0&view=0&at=8,0,0",
            400,
            r"position: got \(8, 0, 0\), expected 3 numbers inside the clip's grid \(8, 64, 64\)",
        ),
        (
            "/api/rows?run=2&video=0&view=0&at=0,0,0",
            400,
            "run local has no non-local block, so there is no attention to show",
        ),
        ("/api/clip?run=x&video=0&view=0", 422, "run: "),
        ("/api/nothing", 404, "Not Found"),
    ],
)
def test_requests_that_cannot_be_answered_get_a_message(explorer, address, status, message):
    got, headers, body = ask(explorer, address)
    assert got == status
    assert re.search(message, json.loads(body)["error"])
    assert headers["content-security-policy"] == SECURITY_HEADERS["Content-Security-Policy"]


def test_an_unexpected_error_is_logged_and_its_response_has_no_details(explorer, monkeypatch, caplog):
    """Its response has the headers of every other response; the details are in the log alone."""

    def fail(*_):
        raise RuntimeError("/home/someone/secret.mp4 made the codec fail")

    monkeypatch.setattr(explorer.session, "rows", fail)
    status, headers, body = ask(explorer, "/api/rows?run=0&video=0&view=0&at=0,0,0")
    assert status == 500
    assert json.loads(body) == {
        "error": "The explorer failed to answer this request; the terminal that it runs in shows the error."
    }
    for name, value in SECURITY_HEADERS.items():
        assert headers[name.lower()] == value
    assert "secret.mp4 made the codec fail" in caplog.text
    assert "GET /api/rows" in caplog.text
    assert ask(explorer, "/")[0] == 200


def test_a_click_does_not_read_the_video_again(place, monkeypatch):
    """The caches hold three decoded videos and the attention of eight views; five videos are shown, then the first again."""
    run = load_run(place / "softmax", "softmax", "last", torch.device("cpu"))
    for number in range(5):  # each is a file of its own
        other = place / f"again{number}.mp4"
        other.write_bytes((place / "disc.mp4").read_bytes())
    session = Session([run], [place / f"again{number}.mp4" for number in range(5)], torch.device("cpu"))
    first = session.rows(0, 0, 1, (1, 2, 3)), session.scores(0, 0, 1)
    for video in range(1, 5):
        session.blocks(0, video, 1)
        session.scores(0, video, 1)
    cuts = []
    monkeypatch.setattr(explorer_session, "cut_video", lambda path, *_, **__: cuts.append(path))
    assert (session.rows(0, 0, 1, (1, 2, 3)), session.scores(0, 0, 1)) == first
    assert session.blocks(0, 0, 1)[0]["exact"]
    assert not cuts


def test_videos_added_at_the_same_time_get_different_numbers(explorer, place, monkeypatch):
    """Many threads add videos; asking the list for its length lets another thread run."""

    class Slow(list):
        def __len__(self):
            sleep(0.002)
            return super().__len__()

    session = Session(explorer.session.runs, [], torch.device("cpu"))
    session._videos = Slow()
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda i: session.add(place / "disc.mp4", f"v{i}"), range(16)))
    assert sorted(numbers) == list(range(16))
    assert [session.index()["videos"][number] for number in numbers] == [f"v{i}" for i in range(16)]


# --- access checks


@pytest.mark.parametrize(
    "address", ["/", "/app.js", "/api/index", "/api/rows?run=0&video=0&view=0&at=0,0,0", "/x"]
)
@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Host": "evil.example"}, "is not called 'evil.example'"),
        ({"Host": "127.0.0.1.evil.example:80"}, "is not called"),
        ({"Host": "user@127.0.0.1"}, "is not called"),
        ({"Host": "192.168.0.7"}, "is not called"),
        ({"Host": ""}, "is not called"),
        ({"Origin": "http://evil.example"}, "requests from pages of 'http://evil.example' are rejected"),
        ({"Origin": "null"}, "requests from pages of 'null' are rejected"),
        ({"Sec_Fetch_Site": "cross-site"}, "requests from pages of another site"),
        ({"Sec_Fetch_Site": "same-site"}, "requests from pages of another site"),
    ],
)
def test_requests_of_foreign_pages_are_rejected(explorer, address, headers, message):
    status, answered, body = ask(explorer, address, **headers)
    assert status == 403
    assert message in json.loads(body)["error"]
    assert not [name for name in answered if name.startswith("access-control")]


def test_a_foreign_page_cannot_upload(explorer):
    status, _, _ = ask(explorer, "/api/videos", method="POST", body=b"x" * 100, Origin="http://evil.example")
    assert status == 403
    preflight, headers, _ = ask(explorer, "/api/videos", method="OPTIONS", Origin="http://evil.example")
    assert preflight == 403
    assert "access-control-allow-origin" not in headers


def test_the_page_itself_and_a_link_to_it_are_served(explorer):
    here = f"127.0.0.1:{explorer.port}"
    for headers in (
        {"Host": here, "Origin": f"http://{here}", "Sec_Fetch_Site": "same-origin"},
        {"Host": f"localhost:{explorer.port}"},
        {"Host": f"[::1]:{explorer.port}"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
    ):
        status, answered, body = ask(explorer, "/", **headers)
        assert status == 200, body
        for name, value in SECURITY_HEADERS.items():
            assert answered[name.lower()] == value


def test_host_names_that_are_accepted_off_loopback():
    """A name server cannot redirect a numeric address, so it is accepted if the server is not bound to loopback only."""
    names = LOOPBACK | {"lab7"}
    for host, loopback, good in (
        ("lab7:80", False, True),
        ("10.0.0.4:80", False, True),
        ("[fe80::1]:80", False, True),
        ("10.0.0.4:80", True, False),
        ("evil.example", False, False),
        ("LAB7", False, True),
        ("lab7:port", False, False),
    ):
        why = reason_to_reject({"host": host}, scheme="http", names=names, loopback=loopback)
        assert (why is None) == good, host
    assert reason_to_reject(
        {"host": "lab7", "origin": "https://lab7"}, scheme="http", names=names, loopback=False
    )


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/..%2f..%2fserver.py",
        "/page/../server.py",
        "//etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
        "/server.py",
        "/docs",
        "/openapi.json",
        "/style.css/../index.html",
        "/disc.mp4",
    ],
)
def test_only_the_files_of_the_page_are_served(explorer, path):
    status, _, body = ask(explorer, path)
    assert status == 404
    assert json.loads(body) == {"error": "Not Found"}


def test_the_page_names_no_other_host():
    for name in ("index.html", "style.css", *MODULES):
        text = page_file(name).replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert not re.search(r"https?://|//[a-z]+\.[a-z]|@import|url\(", text), name
        assert "style=" not in text  # the policy forbids it


# --- uploads


def upload(explorer, content, name="clip.mp4", **headers):
    status, _, body = ask(
        explorer, "/api/videos", method="POST", body=content, X_File_Name=quote(name), **headers
    )
    return status, json.loads(body)


def test_a_video_is_uploaded_and_explored(explorer, tmp_path):
    path = saved_video(tmp_path / "new.mp4", count=20)
    status, taken = upload(explorer, path.read_bytes(), "../../täglich <b>.mp4")
    assert status == 200, taken
    assert taken["name"] == "täglich <b>.mp4"
    assert told(explorer, "/api/index")["videos"][taken["video"]] == "täglich <b>.mp4"
    assert told(explorer, f"/api/clip?run=0&video={taken['video']}&view=0")["numbers"][:3] == [0, 2, 4]
    assert [file.parent for file in explorer.uploads.path.iterdir()] == [explorer.uploads.path]


def stored(explorer):
    return (
        explorer.uploads.count,
        len(list(explorer.uploads.path.iterdir())),
        told(explorer, "/api/index")["videos"],
    )


PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 415, "not a video file that can be uploaded"),
        (b"not a video at all" * 50, 415, "not a video file that can be uploaded"),
        (PLAYLIST, 415, "not a video file that can be uploaded"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", 415, "not a video file that can be uploaded"),
        (
            b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 20,
            422,
            "is not a video or image that FFmpeg can read",
        ),
        (b"x" * (LIMIT + 1), 413, r"larger than the limit of 0.2 MB"),
        (iter([b"\x00\x00\x00\x18ftypmp42", *[b"y" * 50_000] * 5]), 413, "larger than the limit"),
    ],
    ids=["empty", "text", "playlist", "script", "garbage", "announced", "streamed"],
)
def test_a_bad_upload_gets_a_message_and_leaves_no_file(explorer, content, status, message):
    before = stored(explorer)
    options = {} if isinstance(content, bytes) else {"Transfer_Encoding": "chunked"}
    got, answer = upload(explorer, content, **options)
    assert got == status, answer
    assert re.search(message, answer["error"])
    assert str(explorer.uploads.path) not in answer["error"]
    assert stored(explorer) == before


def black(number, height, width):
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "count"), [((2160, 3840), 3), ((16, 4096), 24)], ids=["large frames", "long sides"]
)
def test_a_small_file_of_large_frames_is_rejected_before_they_are_decoded(
    explorer, place, tmp_path, monkeypatch, size, count
):
    """3840×2160 pixels are 25 MB a frame. 4096×16 at a short side of 72 are 18432×72, 4 MB a frame, 24 of them 96 MB."""
    path = write_video(tmp_path / "bomb.mp4", count, size=size, draw=black)
    assert path.stat().st_size < LIMIT
    monkeypatch.setattr(explorer_server, "MAX_FRAME_BYTES", 20 * 10**6)
    before = stored(explorer)
    decoded = []
    iter_frames = Video.iter_frames
    monkeypatch.setattr(
        Video, "iter_frames", lambda self, numbers: decoded.append(numbers) or iter_frames(self, numbers)
    )
    status, answer = upload(explorer, path.read_bytes())
    assert status == 413
    assert re.search(
        r"its frames are too large: \d+ of them would take \d+ MB, and the limit for an upload is 20 MB; .*command line, where there is no limit",
        answer["error"],
    )
    assert not decoded
    assert stored(explorer) == before
    session = Session(explorer.session.runs, [path], torch.device("cpu"))  # named on the command line
    assert session.clip(0, 0, 0)["size"] == [8, 64, 64]


def test_few_full_size_frames_are_in_memory_at_a_time(tmp_path, explorer):
    """20 frames of 1920×1080 are 124 MB; in memory are one of them and twenty of 128×72."""
    path = write_video(tmp_path / "hd.mp4", 20, size=(1080, 1920), draw=black)
    config = explorer.session.runs[0].config
    tracemalloc.start()
    cut = cut_video(path, config, limit_bytes=10 * 10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(cut) == 6
    assert cut.view(5).shape == (3, 8, 64, 64)
    assert peak < 30 * 10**6


def test_a_truncated_upload_gets_a_message_and_the_server_goes_on(explorer, tmp_path):
    whole = saved_video(tmp_path / "whole.mp4").read_bytes()
    before = stored(explorer)
    status, answer = upload(explorer, whole[: len(whole) // 2])
    assert (status, "FFmpeg" in answer["error"] or "cut short" in answer["error"]) == (422, True)
    assert stored(explorer) == before
    assert ask(explorer, "/")[0] == 200


def test_a_disconnected_upload_leaves_no_file(explorer):
    before = stored(explorer)
    connection = http.client.HTTPConnection("127.0.0.1", explorer.port, timeout=30)
    connection.putrequest("POST", "/api/videos")
    connection.putheader("Content-Length", "100000")
    connection.endheaders(b"\x00\x00\x00\x18ftypmp42")
    connection.close()
    for _ in range(200):
        sleep(0.01)
        if stored(explorer) == before:
            break
    assert stored(explorer) == before


async def pieces(*parts):
    for part in parts:
        yield part


def test_uploads_are_limited_in_number_and_their_folder_is_deleted(monkeypatch):
    monkeypatch.setattr("nlnet.apps.explorer.uploads.MAX_UPLOADS", 2)
    head = b"\x1a\x45\xdf\xa3" + bytes(400)
    with Uploads(1000) as uploads:
        for _ in range(2):
            path = asyncio.run(uploads.receive(pieces(head[:3], head[3:]), None))
            assert path.read_bytes() == head
        with pytest.raises(UploadError, match="2 videos have been uploaded, which is the limit"):
            asyncio.run(uploads.receive(pieces(head), None))
        uploads.discard(path)
        asyncio.run(uploads.receive(pieces(head), None))
    assert not uploads.path.exists()


def test_a_full_disk_gets_a_message(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Uploads(1000) as uploads:
        monkeypatch.setattr(Uploads, "_write", full)
        with pytest.raises(UploadError, match=r"cannot be stored \(No space left on device\)") as refused:
            asyncio.run(uploads.receive(pieces(b""), None))
        assert refused.value.status == 507
        assert uploads.count == 0
        assert not list(uploads.path.iterdir())


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mov", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.mpg", "mpeg1video", "yuv420p"),
        ("a.flv", "flv", "yuv420p"),
        ("a.wmv", "wmv2", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_real_containers_are_recognised_by_their_first_bytes(tmp_path, name, codec, pixels):
    path = write_video(tmp_path / name, 3, codec=codec, pix_fmt=pixels)
    assert container_of(path.read_bytes()[:400])


def test_an_avi_is_recognised_and_other_files_are_not(tmp_path):
    assert container_of(write_packed_avi(tmp_path / "a.avi", 5).read_bytes()[:400]) == "avi"
    for head in (
        b"",
        b"G",
        PLAYLIST,
        b"<?xml",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"[playlist]",
        b"G" + bytes(400),
    ):
        assert container_of(head) is None


def test_names_of_uploads_for_display():
    assert shown_name("") == "uploaded video"
    assert shown_name(quote("C:\\films\\a.mp4")) == "a.mp4"
    assert shown_name(quote("a\nb\x00.mp4")) == "ab.mp4"
    assert len(shown_name("x" * 500)) == 120


# --- the cache and the encoding


def test_a_value_is_computed_once_however_many_threads_ask():
    computed, cache = [], LRUCache(2, Lock())

    def compute():
        sleep(0.02)
        computed.append(1)
        return "value"

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: cache.get("key", compute), range(8))) == {"value"}
    assert len(computed) == 1


def test_the_least_recently_used_value_is_dropped_and_errors_are_not_cached():
    cache = LRUCache(2, Lock())
    for key in ("a", "b", "a", "c"):  # b is now the least recently used
        cache.get(key, lambda key=key: key)
    made = []
    for key in ("a", "c", "b"):
        cache.get(key, lambda key=key: made.append(key))
    assert made == ["b"]
    with pytest.raises(OSError, match="once"):
        cache.get("d", lambda: (_ for _ in ()).throw(OSError("once")))
    assert cache.get("d", lambda: 4) == 4


def test_a_cached_value_is_returned_while_another_is_computed():
    """A click must not wait for a forward pass."""
    computing = Lock()
    cache = LRUCache(2, computing)
    cache.get("cached", lambda: 1)
    with computing:
        assert cache.get("cached", lambda: 2) == 1


def test_floats_are_encoded_without_loss():
    row = torch.randn(3, 4)
    assert torch.equal(weights(encode_floats(row)), row.flatten())


@given(arrays(np.float32, (3, 7), elements=st.floats(-1e3, 1e3, width=32)), st.booleans())
def test_bytes_are_off_by_at_most_half_a_level(rows, signed):
    rows = rows if signed else np.abs(rows)
    sent = encode_rows_as_bytes(torch.from_numpy(rows), signed=signed)
    levels = np.frombuffer(base64.b64decode(sent["bytes"]), "i1" if signed else "u1").reshape(3, 7)
    got = levels * weights(sent["factors"]).numpy()[:, None].astype(np.float64)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    bound = (
        largest / (254 if signed else 510) * (1 + 1e-5) + 1e-37
    )  # the last for factors below float32's normal range
    assert (np.abs(got - rows) <= bound).all()


def test_large_frames_are_sent_as_jpeg_and_look_the_same():
    y, x = np.mgrid[:120, :160]
    frame = np.stack([y, x, 128 + 0 * x]).astype(np.uint8)
    kind, data = image_url(torch.from_numpy(frame)).split(",")
    assert kind == "data:image/jpeg;base64"
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).transpose(2, 0, 1).astype(int)
    assert np.abs(seen - frame).max() <= 8


# --- the exported page


def exported_answers(path):
    found = re.search(
        r'<script type="application/json" id="answers">(.*?)</script>', path.read_text(), re.DOTALL
    )
    return json.loads(found[1])


def test_the_exported_rows_are_those_of_the_server(explorer, place, tmp_path):
    session = Session(explorer.session.runs, [place / "disc.mp4"], torch.device("cpu"))
    steps = []
    size = export_page(session, tmp_path / "page.html", grid=3, on_step=lambda *step: steps.append(step))
    assert size == (tmp_path / "page.html").stat().st_size
    assert steps[-1] == (18, 18)
    answers = exported_answers(tmp_path / "page.html")
    assert answers["entries"]["2/0"]["rows"] == {}
    for run in (0, 1):
        entry = answers["entries"][f"{run}/0"]
        assert entry["view"] == 1  # the first clip of two, the centre crop
        assert entry["positions"] == [
            list(range(8)),
            [10, 32, 53],
            [10, 32, 53],
        ]  # middles of thirds of 64: 10⅔, 32, 53⅓
        (block,) = entry["blocks"]
        row = entry["rows"][block["path"]]
        levels = np.frombuffer(base64.b64decode(row["bytes"]), "i1" if row["signed"] else "u1")
        factors = weights(row["factors"])
        count = np.prod([len(axis) for axis in block["keys"]])
        for index in ((0, 0, 0), (3, 1, 2), (7, 2, 0)):
            at = [axis[i] for axis, i in zip(entry["positions"], index, strict=True)]
            cell = [axis[i] for axis, i in zip(row["cells"], index, strict=True)]
            number = (cell[0] * len(row["centres"][1]) + cell[1]) * len(row["centres"][2]) + cell[2]
            got = torch.from_numpy(levels[number * count : (number + 1) * count].copy()) * factors[number]
            exact = session.rows(run, 0, 1, at)[block["path"]]
            assert [axis[c] for axis, c in zip(row["centres"], cell, strict=True)] == list(exact["centre"])
            error = (got - weights(exact["weights"])).abs().max()
            assert error <= weights(exact["weights"]).abs().max() / (254 if row["signed"] else 510) * 1.001
        assert len(entry["scores"]) == 6


def test_the_exported_view_is_the_middle_one():
    """The centre crop of the middle clip: of two middle clips the earlier one."""
    assert [middle_view(*counts) for counts in ((1, 1), (2, 3), (3, 1), (10, 3))] == [0, 1, 1, 13]


def test_coordinates_of_a_grid():
    assert grid_coordinates(8, 4) == [1, 3, 5, 7]
    assert grid_coordinates(3, 8) == [0, 1, 2]
    assert grid_coordinates(224, 1) == [112]


def test_modules_are_bundled_into_one_script_without_imports():
    script = bundle_modules(MODULES)
    assert "import " not in re.sub(r"//.*", "", script)
    assert not re.search(r"^export ", script, re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|class|const|let) (\w+)", script, re.MULTILINE)
    assert len(names) == len(set(names))


def test_an_exported_page_needs_a_video_and_a_grid(explorer, place, tmp_path):
    session = Session(explorer.session.runs, [], torch.device("cpu"))
    with pytest.raises(NlnetError, match="--export: no video was given"):
        export_page(session, tmp_path / "p.html", grid=3)
    session = Session(explorer.session.runs, [place / "disc.mp4"], torch.device("cpu"))
    with pytest.raises(NlnetError, match="--grid: got 0, expected 1 or more"):
        export_page(session, tmp_path / "p.html", grid=0)
    with pytest.raises(NlnetError, match="no run to explore"):
        Session([], [], torch.device("cpu"))


# --- the command


def test_runs_and_videos_are_told_apart(place, tmp_path):
    (tmp_path / "frames").mkdir()
    checkpoint = place / "dot" / "checkpoints" / "last.safetensors"
    given_ = [place / "softmax", place / "disc.mp4", checkpoint, tmp_path / "frames"]
    assert split_runs_and_videos(given_) == ([given_[0], given_[2]], [given_[1], given_[3]])
    with pytest.raises(NlnetError, match="/no/run: no such file; expected run directories or checkpoints"):
        split_runs_and_videos([Path("/no/run")])
    with pytest.raises(NlnetError, match="no run to explore: give a run directory"):
        split_runs_and_videos([place / "disc.mp4"])
    assert short_names([Path("/a/one"), Path("/b/one"), Path("/b/two")]) == ["/a/one", "/b/one", "two"]


def test_a_port_in_use_gets_a_message():
    with listening("127.0.0.1", 0) as taken:
        again = listening("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(
            NlnetError, match=r"cannot listen on 127.0.0.1 port \d+ .*choose another port with --port"
        ):
            again.__enter__()
    with pytest.raises(NlnetError, match="cannot listen on no.such.host.invalid port 1 "):
        listening("no.such.host.invalid", 1).__enter__()


def test_the_command_serves_until_sigterm_and_removes_uploads(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = {}

    def visit():
        """Upload a video, then end the server like `kill`."""
        text = ""
        while not text.endswith("}\n"):
            sleep(0.02)
            text += capsys.readouterr().out
        live = SimpleNamespace(port=int(json.loads(text)["url"].split(":")[2].strip("/")))
        try:
            seen["answer"] = upload(live, (place / "disc.mp4").read_bytes())
            seen["kept"] = list(tmp_path.glob("nlnet-explore-*/*"))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        visitor = pool.submit(visit)
        with pytest.raises(KeyboardInterrupt):
            run_explore([place / "softmax", place / "disc.mp4"], **OPTIONS)
        visitor.result()
    assert seen["answer"] == (200, {"video": 1, "name": "clip.mp4"})
    assert len(seen["kept"]) == 1
    assert not list(tmp_path.iterdir())


OPTIONS = {
    "host": "127.0.0.1",
    "port": 0,
    "open_browser": False,
    "checkpoint": "last",
    "device": "cpu",
    "upload_limit_mb": 1,
    "export": None,
    "grid": 2,
    "as_json": True,
}


def test_the_command_exports_a_page_and_prints_its_size(place, tmp_path, capsys):
    page = tmp_path / "page.html"
    run_explore([place / "softmax", place / "disc.mp4"], **OPTIONS | {"export": page})
    assert json.loads(capsys.readouterr().out) == {"page": str(page), "bytes": page.stat().st_size}
    run_explore([place / "softmax", place / "disc.mp4"], **OPTIONS | {"export": page, "as_json": False})
    assert f"{page.stat().st_size / 1e6:.2f} MB" in " ".join(capsys.readouterr().out.split())


def test_doctor_reports_whether_the_explorer_can_start(monkeypatch):
    assert doctor.check_explorer().startswith("fastapi ")

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", version)
    assert "(only `nlnet explore` needs it): pip install 'nlnet[explore]'" in doctor.check_explorer()

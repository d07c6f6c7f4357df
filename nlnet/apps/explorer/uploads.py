"""Videos that are dropped on the page: streamed to a temporary folder, limited in size and number."""

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType

HEAD_BYTES = 400
LARGEST_NUMBER = 32
"""Uploads that are kept at a time; each may be as large as the limit."""
LARGEST_FRAMES = 512 * 10**6
"""Bytes that the frames of an upload may take (`nlnet.engine.evaluation.video_views.check_size`), however small its file is."""


class UploadRefused(ValueError):
    """An upload that is not taken, with the HTTP status that says so."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Uploads:
    """A temporary folder of uploaded videos. A context manager: the folder is gone afterwards."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.count = limit_bytes, 0
        self._folder = tempfile.TemporaryDirectory(prefix="nlnet-explore-")
        self.path = Path(self._folder.name)

    def __enter__(self) -> "Uploads":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    async def receive(self, chunks: AsyncIterator[bytes], announced: int | None) -> Path:
        """Write an upload to a file of its own, whose name owes nothing to the sender.

        Raises:
            UploadRefused: larger than the limit (whatever size was announced), no known video container, too many
                uploads, or no room on the disk. Nothing of it is kept.
        """
        if announced is not None and announced > self.limit_bytes:
            raise self._too_large()
        if self.count >= LARGEST_NUMBER:
            raise UploadRefused(
                f"{LARGEST_NUMBER} videos have been uploaded, which is the limit; start again", 429
            )
        self.count += 1
        handle, name = tempfile.mkstemp(dir=self.path)
        os.close(handle)
        path = Path(name)
        try:
            await self._write(path, chunks)
        except BaseException as error:  # also where the sender goes away
            self.discard(path)
            if isinstance(error, OSError):
                raise UploadRefused(f"the upload cannot be stored ({error.strerror})", 507) from None
            raise
        return path

    def discard(self, path: Path) -> None:
        """Remove an upload that turned out useless."""
        path.unlink(missing_ok=True)
        self.count -= 1

    async def _write(self, path: Path, chunks: AsyncIterator[bytes]) -> None:
        head, size = b"", 0
        with path.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > self.limit_bytes:
                    raise self._too_large()
                head = head + chunk if len(head) < HEAD_BYTES else head
                file.write(chunk)
        if container_of(head) is None:
            raise UploadRefused(
                "this is not a video file that can be uploaded (MP4, MOV, WebM, MKV, AVI, MPEG, OGG, FLV, WMV, GIF)",
                415,
            )

    def _too_large(self) -> UploadRefused:
        limit = self.limit_bytes / 1e6
        return UploadRefused(f"the video is larger than the limit of {limit:g} MB (--upload-limit)", 413)


def container_of(head: bytes) -> str | None:
    """The container format that a file's first bytes announce; None for all others.

    FFmpeg reads playlists and scripts as well, which name other files or addresses to open: those are why an
    upload has to begin as a container of its own.
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return "mp4"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if (head[:1] == b"G" and head[188:189] == b"G") or (head[4:5] == b"G" and head[196:197] == b"G"):
        return "mpegts"
    for start, name in STARTS.items():
        if head.startswith(start):
            return name
    return None


STARTS = {
    b"\x1a\x45\xdf\xa3": "matroska",
    b"\x00\x00\x01\xba": "mpeg",
    b"\x00\x00\x01\xb3": "mpeg",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
    b"OggS": "ogg",
    b"FLV\x01": "flv",
    b"GIF8": "gif",
}

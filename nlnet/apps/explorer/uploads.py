"""Videos dropped on the page: streamed into a temporary folder, limited in size and number."""

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType

from nlnet.errors import NlnetError

HEAD_BYTES = 400
"""First bytes of a file that are enough to recognise its container: MPEG-TS repeats its sync byte after 188 or 192."""
MAX_UPLOADS = 32
"""Uploads stored at the same time; each may have the full size limit."""
MAX_FRAME_BYTES = 512 * 10**6
"""Largest memory for the decoded frames of an upload (see `check_size` in engine/evaluation/video_views.py).

A file of a few kilobytes can decode to gigabytes, so the file size alone is no limit.
"""


class UploadError(NlnetError):
    """An upload that is rejected, with the HTTP status of the response."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Uploads:
    """A temporary folder of uploaded videos. A context manager: the folder is deleted at its end."""

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
        """Write an upload to a file with a random name.

        Args:
            announced: the Content-Length of the request, if it has one.

        Raises:
            UploadError: larger than the limit, not a video container, too many uploads, or a full disk. No part of
                the upload remains.
        """
        # saves receiving the bytes; `_write` counts them too, since the header may be absent or wrong
        if announced is not None and announced > self.limit_bytes:
            raise self._too_large()
        if self.count >= MAX_UPLOADS:
            raise UploadError(
                f"{MAX_UPLOADS} videos have been uploaded, which is the limit; restart nlnet explore", 429
            )
        # counted before the first await, so that uploads at the same time cannot exceed the limit together
        self.count += 1
        # a random name: the sender's name could contain a path
        handle, name = tempfile.mkstemp(dir=self.path)
        os.close(handle)
        path = Path(name)
        try:
            await self._write(path, chunks)
        except BaseException as error:  # BaseException: also the cancellation when the sender disconnects
            self.discard(path)
            if isinstance(error, OSError):
                raise UploadError(f"the upload cannot be stored ({error.strerror})", 507) from None
            raise
        return path

    def discard(self, path: Path) -> None:
        """Delete an upload that cannot be used."""
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
            raise UploadError(
                "this is not a video file that can be uploaded; expected MP4, MOV, WebM, MKV, AVI, MPEG, OGG, FLV, "
                "WMV or GIF",
                415,
            )

    def _too_large(self) -> UploadError:
        limit = self.limit_bytes / 1e6
        return UploadError(f"the video is larger than the limit of {limit:g} MB (--upload-limit)", 413)


def container_of(head: bytes) -> str | None:
    """The video container that the first bytes of a file belong to; None for any other file.

    FFmpeg also reads playlists and scripts that name other files or addresses to open. An upload of that kind could
    read any file of this machine, so only files that are containers themselves are accepted.
    """
    # bytes 4 to 8 of an MP4 or MOV file are the type of its first box
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return "mp4"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    # MPEG-TS: a sync byte "G" every 188 bytes, or every 192 with a time stamp of 4 bytes before it
    if (head[:1] == b"G" and head[188:189] == b"G") or (head[4:5] == b"G" and head[196:197] == b"G"):
        return "mpegts"
    for start, name in SIGNATURES.items():
        if head.startswith(start):
            return name
    return None


SIGNATURES = {
    b"\x1a\x45\xdf\xa3": "matroska",
    b"\x00\x00\x01\xba": "mpeg",
    b"\x00\x00\x01\xb3": "mpeg",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
    b"OggS": "ogg",
    b"FLV\x01": "flv",
    b"GIF8": "gif",
}
"""First bytes of the other containers."""

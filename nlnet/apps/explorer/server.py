"""The explorer's HTTP server: the files of the page, the answers of the session as JSON, and uploads."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from nlnet.apps.explorer.access import AccessCheck
from nlnet.apps.explorer.session import NotFoundError, Session
from nlnet.apps.explorer.uploads import MAX_FRAME_BYTES, UploadError, Uploads
from nlnet.engine.evaluation.video_views import UnreadableVideoError, VideoTooLargeError
from nlnet.errors import NlnetError

MODULES = (
    "geometry.js",
    "state.js",
    "source.js",
    "heatmap.js",
    "arrows.js",
    "figure.js",
    "png.js",
    "lists.js",
    "player.js",
    "predictions.js",
    "requests.js",
    "input.js",
    "pane.js",
    "toolbar.js",
    "app.js",
)
"""The page's JavaScript modules, each after those that it imports: `bundle_modules` in export.py relies on that order."""
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page_file(name: str) -> str:
    """Read a file of the page from the installed package."""
    return (files("nlnet.apps.explorer") / "page" / name).read_text("utf-8")


def check_position(text: str) -> str:
    """Check that `text` is three whole numbers "t,y,x"; FastAPI turns the error into a response with status 422."""
    if len(text.split(",")) != 3 or not all(part.strip().isdecimal() for part in text.split(",")):
        raise NlnetError(f"got {text!r}, expected t,y,x as whole numbers")
    return text


At = Annotated[str, AfterValidator(check_position)]


def create_app(session: Session, uploads: Uploads, *, names: frozenset[str], loopback: bool) -> FastAPI:
    """Create the web application.

    Args:
        names, loopback: the host names that it accepts (`reason_to_reject` in access.py).
    """
    # no generated API documentation: it loads scripts from other hosts
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(AccessCheck, names=names, loopback=loopback)
    serve_page(app)

    # The functions without "async" run in a thread pool: several may be in the session at the same time.

    @app.get("/api/index")
    def index() -> dict[str, Any]:
        return session.index() | {"upload_limit": uploads.limit_bytes}

    @app.get("/api/clip")
    def clip(run: int, video: int, view: int) -> Response:
        return json_response(session.clip(run, video, view))

    @app.get("/api/blocks")
    def blocks(run: int, video: int, view: int) -> Response:
        return json_response(session.blocks(run, video, view))

    @app.get("/api/rows")
    def rows(run: int, video: int, view: int, at: At) -> Response:
        return json_response(session.rows(run, video, view, [int(part) for part in at.split(",")]))

    @app.get("/api/scores")
    def scores(run: int, video: int, view: int) -> Response:
        return json_response(session.scores(run, video, view))

    @app.post("/api/videos")
    async def upload(request: Request) -> dict[str, Any]:
        announced = request.headers.get("content-length", "")
        path = await uploads.receive(request.stream(), int(announced) if announced.isdecimal() else None)
        name = shown_name(request.headers.get("x-file-name", ""))
        try:
            # decoding takes seconds: in a thread, so that the event loop goes on answering
            video = await run_in_threadpool(session.add, path, name, MAX_FRAME_BYTES)
        except Exception:
            uploads.discard(path)
            raise
        return {"video": video, "name": name}

    # the handler of the most specific class is called; any other exception is a bug, which AccessCheck answers with 500
    app.add_exception_handler(NotFoundError, error_handler(404))
    app.add_exception_handler(UnreadableVideoError, handle_unreadable_video)
    app.add_exception_handler(VideoTooLargeError, error_handler(413))
    app.add_exception_handler(NlnetError, error_handler(400))
    app.add_exception_handler(HTTPException, handle_http_error)
    app.add_exception_handler(UploadError, handle_upload_error)
    app.add_exception_handler(RequestValidationError, handle_invalid_request)
    app.add_exception_handler(ClientDisconnect, error_handler(400))
    return app


def serve_page(app: FastAPI) -> None:
    """Add one route for each file of the page, so that no path of a request is ever looked up on the disk."""

    def serve(address: str, name: str) -> None:
        content, media_type = page_file(name).encode(), MEDIA_TYPES[Path(name).suffix]
        app.get(address)(lambda: Response(content, media_type=f"{media_type}; charset=utf-8"))

    serve("/", "index.html")
    for name in ("style.css", "icon.svg", *MODULES):
        serve(f"/{name}", name)


def json_response(value: Any) -> Response:
    """A JSON response made by `json` alone: FastAPI's own conversion is slow for thousands of numbers."""
    return Response(json.dumps(value, separators=(",", ":"), allow_nan=False), media_type="application/json")


def shown_name(header: str) -> str:
    """The file name of an upload as the sender gives it (percent-encoded); it is displayed and never opened."""
    name = Path(unquote(header).replace("\\", "/")).name
    return "".join(letter for letter in name if letter.isprintable())[:120] or "uploaded video"


def error_handler(status: int) -> Any:
    """An exception handler that responds with the exception's message and an HTTP status."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=status)

    return handle


async def handle_unreadable_video(request: Request, error: Any) -> JSONResponse:
    """Respond with the reason without the path: an upload lies in a private temporary folder."""
    return JSONResponse({"error": error.reason}, status_code=422)


async def handle_upload_error(request: Request, error: Any) -> JSONResponse:
    """Respond with the message and the status of an `UploadError`."""
    return JSONResponse({"error": str(error)}, status_code=error.status)


async def handle_http_error(request: Request, error: Any) -> JSONResponse:
    """Respond to an unknown address or method with the same JSON as to other errors."""
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def handle_invalid_request(request: Request, error: Any) -> JSONResponse:
    """Respond with all parameters that are missing or invalid."""
    reasons = (f"{e['loc'][-1]}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors())
    return JSONResponse({"error": "; ".join(reasons)}, status_code=422)

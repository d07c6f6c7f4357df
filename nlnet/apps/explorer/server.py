"""The explorer's server: the page's files, the session's answers, and the uploads. It writes nothing else."""

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

from nlnet.apps.explorer.guard import Guard
from nlnet.apps.explorer.session import NotHere, Session
from nlnet.apps.explorer.uploads import LARGEST_FRAMES, UploadRefused, Uploads
from nlnet.engine.evaluation.video_views import TooLarge, Unreadable

MODULES = (
    "scene.js",
    "state.js",
    "source.js",
    "heat.js",
    "figure.js",
    "panels.js",
    "player.js",
    "predictions.js",
    "latest.js",
    "stage.js",
    "pane.js",
    "toolbar.js",
    "app.js",
)
"""The page's JavaScript: each module imports earlier ones only."""
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def page_file(name: str) -> str:
    """A file of the page, which comes with the package."""
    return (files("nlnet.apps.explorer") / "page" / name).read_text("utf-8")


def three_numbers(text: str) -> str:
    if len(text.split(",")) != 3 or not all(part.strip().isdecimal() for part in text.split(",")):
        raise ValueError(f"got {text!r}, expected t,y,x as whole numbers")
    return text


At = Annotated[str, AfterValidator(three_numbers)]


def create_app(session: Session, uploads: Uploads, *, names: frozenset[str], loopback: bool) -> FastAPI:
    """The application. `names` and `loopback` are what `guard.refusal` lets through."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, names=names, loopback=loopback)
    serve_page(app)

    @app.get("/api/index")
    def index() -> dict[str, Any]:
        return session.index() | {"upload_limit": uploads.limit_bytes}

    @app.get("/api/clip")
    def clip(run: int, video: int, view: int) -> Response:
        return answer(session.clip(run, video, view))

    @app.get("/api/blocks")
    def blocks(run: int, video: int, view: int) -> Response:
        return answer(session.blocks(run, video, view))

    @app.get("/api/rows")
    def rows(run: int, video: int, view: int, at: At) -> Response:
        return answer(session.rows(run, video, view, [int(part) for part in at.split(",")]))

    @app.get("/api/scores")
    def scores(run: int, video: int, view: int) -> Response:
        return answer(session.scores(run, video, view))

    @app.post("/api/videos")
    async def upload(request: Request) -> dict[str, Any]:
        announced = request.headers.get("content-length", "")
        path = await uploads.receive(request.stream(), int(announced) if announced.isdecimal() else None)
        name = shown_name(request.headers.get("x-file-name", ""))
        try:
            video = await run_in_threadpool(session.add, path, name, LARGEST_FRAMES)
        except Exception:
            uploads.discard(path)
            raise
        return {"video": video, "name": name}

    app.add_exception_handler(NotHere, problem(404))
    app.add_exception_handler(Unreadable, unreadable)
    app.add_exception_handler(TooLarge, problem(413))
    app.add_exception_handler(ValueError, problem(400))
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(UploadRefused, refused)
    app.add_exception_handler(RequestValidationError, misunderstood)
    app.add_exception_handler(ClientDisconnect, problem(400))
    return app


def serve_page(app: FastAPI) -> None:
    """One route for each file, so that no path of a request is ever looked up on the disk."""

    def serve(address: str, name: str) -> None:
        content, kind = page_file(name).encode(), TYPES[Path(name).suffix]
        app.get(address)(lambda: Response(content, media_type=f"{kind}; charset=utf-8"))

    serve("/", "index.html")
    for name in ("style.css", "icon.svg", *MODULES):
        serve(f"/{name}", name)


def answer(value: Any) -> Response:
    """JSON as it is: FastAPI would walk through every value first."""
    return Response(json.dumps(value, separators=(",", ":"), allow_nan=False), media_type="application/json")


def shown_name(header: str) -> str:
    """The file name that the sender gives (percent-encoded), for display only."""
    name = Path(unquote(header).replace("\\", "/")).name
    return "".join(letter for letter in name if letter.isprintable())[:120] or "uploaded video"


def problem(status: int) -> Any:
    """A handler that answers with the error's own message."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=status)

    return handle


async def unreadable(request: Request, error: Any) -> JSONResponse:
    """The reason without the path: that of an upload is this machine's own affair."""
    return JSONResponse({"error": error.reason}, status_code=422)


async def refused(request: Request, error: Any) -> JSONResponse:
    if isinstance(error, UploadRefused):
        return JSONResponse({"error": str(error)}, status_code=error.status)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def misunderstood(request: Request, error: Any) -> JSONResponse:
    reasons = "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
    return JSONResponse({"error": reasons}, status_code=422)

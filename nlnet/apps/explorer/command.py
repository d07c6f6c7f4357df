"""`nlnet explore`: load runs, then serve the page until Ctrl-C, or export it to a file."""

import socket
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import uvicorn

from nlnet.apps.console import ERR, OUT, bar, print_json
from nlnet.apps.explorer.access import LOOPBACK
from nlnet.apps.explorer.export import export_page
from nlnet.apps.explorer.server import create_app
from nlnet.apps.explorer.session import Session, load_run
from nlnet.apps.explorer.uploads import Uploads
from nlnet.engine.distributed import choose_device
from nlnet.engine.signals import sigterm_raises
from nlnet.errors import NlnetError


def run_explore(
    paths: Sequence[Path],
    *,
    host: str,
    port: int,
    open_browser: bool,
    checkpoint: str,
    device: str,
    upload_limit_mb: int,
    export: Path | None,
    grid: int,
    as_json: bool,
) -> None:
    """Run `nlnet explore`: serve the page until Ctrl-C or SIGTERM, or write it to `export`."""
    runs, videos = split_runs_and_videos(paths)
    chosen = choose_device(device)
    loaded = [
        load_run(path, name, checkpoint, chosen) for path, name in zip(runs, short_names(runs), strict=True)
    ]
    session = Session(loaded, videos, chosen)
    if export is not None:
        write_page(session, export, grid=grid, as_json=as_json)
        return
    with (
        listening(host, port) as listener,
        Uploads(upload_limit_mb * 10**6) as uploads,
        # SIGTERM would end the process without deleting the uploads
        sigterm_raises(KeyboardInterrupt()),
    ):
        port = listener.getsockname()[1]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        loopback = host in LOOPBACK
        names = LOOPBACK | {host.lower(), socket.gethostname().lower()} if not loopback else LOOPBACK
        if as_json:
            print_json({"url": url})
        else:
            OUT.print(f"explorer running at {url} (Ctrl-C stops it)", highlight=False, soft_wrap=True)
        if not loopback:
            ERR.print(
                f"[yellow]warning:[/yellow] {host} is not a loopback address: anyone who can reach port {port} can see "
                "these videos"
            )
        app = create_app(session, uploads, names=names, loopback=loopback)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=2)
        )
        if open_browser:
            Timer(0.5, webbrowser.open, (url,)).start()
        server.run(sockets=[listener])


def split_runs_and_videos(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Split paths into (runs, videos): .safetensors files and folders with checkpoints are runs, the others videos."""
    for path in paths:
        if not path.exists():
            raise NlnetError(f"{path}: no such file; expected run directories or checkpoints, then videos")
    runs = [path for path in paths if path.suffix == ".safetensors" or (path / "checkpoints").is_dir()]
    if not runs:
        raise NlnetError("no run to explore: give a run directory or a .safetensors checkpoint first")
    return runs, [path for path in paths if path not in runs]


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or the whole path where two last parts are equal."""
    short = [path.resolve().name for path in paths]
    return [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]


def write_page(session: Session, path: Path, *, grid: int, as_json: bool) -> None:
    """Export the page to a file with a progress bar, and print its size."""
    progress = bar()
    with progress:
        line = progress.add_task("scoring views", total=None, note="")
        size = export_page(
            session,
            path,
            grid=grid,
            on_step=lambda done, total: progress.update(line, completed=done, total=total),
        )
    if as_json:
        print_json({"page": str(path), "bytes": size})
    else:
        OUT.print(f"{path}: {size / 1e6:.2f} MB, opens in any browser without a server", highlight=False)


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Open a socket that listens on an address; port 0 takes any free port."""

    def failure(error: OSError) -> NlnetError:
        return NlnetError(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another port with --port (0 takes any "
            "free one) or another address with --host"
        )

    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise failure(error) from None
    with socket.socket(family, kind) as listener:
        # without it the port of an explorer that has just ended stays taken for a minute
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()  # before the address is printed: whoever reads it may connect at once
        except OSError as error:
            raise failure(error) from None
        yield listener

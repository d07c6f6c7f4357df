"""`nlnet explore`: load the runs, then serve the page until Ctrl-C, or write it to a file."""

import socket
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

from nlnet.apps.console import ERR, OUT, bar, print_json

try:
    import uvicorn

    from nlnet.apps.explorer.export import export_page
    from nlnet.apps.explorer.guard import LOOPBACK
    from nlnet.apps.explorer.server import create_app
except ImportError as error:
    raise ImportError(
        f"nlnet explore needs packages that are not here ({error.name}); pip install 'nlnet[explore]'"
    ) from None
from nlnet.apps.explorer.session import Session, load_run
from nlnet.apps.explorer.uploads import Uploads
from nlnet.engine.distributed import choose_device
from nlnet.engine.signals import sigterm_raises


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
    """`nlnet explore`."""
    runs, videos = sort_out(paths)
    chosen = choose_device(device)
    loaded = [
        load_run(path, name, checkpoint, chosen) for path, name in zip(runs, names_of(runs), strict=True)
    ]
    session = Session(loaded, videos, chosen)
    if export is not None:
        write_page(session, export, grid=grid, as_json=as_json)
        return
    with (
        listening(host, port) as listener,
        Uploads(upload_limit_mb * 10**6) as uploads,
        sigterm_raises(KeyboardInterrupt()),
    ):
        port = listener.getsockname()[1]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        loopback = host in LOOPBACK
        names = LOOPBACK | {host.lower(), socket.gethostname().lower()} if not loopback else LOOPBACK
        if as_json:
            print_json({"url": url})
        else:
            OUT.print(f"exploring at {url} (Ctrl-C ends it)", highlight=False, soft_wrap=True)
        if not loopback:
            ERR.print(
                f"[yellow]{host} is not loopback: whoever can reach port {port} can look at these videos"
            )
        app = create_app(session, uploads, names=names, loopback=loopback)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=2)
        )
        if open_browser:
            Timer(0.5, webbrowser.open, (url,)).start()
        server.run(sockets=[listener])


def sort_out(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(runs, videos): .safetensors files and folders with checkpoints are runs, the others are videos."""
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file; expected run directories or checkpoints, then videos")
    runs = [path for path in paths if path.suffix == ".safetensors" or (path / "checkpoints").is_dir()]
    if not runs:
        raise ValueError("no run to explore: name a run directory or a .safetensors checkpoint first")
    return runs, [path for path in paths if path not in runs]


def names_of(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, or all of it where two would be called the same."""
    short = [path.resolve().name for path in paths]
    return [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]


def write_page(session: Session, path: Path, *, grid: int, as_json: bool) -> None:
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
    """A socket bound to that address; port 0 is any free one."""

    def refuse(error: OSError) -> ValueError:
        return ValueError(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another with --port (0 for any) or --host"
        )

    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise refuse(error) from None
    with socket.socket(family, kind) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen()  # so that whoever reads the address may call at once
        except OSError as error:
            raise refuse(error) from None
        yield listener

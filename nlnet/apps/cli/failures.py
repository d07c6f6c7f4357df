"""Which errors the command line prints as a message, mostly one line. All others are bugs and keep their traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from nlnet.errors import MissingPackageError, NlnetError

EXTRAS = {
    "video": frozenset(
        ("PIL", "av", "matplotlib", "numpy", "pydantic", "rich", "safetensors", "sklearn", "typer", "yaml")
    ),
    "explore": frozenset(("fastapi", "starlette", "uvicorn")),
}
"""Optional packages as they are imported, by the extra of pyproject.toml that installs them."""

OUT_OF_MEMORY = (
    "out of memory",  # CUDA and oneMKL
    "can't allocate memory",  # torch on the CPU, Linux
    "not enough memory",  # torch on the CPU, other systems
    # A process that decodes videos, ended by Linux to free memory, or because /dev/shm is full. A worker that ends in
    # any other way (a segmentation fault, an exception) is a bug and keeps its traceback.
    "is killed by signal: Killed",
    "is killed by signal: Bus error",
)
"""Parts of the messages of torch's RuntimeErrors that mean too little memory; torch has an own type on CUDA alone."""


@contextmanager
def optional_packages() -> Iterator[None]:
    """Turn the ImportError of an optional package that is not installed into a MissingPackageError.

    An ImportError of anything else, of a module of nlnet above all, is a bug and passes unchanged. So does one of an
    optional package that is installed and broken: its traceback says more.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        extra = next((extra for extra, names in EXTRAS.items() if error.name in names), None)
        if extra is None:
            raise
        raise MissingPackageError(
            f"the package {error.name!r} is not installed; install it with: pip install 'nlnet[{extra}]'"
        ) from error


def message_of(error: Exception) -> str | None:
    """Return the message that a user sees for `error`, or None if the traceback is to be shown.

    A message is enough for what a user can mend: a `NlnetError`, wrong usage of a command, a refusal of the operating
    system (a missing file, a full disk), and too little memory.
    """
    if isinstance(error, NlnetError):
        return str(error)
    # every usage error of typer has this method; its class moved between versions of typer
    if hasattr(error, "format_message"):
        return str(error.format_message())
    if isinstance(error, OSError) and error.errno is not None:
        return _system_refusal(error)
    return _too_little_memory(error)


def _system_refusal(error: OSError) -> str:
    """Return "FILE: REASON", in the system's words; the reason alone if the error names no file."""
    files = " → ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{files}: {error.strerror}" if files else str(error.strerror)


def _too_little_memory(error: BaseException | None) -> str | None:
    """Return "not enough memory" with the first line of the error; None if the error has another cause."""
    # torch's loader raises "worker exited unexpectedly" from the error that names the signal, so causes count too
    while error is not None:
        text = str(error).strip()
        if isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError) and any(part in text for part in OUT_OF_MEMORY)
        ):
            return f"not enough memory: {text.splitlines()[0]}" if text else "not enough memory"
        error = error.__cause__
    return None

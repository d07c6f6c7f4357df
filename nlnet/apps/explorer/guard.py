"""Who may talk to the explorer: pages that it served itself, and nobody on their behalf.

Any page that a browser has open can send requests to this machine, so being bound to loopback protects little:
* a foreign page's requests carry its Origin, or Sec-Fetch-Site: refused. No CORS header is ever sent, so a foreign
  page could read no answer either;
* a foreign name that its owner points at 127.0.0.1 (DNS rebinding) makes a foreign page same-origin, but the
  browser then sends that name as Host: refused.

There is no token: a link to a state can be shared as it stands. Whoever can reach the port can look at the videos
given, as on loopback any user of this machine can.
"""

import ipaddress
import logging
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
BROKEN = "The explorer failed at this; the terminal that it runs in says how."
LOG = logging.getLogger(__name__)
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def refusal(headers: Mapping[str, str], *, scheme: str, names: frozenset[str], loopback: bool) -> str | None:
    """Why a request is turned away, or None for one that is answered.

    Args:
        headers: of the request, looked up by lower-case name.
        names: the host names under which the explorer answers.
        loopback: bound to loopback only. Otherwise any address in numbers is good too: a name that is pointed here
            never shows up as numbers.
    """
    host = headers.get("host", "")
    name = host_name(host)
    if name is None or not (name in names or (not loopback and is_address(name))):
        return f"this explorer does not answer to the name {host!r}; it answers to {', '.join(sorted(names))}"
    origin = headers.get("origin")
    if origin is not None and origin != f"{scheme}://{host}":
        return f"requests from pages of {origin!r} are refused"
    site = headers.get("sec-fetch-site", "none")
    opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site not in ("same-origin", "none") and not opened:
        return "requests from pages of another site are refused"
    return None


def host_name(host: str) -> str | None:
    """The name in a Host header, lower case, without port and brackets; None if it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises where it is no port
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and parts.username is None else None


def is_address(name: str) -> bool:
    """Whether a name is an IP address in numbers."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware: refuses with 403 and a reason, and puts `HEADERS` on every answer.

    Also on the answer to an error that nobody expected, a 500: it says that there was one and no more, and the log has
    the rest.
    """

    def __init__(self, app: ASGIApp, *, names: frozenset[str], loopback: bool) -> None:
        self.app, self.names, self.loopback = app, names, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            return
        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        why = refusal(Headers(scope=scope), scheme=scope["scheme"], names=self.names, loopback=self.loopback)
        app = self.app if why is None else JSONResponse({"error": why}, status_code=403)
        try:
            await app(scope, receive, send_guarded)
        except Exception:
            LOG.exception("error in %s %s", scope["method"], scope["path"])
            if begun:
                raise
            failed = JSONResponse({"error": BROKEN}, status_code=500)
            await failed(scope, receive, send_guarded)

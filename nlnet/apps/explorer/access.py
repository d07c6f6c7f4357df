"""Access checks: the explorer answers only pages that it served itself.

Any page that is open in a browser can send requests to this machine, so binding to loopback is not enough:
* A request from a foreign page carries that page's Origin, or Sec-Fetch-Site: cross-site. It is rejected. No CORS
  header is ever sent, so a foreign page could not read an answer either.
* A foreign host name that its owner points at 127.0.0.1 (DNS rebinding) makes a foreign page same-origin, but the
  browser then sends that name as Host. It is rejected.

There is no token, so that a link to a state of the page can be shared. Whoever can reach the port can see the videos,
as any user of this machine can on loopback.
"""

import ipaddress
import logging
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
INTERNAL_ERROR = "The explorer failed to answer this request; the terminal that it runs in shows the error."
LOG = logging.getLogger(__name__)
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def reason_to_reject(
    headers: Mapping[str, str], *, scheme: str, names: frozenset[str], loopback: bool
) -> str | None:
    """The reason why a request is rejected, or None if it may be answered.

    Args:
        headers: of the request, by lower-case name.
        names: the host names under which the explorer may be addressed.
        loopback: whether the server is bound to loopback only. Otherwise any numeric IP address is accepted as Host
            too: DNS rebinding needs a name.
    """
    host = headers.get("host", "")
    name = host_name(host)
    if name is None or not (name in names or (not loopback and is_address(name))):
        return f"this explorer is not called {host!r}; address it as {', '.join(sorted(names))}"
    origin = headers.get("origin")
    if origin is not None and origin != f"{scheme}://{host}":
        return f"requests from pages of {origin!r} are rejected"
    site = headers.get("sec-fetch-site", "none")
    # a link on a foreign page may open the explorer in a tab: the foreign page cannot read it
    opened = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site not in ("same-origin", "none") and not opened:
        return "requests from pages of another site are rejected"
    return None


def host_name(host: str) -> str | None:
    """The name in a Host header in lower case, without port and brackets; None if the header is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises if the port is not a number
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and parts.username is None else None


def is_address(name: str) -> bool:
    """Whether a host name is a numeric IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class AccessCheck:
    """ASGI middleware that rejects requests with status 403 and a reason, and sets `SECURITY_HEADERS` on every response.

    An unexpected exception becomes a response with status 500 without details; the details go to the log.
    """

    def __init__(self, app: ASGIApp, *, names: frozenset[str], loopback: bool) -> None:
        self.app, self.names, self.loopback = app, names, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the explorer has no web sockets
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        reason = reason_to_reject(
            Headers(scope=scope), scheme=scope["scheme"], names=self.names, loopback=self.loopback
        )
        app = self.app if reason is None else JSONResponse({"error": reason}, status_code=403)
        try:
            await app(scope, receive, send_with_headers)
        except Exception:
            LOG.exception("error in %s %s", scope["method"], scope["path"])
            if started:  # a status has been sent already: it cannot become a 500
                raise
            failed = JSONResponse({"error": INTERNAL_ERROR}, status_code=500)
            await failed(scope, receive, send_with_headers)

"""Security of every request and handshake: Host, Origin and rate are checked, and browsers get strict headers."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from livedrag.server.access.rate_limits import RateLimited, RateLimits
from livedrag.server.errors import ServiceError
from livedrag.server.metrics import Metrics
from livedrag.server.settings import Settings

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


class SecurityMiddleware:
    """Checks Host, Origin and rate, handles the base path, and adds the security headers.

    Origin is checked where a cookie could do harm: in handshakes, and in requests that change something.
    """

    def __init__(self, app: ASGIApp, settings: Settings, limits: RateLimits, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._hosts = settings.hosts
        self._origins = settings.allowed_origins
        self._base = settings.base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        is_allowed = allowed_host(host, self._hosts)
        send = _with_headers(send, security_headers(host if is_allowed else ""))
        if not is_allowed:
            allowed = ", ".join(self._hosts) or "any well-formed name"
            text = f"Host {host!r} is not allowed, only {allowed} (set LIVEDRAG_ALLOWED_HOSTS)"
            await error_response(ServiceError(400, "wrong_host", text))(scope, receive, send)
        elif origin is not None and scope.get("method") not in SAFE_METHODS and not self._same_origin(origin, host):
            text = f"Origin {origin!r} is not allowed, only {host} itself (set LIVEDRAG_ALLOWED_ORIGINS)"
            await error_response(ServiceError(403, "wrong_origin", text))(scope, receive, send)
        else:
            app = self._app if scope["type"] == "websocket" else self._limited(scope)
            path = scope["path"]
            if path != self._base and not path.startswith(f"{self._base}/"):
                path = self._base + path  # a proxy has removed it
            await app({**scope, "root_path": self._base, "path": path}, receive, send)

    def _limited(self, scope: Scope) -> ASGIApp:
        """The application, or a redirect or an error in its place."""
        if self._base and scope["path"] == self._base:
            return RedirectResponse(f"{self._base}/", 308)
        try:
            self._limits.check_address(address_of(HTTPConnection(scope)), "request")
        except RateLimited as error:
            self._metrics.rejects.labels(error.setting).inc()
            return error_response(error)
        return self._app

    def _same_origin(self, origin: str, host: str) -> bool:
        return urlsplit(origin).netloc.lower() == host.lower() or origin in self._origins


def allowed_host(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a Host header names this server; a port beside the name does not matter."""
    if HOST.fullmatch(host) is None:
        return False
    name = host.rpartition("]")[0].lstrip("[") or host.partition(":")[0]
    return not allowed or name.lower() in {entry.strip("[]").lower() for entry in allowed}


def security_headers(host: str) -> dict[str, str]:
    """Headers that forbid other hosts, frames and type sniffing; ``host`` is a checked Host header, or empty."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": f"'self' ws://{host} wss://{host}" if host else "'self'",
        "font-src": "'self'",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    async def send_with(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with


def address_of(connection: HTTPConnection) -> str:
    """The client's address; behind a trusted proxy, the one that it forwards for."""
    return connection.client.host if connection.client is not None else ""


def error_response(error: ServiceError) -> JSONResponse:
    """The response to every request that is refused or fails."""
    body = {"error": {"reason": error.reason, "message": str(error)}}
    return JSONResponse(body, error.status, headers=error.headers)

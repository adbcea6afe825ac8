"""What every endpoint has at hand: the rooms, the settings, and who is asking."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import unquote

from starlette.requests import HTTPConnection, Request

from livedrag.server.access.password import Caller, ServerPassword
from livedrag.server.access.rate_limits import AddressAction
from livedrag.server.document.members import RANKS
from livedrag.server.document.protocol import Role
from livedrag.server.errors import ServiceError
from livedrag.server.rooms.operator import Operator
from livedrag.server.rooms.registry import RoomRegistry
from livedrag.server.rooms.room import LiveRoom
from livedrag.server.settings import Settings
from livedrag.server.web.decoders import Decoders
from livedrag.server.web.security import address_of


@dataclass(frozen=True)
class Context:
    """The state of one application. Decoders and semaphores bound what takes much memory or a whole core."""

    registry: RoomRegistry
    operator: Operator
    operator_password: ServerPassword
    decoders: Decoders = field(default_factory=Decoders)
    animators: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    exporters: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))

    @classmethod
    def of(cls, registry: RoomRegistry) -> Context:
        """The context of a server's application."""
        settings = registry.settings
        return cls(registry, Operator(registry), ServerPassword(settings.admin_token or settings.password))

    @property
    def operator_secret(self) -> str:
        """Names what opens the operator's page."""
        return "the token of LIVEDRAG_ADMIN_TOKEN" if self.settings.admin_token else "the server's password"

    @property
    def cookie_name(self) -> str:
        """A name of this server's own: cookies know no ports, so that servers on one host share them."""
        return f"livedrag_{self.registry.store.id}"

    @property
    def settings(self) -> Settings:
        """The server's settings."""
        return self.registry.settings


def context_of(connection: HTTPConnection) -> Context:
    """The context of the application that serves a request or a WebSocket."""
    context: Context = connection.scope["app"].state.context
    return context


def caller_of(connection: HTTPConnection) -> Caller:
    """Who sends a request. In a handshake a cookie counts only beside an Origin, which browsers always send.

    `SecurityMiddleware` has checked that the Origin is allowed.
    """
    headers = connection.headers
    trusted = connection.scope["type"] == "http" or "origin" in headers
    return Caller(
        address=address_of(connection),
        cookie=connection.cookies.get(context_of(connection).cookie_name, "") if trusted else "",
        password=unquote(headers.get("livedrag-password", "")),  # quoted: headers are not Unicode
        name=unquote(headers.get("livedrag-name", ""))[:60].strip(),
    )


def check_rate(request: Request, action: AddressAction) -> None:
    """Count an action of the request's address. Raises `RateLimited`."""
    context_of(request).registry.limits.check_address(address_of(request), action)


async def check_password(request: Request) -> None:
    """Raise `PasswordRequired` unless the request has the server's password, or there is none."""
    await context_of(request).registry.admission.check_password(caller_of(request))


async def enter(request: Request, least: Role = "viewer") -> tuple[LiveRoom, str]:
    """The room of a request and the person who sends it, who must have at least the role ``least``."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    bearer = secret.strip() if scheme.lower() == "bearer" else ""
    admission = context_of(request).registry.admission
    live, person = await admission.visit(request.path_params["room"], caller_of(request), bearer)
    role = live.members.role(person) or "viewer"
    if RANKS[role] < RANKS[least]:
        texts = {
            "editor": "your link is view only: ask for a link to edit",
            "owner": "only an owner of the room can do this",
        }
        raise ServiceError(403, "forbidden", texts[least])
    return live, person

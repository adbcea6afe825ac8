"""The links and members of a room, for its owners."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from livedrag.server.document.protocol import Role
from livedrag.server.errors import ServiceError
from livedrag.server.rooms.room import LiveRoom
from livedrag.server.web.body import read_json
from livedrag.server.web.context import context_of, enter


class NewRole(msgspec.Struct, forbid_unknown_fields=True):
    """The role that a link or a member gets."""

    role: Role


async def list_links(request: Request) -> Response:
    """The room's links, without their secrets: only digests are stored."""
    live, _ = await enter(request, "owner")
    links = sorted(live.members.links.values(), key=lambda link: link.made)
    return JSONResponse([{"id": k.id, "role": k.role, "made": k.made, "used": k.used} for k in links])


async def make_link(request: Request) -> Response:
    """Make a link; this response is the only one with its secret."""
    role = (await read_json(request, NewRole)).role  # first: a member removed while sending must not get a link
    live, _ = await enter(request, "owner")
    context = context_of(request)
    link, secret = await context.registry.admission.make_link(live, role)
    url = f"{context.settings.base_path}/r/{live.id}#{secret}"
    shown = {"id": link.id, "role": link.role, "made": link.made, "used": None, "secret": secret, "url": url}
    return JSONResponse(shown, 201)


async def revoke_link(request: Request) -> Response:
    """Revoke a link and remove those who joined by it."""
    live, by = await enter(request, "owner")
    link = request.path_params["link"]
    if link not in live.members.links:
        known = ", ".join(live.members.links)
        raise ServiceError(404, "unknown_link", f"there is no link {link!r}: the links are {known}")
    await context_of(request).registry.admission.revoke_link(live, link, by)
    return Response(status_code=204)


async def give_role(request: Request) -> Response:
    """Change a member's role."""
    role = (await read_json(request, NewRole)).role
    live, by = await enter(request, "owner")
    await context_of(request).registry.admission.give_role(live, _person(request, live), role, by)
    return Response(status_code=204)


async def remove(request: Request) -> Response:
    """Remove a member for good."""
    live, by = await enter(request, "owner")
    await context_of(request).registry.admission.remove(live, _person(request, live), by)
    return Response(status_code=204)


def _person(request: Request, live: LiveRoom) -> str:
    person: str = request.path_params["person"]
    if person not in live.members.members:
        raise ServiceError(404, "unknown_person", f"room {live.id!r} has no member {person!r}")
    return person

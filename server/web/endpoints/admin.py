"""The operator's page, and what it does: who is where, ejecting and deleting rooms, draining workers.

Every request carries the operator's token or password in a header, and none is admitted by a cookie: another site
cannot make a browser send it. Like all secrets in headers it is percent-encoded.
"""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from livedrag.server.access.password import Caller, PasswordRequired
from livedrag.server.errors import ServiceError
from livedrag.server.web.body import read_json
from livedrag.server.web.context import Context, context_of
from livedrag.server.web.endpoints.pages import rebase
from livedrag.server.web.security import address_of

FILES = {"admin.js": "text/javascript", "admin.css": "text/css"}


class ToDrain(msgspec.Struct, forbid_unknown_fields=True):
    """The id of the worker that drains."""

    worker: str


async def page(request: Request) -> Response:
    """The page, which asks for the token or the password itself."""
    context = _served(request)
    path = context.settings.static_dir / "admin" / "admin.html"
    text = await asyncio.to_thread(path.read_text, "utf-8")
    return HTMLResponse(rebase(context.settings.base_path, text), headers={"Cache-Control": "no-cache"})


async def file(request: Request) -> Response:
    """What the page loads."""
    context, name = _served(request), request.path_params["name"]
    if name not in FILES:
        raise HTTPException(404)
    path = context.settings.static_dir / "admin" / name
    return FileResponse(path, media_type=FILES[name], headers={"Cache-Control": "no-cache"})


async def status(request: Request) -> Response:
    """Everything as JSON."""
    context = await _admit(request)
    shown = msgspec.json.encode(await context.operator.status())
    return Response(shown, media_type="application/json", headers={"Cache-Control": "no-store"})


async def eject(request: Request) -> Response:
    """Send everyone out of a room; they may come back."""
    context = await _admit(request)
    await context.operator.eject(request.path_params["room"])
    return Response(status_code=204)


async def delete(request: Request) -> Response:
    """Delete a room."""
    context = await _admit(request)
    await context.operator.delete(request.path_params["room"])
    return Response(status_code=204)


async def drain(request: Request) -> Response:
    """Take a worker out of service."""
    context = await _admit(request)
    context.operator.drain((await read_json(request, ToDrain)).worker)
    return Response(status_code=204)


def _served(request: Request) -> Context:
    context = context_of(request)
    if not context.operator_password.required:
        text = "this server has no operator's page: set LIVEDRAG_ADMIN_TOKEN, or a password"
        raise ServiceError(404, "no_admin", text)
    return context


async def _admit(request: Request) -> Context:
    """Raise `PasswordRequired` unless the request has the operator's token or password, later and later."""
    context = _served(request)
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise PasswordRequired(f"send 'Authorization: Bearer <...>' with {context.operator_secret}")
    try:
        await context.operator_password.check(Caller(address=address_of(request), password=unquote(given.strip())))
    except PasswordRequired:
        raise PasswordRequired(f"wrong token or password: use {context.operator_secret}") from None
    return context

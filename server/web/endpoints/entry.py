"""Entering: passwords and secrets become cookies and tickets."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from livedrag.server.web.body import read_json
from livedrag.server.web.context import caller_of, context_of


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to enter."""

    secret: str = ""
    password: str = ""


async def give_password(request: Request) -> Response:
    """Exchange the server's password for a cookie."""
    entry = await read_json(request, Entry)
    caller = replace(caller_of(request), password=entry.password)
    cookie = await context_of(request).registry.admission.give_cookie(caller)
    return _with_cookie(Response(status_code=204), request, cookie)


async def enter_room(request: Request) -> Response:
    """Exchange a link's secret for a cookie, which opens the room from then on, and a ticket for one connection."""
    entry = await read_json(request, Entry)
    caller = caller_of(request)
    caller = replace(caller, password=entry.password or caller.password)
    admission = context_of(request).registry.admission
    cookie, role, ticket = await admission.enter(request.path_params["room"], caller, entry.secret)
    return _with_cookie(JSONResponse({"role": role, "ticket": ticket}), request, cookie)


def _with_cookie(response: Response, request: Request, cookie: str) -> Response:
    """Set the cookie, even where the browser has it already: it expires that long after its last use."""
    context = context_of(request)
    settings = context.settings
    response.headers["Cache-Control"] = "no-store"
    response.set_cookie(
        context.cookie_name,
        cookie,
        max_age=round(settings.session_days * 86_400),
        path=f"{settings.base_path}/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response

"""Edits without a page: a picture and its drags go in, the result comes out."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from livedrag.server.document.protocol import Ended, ErrorMessage, Frame, Points, Progress
from livedrag.server.errors import ServiceError
from livedrag.server.rooms.edit_follower import EditFollower, RunMessage
from livedrag.server.rooms.room import LiveRoom
from livedrag.server.web.context import Context, caller_of, check_password, check_rate, context_of
from livedrag.server.web.endpoints.pictures import read_result, wants_metadata
from livedrag.server.web.endpoints.rooms import uploaded_document

PAUSE = 10.0
"""Seconds without an event after which a comment keeps the connection open."""
CHECK = 1.0
"""Seconds between two looks whether the client is still there."""


async def create(request: Request) -> Response:
    """Edit a picture: answers the result or, if the client accepts ``text/event-stream``, how far it is."""
    check_rate(request, "create")
    await check_password(request)
    context = context_of(request)
    registry = context.registry
    wants_metadata(request)  # before anything is done
    document, _ = await uploaded_document(request)
    if not document.drags:
        example = '[{"handle": [x, y], "target": [x, y]}]'
        raise ServiceError(422, "bad_drags", f"there is nothing to drag: send drags as {example}")
    room_id, secret = await registry.create(document)
    room, person = await registry.admission.visit(room_id, replace(caller_of(request), cookie=""), secret)
    streams = "text/event-stream" in request.headers.get("accept", "")
    messages = _run(room, person, PAUSE if streams else CHECK)
    try:
        registry.limits.check_person(person, "run")
        await anext(messages)
    except BaseException:
        await registry.delete(room)
        raise
    if not streams:
        return await _result(request, context, room, messages)
    url = f"{context.settings.base_path}/r/{room_id}#{secret}"
    begin = _event("room", {"room": room_id, "secret": secret, "url": url})
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # a proxy must not hold events back
    events = _events(begin, room, messages, context.settings.base_path)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _run(room: LiveRoom, person: str, pause: float) -> AsyncGenerator[RunMessage | None]:
    """Press Drag, yield once, then the messages of the run; see `EditFollower.messages`."""
    with EditFollower(room) as follower:
        await room.requests.start(person)
        yield None
        async for message in follower.messages(pause):
            yield message


async def _result(
    request: Request, context: Context, room: LiveRoom, messages: AsyncGenerator[RunMessage | None]
) -> Response:
    """The picture, once the run has ended; the room is deleted with it, or when the client goes away."""
    end: Ended | None = None
    try:
        async with contextlib.aclosing(messages):
            async for message in messages:
                if isinstance(message, Ended):
                    end = message
                elif await request.is_disconnected():
                    break
        if end is None:
            raise ServiceError(503, "interrupted", "the edit was interrupted: try again")
        if end.result is None:
            raise ServiceError(422, "not_edited", end.run.message or "the picture could not be edited")
        png = await read_result(request, end.result.sha256)
    finally:
        await context.registry.delete(room)
    headers = {"Cache-Control": "no-store", "Livedrag-Outcome": str(end.run.outcome)}
    headers["Livedrag-Iterations"] = str(end.run.iterations)
    return Response(png, media_type="image/png", headers=headers)


async def _events(
    begin: bytes, room: LiveRoom, messages: AsyncGenerator[RunMessage | None], base: str
) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(messages):
        yield begin
        message: RunMessage | None = None
        async for message in messages:
            yield b":\n\n" if message is None else _encoded(message, room, base)
        if not isinstance(message, Ended):
            yield _event("failed", {"message": "the room was closed before the end"})


def _encoded(message: RunMessage, room: LiveRoom, base: str) -> bytes:
    match message:
        case Progress():
            return _event("progress", _fields(message, "stage", "step", "steps", "seconds", "seconds_left", "loss"))
        case Points():
            names = ("iteration", "handles", "distances", "content", "loss", "lost")
            return _event("points", _fields(message, *names))
        case Frame():
            picture = f"data:image/{message.format};base64,{base64.b64encode(message.data).decode()}"
            return _event("preview", {**_fields(message, "stage", "iteration", "width", "height"), "picture": picture})
        case ErrorMessage():
            return _event("error", {"message": message.message})
        case Ended(run=run, result=result):
            if result is None:
                return _event("failed", {"message": run.message or "the picture could not be edited"})
            ended = {"outcome": run.outcome, "iterations": run.iterations, "tracked": message.tracked}
            return _event("result", {**ended, "lost": message.lost, "result": f"{base}/api/rooms/{room.id}/result"})


def _fields(message: RunMessage, *names: str) -> dict[str, object]:
    return {name: getattr(message, name) for name in names}


def _event(name: str, data: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"

"""The pictures of a room: the uploaded one, the result, masks, the timeline and its animations."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec
from PIL import Image
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from livedrag.picture_metadata import without_metadata
from livedrag.run_log import LogRow, to_csv, to_json
from livedrag.server.device.run_numbers import stored_numbers
from livedrag.server.document.protocol import BaseReplaced, Drag, Edited, Id, Picture, Raster
from livedrag.server.errors import ServiceError
from livedrag.server.images.animation import animate, encode_mp4
from livedrag.server.images.encoding import encode_png
from livedrag.server.images.uploads import encode_mask, encode_picture
from livedrag.server.rooms.room import LiveRoom
from livedrag.server.storage.errors import Damaged
from livedrag.server.web.body import BoundedBody
from livedrag.server.web.context import Context, context_of, enter


async def picture(request: Request) -> Response:
    """The uploaded picture."""
    live, _ = await enter(request)
    return _png(request, live.draft.document.picture.sha256)


async def result(request: Request) -> Response:
    """The picture that the last run produced, with how it was made unless ``?metadata=none``."""
    live, _ = await enter(request)
    result = live.document.result
    if result is None:
        text = f"room {live.id!r} has no result yet: press Drag and wait for the end"
        raise ServiceError(404, "no_result", text)
    if wants_metadata(request):
        return _png(request, result.sha256)
    png = await read_result(request, result.sha256)
    return Response(png, media_type="image/png", headers={"Cache-Control": "private, no-cache"})


def wants_metadata(request: Request) -> bool:
    """Whether a result should say how it was made: ``?metadata=full``, the default, or ``none``."""
    if (metadata := request.query_params.get("metadata", "full")) not in ("full", "none"):
        raise ServiceError(422, "bad_query", f"metadata={metadata[:100]!r}: it must be 'full' or 'none'")
    return metadata == "full"


async def read_result(request: Request, sha256: str) -> bytes:
    """The PNG of a result, as the request wants it."""
    path, whole = context_of(request).registry.store.picture_path(sha256), wants_metadata(request)
    return await asyncio.to_thread(lambda: path.read_bytes() if whole else without_metadata(path.read_bytes()))


async def mask(request: Request) -> Response:
    """The mask as it is now, white may change; all white where nothing was painted."""
    live, _ = await enter(request)
    try:
        png = (await live.mask.current()).png
    except (OSError, ValueError) as error:
        raise Damaged(f"a loaded mask of this room cannot be read: {error}. Clear the mask, or load another") from error
    if png is None:
        png = await asyncio.to_thread(_white, live.draft.document.picture)
    return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})


async def loaded_mask(request: Request) -> Response:
    """A mask file that was loaded into the room."""
    live, _ = await enter(request)
    sha256 = request.path_params["sha256"]
    loaded = {layer.sha256 for layer in live.draft.document.mask if isinstance(layer, Raster)}
    if sha256 not in loaded:
        raise ServiceError(404, "unknown_mask", f"room {live.id!r} has no loaded mask {sha256!r} now")
    return _png(request, sha256)


async def load_mask(request: Request) -> Response:
    """Replace the mask by an uploaded one, as an edit. ``Op-Id`` makes a retry harmless, ``?fit`` scales the mask."""
    live, by = await enter(request, "editor")
    context = context_of(request)
    op_id = _op_id(request)
    context.registry.limits.check_person(by, "edit")
    live.requests.check_writable()
    body = BoundedBody(request, context.settings.max_upload_bytes, "the mask")
    file = await body.spooled()
    picture = live.draft.document.picture
    with file:
        size, fit = (picture.width, picture.height), "fit" in request.query_params
        sha256 = await context.decoders.run(request, _store_mask, context, file, size, fit)
    live, by = await enter(request, "editor")  # again: a member removed while sending must not load a mask
    record = await live.requests.load_mask(by, op_id, Raster(id=op_id, sha256=sha256))
    if not isinstance(record, Edited) or not isinstance(record.op, Raster):
        raise _used_before(op_id)
    return JSONResponse({"seq": record.seq, "sha256": record.op.sha256})


async def replace_picture(request: Request) -> Response:
    """Edit an uploaded picture in place of the room's, as an edit. ``Op-Id`` makes a retry harmless."""
    live, by = await enter(request, "editor")
    context = context_of(request)
    op_id = _op_id(request)
    context.registry.limits.check_person(by, "edit")
    live.requests.check_writable()
    body = BoundedBody(request, context.settings.max_upload_bytes, "the picture")
    file = await body.spooled()
    with file:
        uploaded = await context.decoders.run(request, _store_picture, context, file)
    live, by = await enter(request, "editor")  # again: a member removed while sending must not replace the picture
    record = await live.requests.replace_picture(by, op_id, uploaded)
    if not isinstance(record, BaseReplaced):
        raise _used_before(op_id)
    return JSONResponse({"seq": record.seq, "sha256": record.picture.sha256})


async def keep_quick_preview(request: Request) -> Response:
    """Make the quick preview, at full size, the room's result. ``Op-Id`` makes a retry harmless."""
    live, by = await enter(request, "editor")
    context = context_of(request)
    op_id = _op_id(request)
    context.registry.limits.check_person(by, "run")
    live.requests.check_writable()
    if live.draft.known(op_id) is None and (live.draft.running or not live.draft.document.drags):
        refused = "a run is under way: press Stop first" if live.draft.running else "there is nothing to drag yet"
        raise ServiceError(409, "busy" if live.draft.running else "invalid", refused)
    try:
        mask = await live.mask.current()
        document = live.draft.document
        file = context.registry.store.picture_path(document.picture.sha256)
        moved = [*document.drags.values(), *(Drag(handle=place, target=place) for place in document.pins.values())]
        sha256 = await context.decoders.run(request, _store_quick_preview, context, file, moved, mask.png)
    except (OSError, ValueError) as error:
        raise Damaged(f"the pictures of this room cannot be read: {error}") from error
    live, by = await enter(request, "editor")  # again: a member removed meanwhile must not change the result
    if live.draft.document.picture.sha256 != document.picture.sha256:
        raise ServiceError(409, "stale", "the picture has changed meanwhile: try again")
    record = await live.requests.keep_preview(by, op_id, sha256, document.drags)
    return JSONResponse({"seq": record.seq, "sha256": sha256})


def _store_quick_preview(context: Context, file: Path, drags: Sequence[Drag], mask: bytes | None) -> str:
    # Loaded when it is first used: it needs numpy, which serving does without.
    from livedrag.server.images.quick_preview import quick_preview

    return context.registry.store.put_picture(quick_preview(file, drags, mask))


def _store_picture(context: Context, file: IO[bytes]) -> Picture:
    png, (width, height) = encode_picture(file, "the picture", context.settings.max_pixels)
    return Picture(sha256=context.registry.store.put_picture(png), width=width, height=height)


def _store_mask(context: Context, file: IO[bytes], size: tuple[int, int], fit: bool) -> str:
    png = encode_mask(file, "mask", size, context.settings.max_pixels, fit=fit)
    return context.registry.store.put_picture(png)


async def moment(request: Request) -> Response:
    """The thumbnail of a step on the timeline."""
    live, _ = await enter(request)
    id = request.path_params["moment"]
    thumbnail = live.timeline.thumbnails.get(id)
    if thumbnail is None:
        raise ServiceError(
            404, "unknown_moment", f"there is no picture of moment {id}: the timeline has no such step now"
        )
    # Not immutable: a picture that is prepared again has another timeline, with the same ids.
    etag = f'"{hashlib.sha256(thumbnail).hexdigest()}"'
    headers = {"Cache-Control": "private, no-cache", "ETag": etag}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(thumbnail, media_type="image/webp", headers=headers)


async def numbers_csv(request: Request) -> Response:
    """The numbers of the last run, a row for each drag and iteration; see `livedrag.run_log`."""
    return Response(to_csv(await _numbers(request)), media_type="text/csv", headers={"Cache-Control": "no-store"})


async def numbers_json(request: Request) -> Response:
    """The same as JSON."""
    text = to_json(await _numbers(request))
    return Response(text, media_type="application/json", headers={"Cache-Control": "no-store"})


async def _numbers(request: Request) -> list[LogRow]:
    live, _ = await enter(request)
    run, picture = live.document.run, live.document.picture.sha256
    checkpoints = context_of(request).registry.checkpoints
    try:
        stored = await asyncio.to_thread(stored_numbers, checkpoints, live.id, picture)
    except OSError as error:
        text = f"the numbers of room {live.id!r} cannot be read now: {error}. Try again"
        raise ServiceError(503, "no_checkpoints", text) from error
    if run is None or stored.run != run.id:
        text = f"room {live.id!r} has no numbers of its last run yet: press Drag and wait for the end"
        raise ServiceError(404, "no_numbers", text)
    return stored.rows


async def trajectory_webp(request: Request) -> Response:
    """The timeline as an animated WebP."""
    live, _ = await enter(request)
    async with context_of(request).animators:
        webp = await asyncio.to_thread(animate, await _timeline_frames(request, live))
    return Response(webp, media_type="image/webp", headers={"Cache-Control": "no-store"})


async def trajectory_mp4(request: Request) -> Response:
    """The timeline as an MP4, where there is an encoder."""
    live, _ = await enter(request)
    encoder = context_of(request).registry.encoder
    if encoder is None:
        text = "this server has no ffmpeg that makes MP4s: use trajectory.webp, or install livedrag's extra mp4"
        raise ServiceError(404, "no_encoder", text)
    async with context_of(request).animators:
        mp4 = await asyncio.to_thread(encode_mp4, await _timeline_frames(request, live), encoder)
    return Response(mp4, media_type="video/mp4", headers={"Cache-Control": "no-store"})


async def _timeline_frames(request: Request, live: LiveRoom) -> list[bytes]:
    checkpoints = context_of(request).registry.checkpoints
    try:
        frames = await asyncio.to_thread(checkpoints.frames, live.id, live.document.picture.sha256)
    except OSError as error:
        text = f"the trajectory of room {live.id!r} cannot be read now: {error}. Try again"
        raise ServiceError(503, "no_checkpoints", text) from error
    if len(frames) < 2:
        text = f"room {live.id!r} has no trajectory yet: press Drag and wait for the end"
        raise ServiceError(404, "no_trajectory", text)
    return [frame.data for frame in frames]


def _used_before(op_id: str) -> ServiceError:
    text = f"Op-Id {op_id!r} names another operation of this room: use a new one, or none"
    return ServiceError(409, "op_id_used", text)


def _op_id(request: Request) -> str:
    op_id = request.headers.get("op-id") or secrets.token_urlsafe(12)
    try:
        return msgspec.convert(op_id, Id)
    except msgspec.ValidationError as error:
        raise ServiceError(422, "bad_op_id", f"Op-Id {op_id!r}: {error}") from None


def _png(request: Request, sha256: str) -> Response:
    path = context_of(request).registry.store.picture_path(sha256)
    return FileResponse(
        path, media_type="image/png", headers={"Cache-Control": "private, no-cache", "ETag": f'"{sha256}"'}
    )


def _white(picture: Picture) -> bytes:
    return encode_png(Image.new("L", (picture.width, picture.height), 255))

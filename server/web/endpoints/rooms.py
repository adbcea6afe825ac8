"""Rooms as a whole: create, delete, export."""

from __future__ import annotations

import asyncio
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Literal

import msgspec
from msgspec.structs import replace
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from livedrag.edit_metadata import EditMetadata, MetadataError
from livedrag.picture_metadata import check_masks, read_metadata
from livedrag.server.device.model_names import infos_of, resolved
from livedrag.server.document.checks import Refused, check_drag, check_drag_count, check_prompt, check_setting
from livedrag.server.document.protocol import (
    MAX_TITLE,
    XY,
    CatalogEntry,
    Document,
    Drag,
    MaskLayer,
    ModelChoice,
    ModelInfo,
    Picture,
    Raster,
    RoomLimits,
    Setting,
    Title,
)
from livedrag.server.document.restored import restored_document
from livedrag.server.errors import ServiceError
from livedrag.server.images.uploads import encode_mask, encode_picture
from livedrag.server.rooms.generation import steps_of
from livedrag.server.rooms.source import find_source
from livedrag.server.settings import MIB
from livedrag.server.storage.archive import export_room, import_room
from livedrag.server.storage.errors import ArchiveError
from livedrag.server.web.body import BoundedBody, read_json, too_large
from livedrag.server.web.context import Context, caller_of, check_password, check_rate, context_of, enter

log = logging.getLogger(__name__)

ARCHIVE_UPLOADS = 4
"""How many times as large as a picture an exported room may be, and how many times larger uncompressed."""
FIELD_BYTES = 5 * MIB
"""Of an upload form beside its picture: mask, prompt, drags."""


Restored = Literal["all", "without_picture"]
"""What was restored of an edit: all of it, or all but the picture that it was made from."""


class NewDrag(msgspec.Struct, forbid_unknown_fields=True):
    """A drag as a form has it."""

    handle: XY
    target: XY


class FromGeneration(msgspec.Struct, forbid_unknown_fields=True):
    """The id of the generated picture that a room is made of."""

    generation: str


class NewTitle(msgspec.Struct, forbid_unknown_fields=True):
    """A room's new name. If empty, a renamed room has none, and a copy has that of the original."""

    title: Title = ""


async def create(request: Request) -> Response:
    """Create a room from an uploaded form, from a generated picture by its id, or from an exported room."""
    check_rate(request, "create")
    await check_password(request)
    context = context_of(request)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in ("application/zip", "application/x-zip-compressed"):
        room, secret = await _import(request, context)
        log.info("an imported room", extra={"room": room})
        return _created(context, room, secret)
    restored: Restored | None = None
    if content_type == "application/json":
        document = await _generated_document(request)
    else:
        document, restored = await uploaded_document(request)
    room, secret = await context.registry.create(document)
    log.info("a room of %d x %d pixels", document.picture.width, document.picture.height, extra={"room": room})
    return _created(context, room, secret, restored)


async def models(request: Request) -> Response:
    """What rooms may choose: models, LoRAs and autoencoders, and why some can't be used."""
    await check_password(request)
    registry = context_of(request).registry
    assert registry.model is not None
    listed = {"default": registry.model.name, "entries": registry.engine.catalog}
    return Response(msgspec.json.encode(listed), media_type="application/json", headers={"Cache-Control": "no-store"})


async def copy(request: Request) -> Response:
    """Create a room like this one, which has its preparation, its timeline and its result."""
    title = (await read_json(request, NewTitle)).title.strip()
    live, _ = await enter(request, "editor")
    check_rate(request, "create")
    context = context_of(request)
    try:
        room, secret = await context.registry.copy(live, title or live.document.title)
    except OSError as error:
        raise ServiceError(507, "not_saved", f"the room cannot be copied: {error}") from error
    log.info("a copy of room %s", live.id, extra={"room": room})
    return _created(context, room, secret)


async def rename(request: Request) -> Response:
    """Give the room another name, as an edit."""
    title = (await read_json(request, NewTitle)).title.strip()
    live, by = await enter(request, "editor")
    context_of(request).registry.limits.check_person(by, "edit")
    live.requests.check_writable()
    await live.requests.rename(by, title)
    return Response(status_code=204)


def _created(context: Context, room: str, secret: str, restored: Restored | None = None) -> Response:
    url = f"{context.settings.base_path}/r/{room}#{secret}"
    return JSONResponse({"room": room, "secret": secret, "url": url, "restored": restored}, 201)


async def delete(request: Request) -> Response:
    """Delete the room with everything in it."""
    live, _ = await enter(request, "owner")
    await context_of(request).registry.delete(live)
    return Response(status_code=204)


async def export(request: Request) -> Response:
    """The room with everything in it, as a zip that another server can import."""
    live, _ = await enter(request, "editor")
    context = context_of(request)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - sent after this has returned
    try:
        async with context.exporters:
            await asyncio.to_thread(export_room, context.registry.store, live.id, file)
    except BaseException:
        file.close()
        raise
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    headers = {
        "Content-Disposition": f'attachment; filename="livedrag-{live.id}.zip"',
        "Content-Length": str(size),
        "Cache-Control": "no-store",
    }
    return StreamingResponse(_chunks(file), media_type="application/zip", headers=headers)


async def _import(request: Request, context: Context) -> tuple[str, str]:
    limit = ARCHIVE_UPLOADS * context.settings.max_upload_bytes
    body = BoundedBody(request, limit, "the exported room")
    file = await body.spooled()
    with file:
        return await context.decoders.run(request, _import_file, context, file, ARCHIVE_UPLOADS * limit)


def _import_file(context: Context, file: IO[bytes], max_bytes: int) -> tuple[str, str]:
    registry = context.registry
    try:
        return import_room(registry.store, file, registry.room_limits, as_new=True, max_bytes=max_bytes)
    except ArchiveError as error:
        raise ServiceError(422, "not_a_room", f"this is not an exported room: {error}") from error


async def _generated_document(request: Request) -> Document:
    registry = context_of(request).registry
    png, generation = registry.generations.finished((await read_json(request, FromGeneration)).generation)
    width, height = Image.open(io.BytesIO(png)).size
    sha256 = await asyncio.to_thread(registry.store.put_picture, png)
    assert registry.model is not None
    usual = generation.ddim_steps == steps_of(registry.model)
    return Document(
        picture=Picture(sha256=sha256, width=width, height=height, generation=generation),
        prompt=generation.prompt,
        title=generation.prompt[:MAX_TITLE],
        settings={} if usual else {"ddim_steps": generation.ddim_steps},
    )


async def uploaded_document(request: Request) -> tuple[Document, Restored | None]:
    """The document of a form, and what was restored of the edit that its picture is the result of."""
    context = context_of(request)
    body = BoundedBody(request, context.settings.max_upload_bytes, "the upload", beside=FIELD_BYTES)
    try:
        async with body.request.form(max_files=2, max_fields=11, max_part_size=256 * 1024) as form:
            file, _ = _file(form, "picture", context.settings.max_upload_bytes)  # before it waits for its turn
            if form.get("restore") and (metadata := await context.decoders.run(request, _metadata, file)) is not None:
                source = await find_source(context.registry, metadata, caller_of(request))
                document = await context.decoders.run(request, _restored_document, context, form, metadata, source)
                return document, "without_picture" if source is None else "all"
            return await context.decoders.run(request, _document, context, form), None
    except (ServiceError, HTTPException):
        await body.drain()
        raise


def _metadata(file: IO[bytes]) -> EditMetadata | None:
    try:
        metadata = read_metadata(file)
        if metadata is not None:
            check_masks(metadata)
    except MetadataError as error:
        raise ServiceError(422, "bad_metadata", f"the edit of this picture can't be restored: {error}") from None
    return metadata


def _restored_document(context: Context, form: FormData, metadata: EditMetadata, source: str | None) -> Document:
    """The document with which the edit of a result continues (blocking, in a decoder's thread).

    Args:
        source: SHA-256 of the stored picture that it was made from; None: the result itself takes its place.
    """
    settings, registry = context.settings, context.registry
    assert registry.model is not None
    file, name = _file(form, "picture", settings.max_upload_bytes)
    png, size = encode_picture(file, name, settings.max_pixels)
    if source is not None:
        with Image.open(registry.store.picture_path(source)) as opened:
            size = opened.size
    picture = Picture(sha256="", width=size[0], height=size[1])
    try:
        document = restored_document(metadata, picture, registry.model, registry.room_limits)
    except Refused as refusal:
        raise ServiceError(422, "bad_metadata", f"the edit of this picture can't be restored: {refusal}") from None
    mask: tuple[MaskLayer, ...] = ()
    if (last := metadata.last.mask) is not None:
        mask_png = encode_mask(io.BytesIO(last), "mask", size, settings.max_pixels)
        mask = (Raster(id="restored", sha256=registry.store.put_picture(mask_png)),)
    picture = replace(picture, sha256=source or registry.store.put_picture(png))
    title = str(form.get("title") or "").strip()[:MAX_TITLE]
    return replace(document, picture=picture, mask=mask, title=title)


def _document(context: Context, form: FormData) -> Document:
    """Check all of a form, then store its pictures (blocking, in a decoder's thread)."""
    settings, registry = context.settings, context.registry
    prompt = str(form.get("prompt") or "")
    try:
        check_prompt(prompt, registry.room_limits)
    except Refused as refusal:
        raise ServiceError(422, "prompt_too_long", str(refusal)) from None
    file, name = _file(form, "picture", settings.max_upload_bytes)
    png, size = encode_picture(file, name, settings.max_pixels)
    picture = Picture(sha256="", width=size[0], height=size[1])
    drags = parse_drags(str(form.get("drags") or "[]"), picture, registry.room_limits)
    assert registry.model is not None
    model = parse_model(form, registry.engine.catalog)
    info = infos_of(registry.engine.catalog).get(model.name, registry.model)
    wanted = parse_settings(str(form.get("settings") or "{}"), info)
    mask: tuple[MaskLayer, ...] = ()
    if "mask" in form:
        file, name = _file(form, "mask", settings.max_upload_bytes)
        mask_png = encode_mask(file, name, size, settings.max_pixels)
        mask = (Raster(id="uploaded", sha256=registry.store.put_picture(mask_png)),)
    picture = replace(picture, sha256=registry.store.put_picture(png))
    title = str(form.get("title") or "").strip()[:MAX_TITLE]
    return Document(picture=picture, drags=drags, mask=mask, prompt=prompt, title=title, settings=wanted, model=model)


def _file(form: FormData, field: str, limit: int) -> tuple[IO[bytes], str]:
    upload = form.get(field)
    if not isinstance(upload, UploadFile):
        got = "is missing" if upload is None else "must be a file, got text"
        raise ServiceError(422, "missing_file", f"form field {field!r} {got}")
    if upload.size is not None and upload.size > limit:
        raise too_large(upload.size, limit, repr(upload.filename))
    return upload.file, upload.filename or field


def parse_model(form: FormData, catalog: Iterable[CatalogEntry]) -> ModelChoice:
    """The model of a form: ``model``, ``vae``, and ``loras`` as JSON. Raises `ServiceError`."""
    text = str(form.get("loras") or "[]")
    try:
        loras = msgspec.json.decode(text)
        fields = {"name": str(form.get("model") or ""), "vae": str(form.get("vae") or ""), "loras": loras}
        return resolved(msgspec.convert(fields, ModelChoice), catalog)
    except msgspec.MsgspecError as error:
        example = '[{"name": "ink", "weight": 0.8}]'
        raise ServiceError(422, "bad_model", f"loras {text[:100]!r}: {error}; expected {example}") from None
    except Refused as refusal:
        raise ServiceError(422, "bad_model", str(refusal)) from None


def parse_settings(text: str, model: ModelInfo) -> dict[str, Setting]:
    """Settings from a form's JSON. Raises `ServiceError`."""
    try:
        settings = msgspec.json.decode(text, type=dict[str, Setting])
    except msgspec.MsgspecError as error:
        example = '{"max_iterations": 40}'
        raise ServiceError(422, "bad_settings", f"settings {text[:100]!r}: {error}; expected {example}") from None
    try:
        for name, value in settings.items():
            check_setting(model, name, value)
    except Refused as refusal:
        raise ServiceError(422, "bad_settings", str(refusal)) from None
    return settings


def parse_drags(text: str, picture: Picture, limits: RoomLimits) -> dict[str, Drag]:
    """Drags from a form's JSON. Raises `ServiceError`."""
    try:
        drags = msgspec.json.decode(text, type=list[NewDrag])
    except msgspec.MsgspecError as error:
        example = '[{"handle": [x, y], "target": [x, y]}]'
        raise ServiceError(422, "bad_drags", f"drags {text[:100]!r}: {error}; expected {example}") from None
    try:
        check_drag_count(len(drags), limits)
    except Refused as refusal:
        raise ServiceError(422, "too_many", str(refusal)) from None
    for drag in drags:
        try:
            check_drag(picture, drag.handle, drag.target)
        except Refused as refusal:
            raise ServiceError(422, "bad_drags", str(refusal)) from None
    return {f"d{index}": Drag(handle=drag.handle, target=drag.target) for index, drag in enumerate(drags, 1)}


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    """A file in pieces; it is closed at the end."""
    with file:
        while piece := file.read(MIB):
            yield piece

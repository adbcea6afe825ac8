"""Metadata in PNG and WebP files: livedrag's own, a line that other tools show, and how the picture came about.

A PNG has text chunks ``livedrag`` (the JSON of `livedrag.edit_metadata`) and ``parameters`` (as A1111's web UI writes
it), and XMP with IPTC's digital source type. A WebP has no text chunks: the JSON is in its XMP, ``parameters`` in its
EXIF data.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
import warnings
from pathlib import Path
from typing import IO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from livedrag.edit_metadata import MAX_BYTES, EditMetadata, MetadataError, decode, encode
from livedrag.pictures import PictureFileError, read_mask

KEY = "livedrag"
_DIGITAL_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_USER_COMMENT, _EXIF_FOLDER = 0x9286, 0x8769
_IN_XMP = re.compile(rb'livedrag:edit="([A-Za-z0-9+/=]*)"')
_PNG = b"\x89PNG\r\n\x1a\n"
_OF_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME")


def hash_pixels(picture: Image.Image) -> str:
    """SHA-256 of an RGB picture's size and pixels, which is the same however its file is encoded."""
    digest = hashlib.sha256(f"{picture.width} x {picture.height}".encode())
    digest.update(picture.tobytes())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encode_mask(mask: Image.Image) -> bytes:
    """A mask of 0 and 255 as a small PNG."""
    png = io.BytesIO()
    mask.convert("1", dither=Image.Dither.NONE).save(png, "PNG")
    return png.getvalue()


def save_png(picture: Image.Image, file: IO[bytes], metadata: EditMetadata | None, *, compress_level: int = 6) -> None:
    """Write a picture as a PNG, with metadata if there are any."""
    info = PngInfo()
    if metadata is not None:
        info.add_itxt(KEY, encode(metadata))
        info.add_itxt("parameters", parameters(metadata))
        info.add_itxt("XML:com.adobe.xmp", _xmp().decode())
    picture.save(file, "PNG", pnginfo=info, compress_level=compress_level)


def save_webp(picture: Image.Image, file: IO[bytes], metadata: EditMetadata | None) -> None:
    """Write a picture as a lossless WebP, with metadata if there are any."""
    if metadata is None:
        picture.save(file, "WEBP", lossless=True)
        return
    exif = Image.Exif()
    comment = b"UNICODE\0" + parameters(metadata).encode("utf-16-be")
    exif.get_ifd(_EXIF_FOLDER)[_USER_COMMENT] = comment
    picture.save(file, "WEBP", lossless=True, exif=exif, xmp=_xmp(encode(metadata)))


def parameters(metadata: EditMetadata) -> str:
    """The line that A1111's web UI writes, and that many tools show."""
    loras = "".join(f" <lora:{each.name}:{each.strength:g}>" for each in metadata.weights if each.role == "lora")
    model = next((each for each in metadata.weights if each.role == "model"), None)
    entries = {
        "Sampler": "DDIM",
        "Seed": metadata.seed,
        "Size": f"{metadata.picture.width}x{metadata.picture.height}",
        **({} if model is None else {"Model hash": model.sha256[:10], "Model": model.name}),
        "Version": metadata.software,
    }
    return f"{metadata.prompt}{loras}\n" + ", ".join(f"{name}: {value}" for name, value in entries.items())


def _xmp(edit: str | None = None) -> bytes:
    own = "" if edit is None else f' livedrag:edit="{base64.b64encode(edit.encode()).decode()}"'
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:livedrag="urn:livedrag" '
        f'Iptc4xmpExt:DigitalSourceType="{_DIGITAL_SOURCE}"{own}/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def read_metadata(file: IO[bytes]) -> EditMetadata | None:
    """How the picture in a file was made, if it is a PNG or WebP that says so; the file is left at its beginning.

    Raises:
        MetadataError: it says something that is not possible.
    """
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            info = Image.open(file, formats=("PNG", "WEBP")).info
    except Exception:  # others say that it is not a picture
        return None
    finally:
        file.seek(0)
    text = info.get(KEY)
    if text is None:
        xmp = info.get("xmp", b"")
        found = _IN_XMP.search(xmp if isinstance(xmp, bytes) else b"")
        if found is None:
            return None
        if len(found[1]) > 2 * MAX_BYTES:
            raise MetadataError(f"the metadata has {len(found[1])} bytes: at most {2 * MAX_BYTES} are read")
        try:
            text = base64.b64decode(found[1]).decode()
        except ValueError:
            raise MetadataError("the metadata in the picture's XMP is damaged") from None
    return decode(str(text))


def check_masks(metadata: EditMetadata) -> None:
    """Raise `MetadataError` unless all masks are pictures of the picture's size in which something may change."""
    size = (metadata.picture.width, metadata.picture.height)
    for mask in {state.mask for state in metadata.states if state.mask is not None}:
        try:
            read_mask(io.BytesIO(mask), "mask", size)
        except PictureFileError as error:
            raise MetadataError(f"the metadata's mask can't be used: {error}") from None


def without_metadata(png: bytes) -> bytes:
    """A PNG without its texts, XMP and EXIF data; its pixels are not decoded. Other data come back as they are."""
    if not png.startswith(_PNG):
        return png
    kept, place = io.BytesIO(), len(_PNG)
    kept.write(_PNG)
    while place + 12 <= len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] not in _OF_METADATA:
            kept.write(png[place : place + 12 + length])
        place += 12 + length
    return kept.getvalue()

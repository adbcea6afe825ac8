"""Messages as MessagePack, in both directions."""

from __future__ import annotations

import contextlib
from typing import Any, get_args

import msgpack
import msgspec

from livedrag.server.document.protocol.base import VERSION, Id
from livedrag.server.document.protocol.client_messages import ClientMessage, Request
from livedrag.server.document.protocol.server_messages import ServerMessage
from livedrag.server.errors import LivedragError
from livedrag.server.settings import Settings

_CLIENT: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ClientMessage)
_SERVER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ServerMessage)
REQUESTS = frozenset(str(record.__struct_config__.tag) for record in get_args(Request))


class ProtocolError(LivedragError):
    """A message that does not follow the protocol.

    ``op_id`` is set if the message is a request with an invalid content: it is rejected, and the connection continues.
    """

    def __init__(self, message: str, op_id: str | None = None) -> None:
        super().__init__(message)
        self.op_id = op_id


def encode(message: ServerMessage | ClientMessage) -> bytes:
    """Pack a record as one MessagePack map."""
    return msgspec.msgpack.encode(message)


def decode_client(data: bytes | str, max_bytes: int = Settings.max_message_bytes) -> ClientMessage:
    """Unpack a message from a client. Raises `ProtocolError`."""
    return _decode(data, _CLIENT, max_bytes)  # type: ignore[no-any-return]


def decode_server(data: bytes | str) -> ServerMessage:
    """Unpack a message from a server. Raises `ProtocolError`."""
    return _decode(data, _SERVER, None)  # type: ignore[no-any-return]


def tag_of(record: Any) -> str:
    """The ``type`` of a message or an operation."""
    return str(type(record).__struct_config__.tag)


def _decode(data: bytes | str, decoder: msgspec.msgpack.Decoder[Any], max_bytes: int | None) -> Any:
    if isinstance(data, str):
        raise ProtocolError(f"text message {_short(data)}: {VERSION} takes binary MessagePack messages")
    if max_bytes is not None and len(data) > max_bytes:
        raise ProtocolError(f"message of {len(data)} bytes: at most {max_bytes} are allowed")
    with contextlib.suppress(msgspec.DecodeError, ValueError, RecursionError):
        return decoder.decode(data)
    raise _error(data, decoder.type)


def _error(data: bytes, records: Any) -> ProtocolError:
    """What is wrong with a message that could not be decoded."""
    try:
        value = msgpack.unpackb(data)
    except (ValueError, TypeError, RecursionError) as error:  # msgpack's exceptions are ValueErrors
        return ProtocolError(f"not a MessagePack message ({_short(data)}): {str(error) or type(error).__name__}")
    try:
        try:
            msgspec.convert(value, records, strict=True)
        except msgspec.ValidationError as error:
            return ProtocolError(f"{error}, in {_short(value)}", _op_id(value))
    except RecursionError:
        return ProtocolError(f"message {_short(data)} is nested too deeply")
    return ProtocolError(f"not a {VERSION} message ({_short(data)})")


def _op_id(value: object) -> str | None:
    """The ``op_id`` of a malformed request."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str) or value["type"] not in REQUESTS:
        return None
    try:
        return msgspec.convert(value.get("op_id"), Id)
    except msgspec.ValidationError:
        return None


def _short(value: object, length: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."

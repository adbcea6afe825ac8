"""What a worker and the server send each other: frames, once both have shown that they know a secret.

A frame is a byte for its kind, the length of its payload in four bytes, and the payload. The secret belongs to one
start of one worker, and never crosses the connection.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from enum import IntEnum
from typing import Literal

from msgspec import Struct

HEADER = struct.Struct("!BI")
MAX_PAYLOAD = 256 * 2**20
"""Bytes; a frame that claims more comes from something else than a worker."""
BATCH_BYTES = 100 * 1024
"""Frames are sent together up to this size."""
BEAT_SECONDS = 1.0
"""After which either end says that it lives, if it has said nothing else."""
DEAD_SECONDS = 5.0
"""Silence after which the server counts a worker as dead, once it has loaded its model."""
LOADING_SECONDS = 60.0
"""Likewise while it loads: importing torch on a busy machine keeps all of a process's threads waiting for seconds."""
LEASE_SECONDS = 15.0
"""Silence after which a worker counts the server as dead, and ends."""
NONCE_BYTES = 32
HANDSHAKE_SECONDS = 10.0


class Kind(IntEnum):
    """Of frames. Those of the handshake are not among them."""

    BEAT = 0
    COMMAND = 1
    EVENT = 2
    END = 3
    PICTURE = 4
    """To the server: the SHA-256 of a picture that is needed. To the worker: a `Picture`."""
    PROCESS = 5
    """To the server, first: a `ProcessInfo`."""


class ProcessInfo(Struct, frozen=True, kw_only=True):
    """A worker's process. ``started`` tells it from a later one with the same ``pid``, see `process.start_of`."""

    pid: int
    started: int


class Picture(Struct, frozen=True, kw_only=True):
    """A picture that was asked for; ``data`` is None where the server has it no longer."""

    sha256: str
    data: bytes | None


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where and how a worker connects.

    Args:
        worker: this start's id.
        secret: of this start.
        certificate: PEM of the server's certificate; empty: no TLS.
    """

    host: str
    port: int
    worker: str
    secret: bytes
    certificate: str = ""

    def __repr__(self) -> str:
        return f"Endpoint({self.host}:{self.port}, {self.worker})"


def frame(kind: Kind, payload: bytes = b"") -> bytes:
    """A frame to send."""
    return HEADER.pack(kind, len(payload)) + payload


def proof(secret: bytes, who: Literal["worker", "server"], server_nonce: bytes, worker_nonce: bytes) -> bytes:
    """What shows to the other end that this one knows the secret."""
    return hmac.digest(secret, who.encode() + server_nonce + worker_nonce, hashlib.sha256)

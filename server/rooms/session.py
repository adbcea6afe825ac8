"""One connection of one person to a room."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livedrag.server.device.messages import FrameFormat
from livedrag.server.document.protocol import Frame, Role, ServerMessage
from livedrag.server.rooms.outbox import Outbox

if TYPE_CHECKING:
    from livedrag.server.rooms.room import LiveRoom


@dataclass(eq=False, frozen=True)
class RoomSession:
    """One connection of one person to a room.

    Attributes:
        link: the id of the link that the person joined by.
        formats: the picture formats that the client can show.
    """

    room: LiveRoom
    id: str
    person: str
    link: str
    address: str
    formats: tuple[str, ...]
    outbox: Outbox

    @property
    def role(self) -> Role:
        """What the person may do now."""
        return self.room.members.role(self.person) or "viewer"

    def send(self, message: ServerMessage, packed: bytes | None = None) -> None:
        """Send a message, unless it is a preview that this client cannot show."""
        if not isinstance(message, Frame) or message.format in self.formats:
            self.outbox.put(message, packed)


def preview_format(sessions: Iterable[RoomSession]) -> FrameFormat:
    """The picture format that all these clients can show, WebP if possible."""
    return "webp" if all("webp" in session.formats for session in sessions) else "jpeg"

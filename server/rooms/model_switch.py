"""ModelSwitch: requests to edit a room with another model, which become records when the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from livedrag.server.device.messages import LoadModel, ModelFailed, ModelLoaded
from livedrag.server.device.model_names import resolved
from livedrag.server.document.checks import Refused, check_operation
from livedrag.server.document.protocol import Edit, ModelChoice, SetModel
from livedrag.server.rooms.session import RoomSession

if TYPE_CHECKING:
    from livedrag.server.rooms.room import LiveRoom


@dataclass(frozen=True, eq=False)
class SwitchRequest:
    """A request that waits for its model; ``session`` is the latest that it came from."""

    session: RoomSession
    edit: Edit
    model: ModelChoice


class ModelSwitch:
    """The requests of one room. Only the latest is waited for."""

    def __init__(self, room: LiveRoom) -> None:
        self._room = room
        self._waiting: SwitchRequest | None = None

    def request(self, session: RoomSession, edit: Edit, op: SetModel) -> None:
        """Have the engine load a model; its answer becomes a record, or a refusal."""
        room, draft = self._room, self._room.draft
        try:
            choice = resolved(op.model, room.services.engine.catalog)
            op = SetModel(model=choice)
            check_operation(draft.document, op, draft.model, draft.limits, running=draft.running)
        except Refused as refusal:
            room.requests.reject(session, edit.op_id, refusal)
            return
        before, self._waiting = self._waiting, SwitchRequest(session, replace(edit, op=op), choice)
        if before is not None and before.edit.op_id == edit.op_id:
            return  # sent again over a new connection: it is answered there
        if before is not None:
            self._refuse(before, Refused("stale", "another model was chosen meanwhile"))
        room.services.engine.submit(LoadModel(room=room.id, model=choice))

    def on_event(self, event: ModelLoaded | ModelFailed) -> None:
        """The engine has loaded a model, or can't."""
        waiting = self._waiting
        if waiting is None or waiting.model != event.model:
            return
        self._waiting = None
        if isinstance(event, ModelFailed):
            self._refuse(waiting, Refused("invalid", event.message))
            return
        room, session, edit = self._room, waiting.session, waiting.edit
        room.requests.apply(session, edit.op_id, lambda: room.draft.edit(session.person, edit))

    def _refuse(self, request: SwitchRequest, refusal: Refused) -> None:
        self._room.run.on_switch_refused()
        self._room.requests.reject(request.session, request.edit.op_id, refusal)

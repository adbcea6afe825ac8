"""The shared document of one room: the order of its edits, and what is accepted.

The document is the fold of the room's log, see `fold`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from livedrag.server.document.checks import Refused, check_operation, check_restore
from livedrag.server.document.fold import fold
from livedrag.server.document.history import Change, History, Property, shortest
from livedrag.server.document.memory import MAX_HELD_POINTS, MAX_KNOWN, POINT_BYTES, TARGET_POINTS, horizon, strokes_of
from livedrag.server.document.past_runs import PastRuns
from livedrag.server.document.protocol import (
    XY,
    AddDrag,
    BaseReplaced,
    Content,
    DocRecord,
    Document,
    Drag,
    Edit,
    Edited,
    EditFurther,
    Ended,
    ModelInfo,
    MoveDrag,
    Operation,
    Outcome,
    Picture,
    Raster,
    Redo,
    Reset,
    Restore,
    RestoreRun,
    Result,
    RoomLimits,
    Run,
    Seeked,
    SeekMoment,
    Started,
    StartRun,
    Stopping,
    StopRun,
    Stroke,
    Undo,
    WasReset,
)

DocRecordT = TypeVar("DocRecordT", bound=DocRecord)
Obstacle = Callable[[Content], str]
"""Why this content cannot be restored; empty if it can."""


def no_obstacle(content: Content) -> str:
    """All content can be restored."""
    return ""


class RoomDocument:
    """One picture being edited by any number of people.

    Methods that change the document return the record of the change, already numbered and folded into `document`; the
    caller saves and publishes it. They raise `Refused` and then change nothing.
    """

    def __init__(
        self,
        id: str,
        document: Document,
        model: ModelInfo,
        *,
        seq: int = 0,
        records: Iterable[DocRecord] = (),
        limits: RoomLimits | None = None,
        models: Mapping[str, ModelInfo] | None = None,
    ) -> None:
        """Open a document from its log.

        Args:
            document: the document at ``seq``.
            model: the one of rooms that have chosen none, which says what settings there are.
            records: the log, oldest first. Records after ``seq`` are folded into the document and can be undone;
                earlier ones only serve to recognise operations that are sent again.
            limits: by default those of the default settings.
            models: the others that a room may choose, by name.
        """
        self.id = id
        self.document = document
        self._model, self._models = model, models or {}
        self.limits = limits or RoomLimits()
        self.seq = seq
        self._history = History(seq)
        self._past_runs = PastRuns()
        self.horizon = 0  # records and edits up to this seq are forgotten
        self._known: dict[str, DocRecord] = {}
        self._held_points = sum(len(layer.points) for layer in document.mask if isinstance(layer, Stroke))
        self._handle_versions: dict[str, int] = {}
        for record in records:
            if record.seq <= seq:
                self._remember(record)
            else:
                self._accept(record)

    @property
    def model(self) -> ModelInfo:
        """The room's model."""
        return self._models.get(self.document.model.name, self._model)

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        run = self.document.run
        return run is not None and run.outcome is None and not run.interrupted

    @property
    def held_bytes(self) -> int:
        """Roughly the memory of the strokes that the document and its past hold."""
        return self._held_points * POINT_BYTES

    def runs(self, run: str) -> bool:
        """Whether this run is under way."""
        return self.running and self.document.run is not None and self.document.run.id == run

    def known(self, op_id: str) -> DocRecord | None:
        """The record of an operation that was accepted before."""
        return self._known.get(op_id)

    def handle_version(self, drag: str) -> int:
        """``seq`` at which the handle of a drag was last placed, 0 if no known operation did."""
        return self._handle_versions.get(drag, 0)

    def edit(self, by: str, edit: Edit) -> Edited:
        """Accept an operation on the document."""
        if edit.offline:
            name = self._history.stale(by, edit.op, edit.base, self.document)
            if name is not None:
                text = f"{_named(name)} was changed by others while you were offline: check it, then repeat your edit"
                raise Refused("stale", text)
        check_operation(self.document, edit.op, self.model, self.limits, running=self.running)
        return self._accept(Edited(seq=self.seq + 1, op_id=edit.op_id, by=by, op=edit.op))

    def undo(self, by: str, message: Undo, obstacle: Obstacle = no_obstacle) -> Edited:
        """Undo a person's last edit, except for properties that others have changed since.

        A run, a jump, a reset or a change of the base picture that cannot be undone any more is refused as ``stale``
        and forgotten.
        """
        change, op = self._restored(by, obstacle, redo=False)
        return self._accept(Edited(seq=self.seq + 1, op_id=message.op_id, by=by, op=op, undoes=change.op_id))

    def redo(self, by: str, message: Redo, obstacle: Obstacle = no_obstacle) -> Edited:
        """Redo a person's last undo, except for properties that others have changed since; see `undo`."""
        change, op = self._restored(by, obstacle, redo=True)
        return self._accept(Edited(seq=self.seq + 1, op_id=message.op_id, by=by, op=op, redoes=change.op_id))

    def _restored(self, by: str, obstacle: Obstacle, *, redo: bool) -> tuple[Change, Operation | Restore]:
        found = self._history.last(by, self.document, redo=redo)
        if found is None:
            what = "redo" if redo else "undo"
            if self._history.has_any(by, redo=redo):
                raise Refused("nothing", f"nothing to {what}: others have changed the same things since")
            raise Refused("nothing", f"nothing to {what}")
        change, restore = found
        if restore is None or (restore.content is not None and (problem := obstacle(restore.content))):
            self._history.drop(by, change, redo=redo)
            problem = "others have changed the picture or its points since" if restore is None else problem
            raise Refused("stale", f"{problem}; the next {'redo' if redo else 'undo'} continues before that")
        check_restore(self.document, restore, self.model, self.limits, running=self.running)
        return change, shortest(self.document, restore)

    def restore_run(
        self,
        by: str,
        message: RestoreRun,
        has_moment: Callable[[int], bool] = lambda moment: True,
        obstacle: Obstacle = no_obstacle,
    ) -> Edited:
        """Go back to the result of an earlier run, and to the settings it was made with.

        Args:
            has_moment: whether a step is on the timeline.
        """
        restore = self._past_runs.find(message.run).restore(self.document, has_moment)
        check_restore(self.document, restore, self.model, self.limits, running=self.running)
        if restore.content is not None and (problem := obstacle(restore.content)):
            raise Refused("stale", problem)
        return self._accept(Edited(seq=self.seq + 1, op_id=message.op_id, by=by, op=restore))

    def history(self, by: str) -> tuple[str | None, str | None]:
        """The types of the edits that a person's undo and redo would change now."""
        undo, redo = (self._history.last(by, self.document, redo=redo) for redo in (False, True))
        return undo and undo[0].type, redo and redo[0].type

    def edit_further(self, by: str, message: EditFurther) -> BaseReplaced:
        """Make the result the picture that is edited."""
        if self.running:
            raise Refused("busy", "a run is under way: press Stop first")
        result, picture = self.document.result, self.document.picture
        if result is None:
            raise Refused("invalid", "there is no result to edit further: press Drag and wait for the end")
        base = Picture(sha256=result.sha256, width=picture.width, height=picture.height)
        return self._accept(BaseReplaced(seq=self.seq + 1, op_id=message.op_id, by=by, picture=base))

    def replace_picture(self, by: str, op_id: str, picture: Picture) -> BaseReplaced:
        """Edit an uploaded picture from now on; mask and pins stay if it has the size of the one before."""
        if self.running:
            raise Refused("busy", "a run is under way: press Stop first")
        return self._accept(BaseReplaced(seq=self.seq + 1, op_id=op_id, by=by, picture=picture))

    def load_mask(self, by: str, op_id: str, raster: Raster) -> Edited:
        """Replace the mask by an uploaded one, whose size has been checked."""
        return self._accept(Edited(seq=self.seq + 1, op_id=op_id, by=by, op=raster))

    def start(self, by: str, message: StartRun, run: str, *, frozen: bool = False) -> Started:
        """Press Drag.

        Args:
            run: id for a new run; an interrupted run keeps its own.
            frozen: the mask protects the whole picture.
        """
        if self.running:
            raise Refused("busy", "a run is already under way: press Stop first")
        if not self.document.drags:
            raise Refused("invalid", "there is nothing to drag: place a handle and its target first")
        if frozen:
            raise Refused("invalid", "the mask protects the whole picture: paint an editable area or clear the mask")
        last = self.document.run
        run_started = replace(last, by=by, interrupted=False) if last and last.interrupted else Run(id=run, by=by)
        return self._accept(Started(seq=self.seq + 1, op_id=message.op_id, run=run_started))

    def keep_preview(
        self, by: str, op_id: str, run: str, sha256: str, drags: Mapping[str, Drag]
    ) -> tuple[Started, Ended]:
        """Keep the quick preview as the result, as if a run had made it.

        Args:
            run: id of this run.
            sha256: of the picture.
            drags: that it was made with.
        """
        started = self.start(by, StartRun(op_id=op_id), run)
        return started, self.end("kept", tracked={id: drag.target for id, drag in drags.items()}, sha256=sha256)

    def stop(self, by: str, message: StopRun) -> Stopping:
        """Press Stop."""
        if not self.running:
            raise Refused("invalid", "nothing is running")
        return self._accept(Stopping(seq=self.seq + 1, op_id=message.op_id, by=by))

    def reset(self, by: str, message: Reset) -> WasReset:
        """Go back to the uploaded picture."""
        if self.running:
            raise Refused("busy", "a run is under way: press Stop before you reset")
        return self._accept(WasReset(seq=self.seq + 1, op_id=message.op_id, by=by))

    def seek(self, by: str, message: SeekMoment, tracked: Mapping[str, XY]) -> Seeked:
        """Record that the engine has jumped to a moment, where the content is at ``tracked``."""
        known = {id: place for id, place in tracked.items() if id in self.document.drags}
        return self._accept(Seeked(seq=self.seq + 1, op_id=message.op_id, by=by, moment=message.moment, tracked=known))

    def end(
        self,
        outcome: Outcome,
        *,
        iterations: int = 0,
        tracked: Mapping[str, XY] | None = None,
        lost: Iterable[str] = (),
        seen: int | None = None,
        sha256: str | None = None,
        moment: int | None = None,
        message: str | None = None,
    ) -> Ended:
        """End the run.

        Args:
            tracked: where the content of each drag is now.
            lost: the drags whose content did not follow.
            seen: the last ``seq`` that the run knew of; handles placed after it stay where they are.
            sha256: of the picture, if the run produced one.
            moment: of the timeline, that the content is at now.
            message: the error, if there was one.
        """
        run = self.document.run
        assert run is not None
        assert self.running
        latest = self.seq if seen is None else seen
        known = {id for id in self.document.drags if self.handle_version(id) <= latest}
        return self._accept(
            Ended(
                seq=self.seq + 1,
                run=replace(run, outcome=outcome, iterations=iterations, message=message),
                tracked={id: place for id, place in (tracked or {}).items() if id in known},
                result=Result(sha256=sha256, run=run.id, moment=moment) if sha256 else self.document.result,
                moment=moment,
                lost=tuple(id for id in lost if id in known),
            )
        )

    def _accept(self, record: DocRecordT) -> DocRecordT:
        before, self.document = self.document, fold(self.document, record)
        self._history.note(record, before, self.document)
        self._past_runs.note(record, self.document)
        self.seq = record.seq
        self._remember(record)
        return record

    def _remember(self, record: DocRecord) -> None:
        if not isinstance(record, Ended):
            self._known[record.op_id] = record
            if len(self._known) > MAX_KNOWN:
                del self._known[next(iter(self._known))]
        self._held_points += sum(len(stroke.points) for stroke in strokes_of(record))
        if self._held_points > MAX_HELD_POINTS:
            self._forget()
        match record:
            case Edited(op=AddDrag(id=id)) | Edited(op=MoveDrag(id=id, handle=(_, _))):
                self._handle_versions[id] = record.seq
            case Edited(op=Restore(drags=drags)):
                placed = {id: record.seq for id, ends in drags.items() if ends is not None and ends.handle}
                self._handle_versions |= placed
        if len(self._handle_versions) > len(self.document.drags):  # restoring a drag places it again
            self._handle_versions = {id: seq for id, seq in self._handle_versions.items() if id in self.document.drags}

    def _forget(self) -> None:
        """Forget the oldest records and edits if the strokes that they hold take too much memory."""
        past = [(record.seq, strokes_of(record)) for record in self._known.values()]
        past += [(change.seq, change.strokes) for change in self._history.changes()]
        self.horizon = max(self.horizon, horizon(self.document.mask, past, TARGET_POINTS))
        self._known = {op_id: record for op_id, record in self._known.items() if record.seq > self.horizon}
        self._history.forget(self.horizon)
        held = {id(stroke): len(stroke.points) for seq, strokes in past if seq > self.horizon for stroke in strokes}
        mask = {id(layer): len(layer.points) for layer in self.document.mask if isinstance(layer, Stroke)}
        self._held_points = sum({**held, **mask}.values())


def _named(name: Property) -> str:
    """A property in words."""
    kind, id = name
    match kind:
        case "content":
            return "the picture"
        case "branch":
            return f"the branch of moment {id}"
        case "prompt":
            return "the prompt"
        case "title":
            return "the room's name"
        case "model":
            return "the model"
        case "pin":
            return f"pin {id!r}"
        case "setting":
            return f"the setting {id!r}"
        case "layer":
            return f"the mask layer {id!r}"
        case "drag":
            return f"drag {id!r}"
    return f"the {kind} of drag {id!r}"

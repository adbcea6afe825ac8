"""Running ahead: a GPU is given the next iteration before the host has read what this one found.

Where the content is, how far it has to go, and the latent are on the device: the next iteration need not wait for the
host, nor the device for what the host does in between. The host decides afterwards whether that iteration counts. If
content has arrived meanwhile, or someone has aimed it elsewhere, it is dropped, and has cost one pass.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass

from torch import Tensor

from livedrag.editor.drag.alternation import levels_due
from livedrag.editor.drag.arrival import search_is_due
from livedrag.editor.drag.handles import Handles
from livedrag.editor.drag.iteration import carry, may_be_held, note_unedited
from livedrag.editor.drag.passes import Answer, Iterated, IterationPass, Launched, Request, launched
from livedrag.editor.drag.row_of_session import row_after, row_of, tracking_is_due
from livedrag.editor.drag.rows import Row
from livedrag.editor.drag.state import SessionState
from livedrag.editor.points import Cell, Drag, Point
from livedrag.editor.settings import DragSettings


@dataclass(frozen=True)
class Placed:
    """A handle, but for where its content is.

    Args:
        name: of its drag.
        offset: of its cell.
        target: of its drag.
        warp: of its drag; with region supervision it goes further in each iteration.
        tries: in this run.
        known: whether it has a template, if it is tracked; one that was just placed has none.
    """

    name: str
    offset: Cell
    target: Point
    warp: Drag
    tries: int
    known: bool


@dataclass(frozen=True)
class Circumstances:
    """What an iteration depends on, beside the latent, its optimizer, the mask and where content is.

    Args:
        settings: the method's numbers.
        descended: levels that the latent has been denoised.
        pins: places that hold still.
        handles: that are pulled.
        held: names of those that are not tracked, though tracking is due.
        tracks: whether tracking is due.
        with_noise: whether the noise is needed.
    """

    settings: DragSettings
    descended: int
    pins: tuple[Point, ...]
    handles: tuple[Placed, ...]
    held: frozenset[str]
    tracks: bool
    with_noise: bool


@dataclass(frozen=True, eq=False)
class Ahead:
    """An iteration that has been launched before it was due.

    Args:
        row: of it.
        launched: what it gives.
        mask: of the session when it was launched.
        circumstances: that it takes for granted.
    """

    row: Row
    launched: Launched
    mask: Tensor | None
    circumstances: Circumstances


class RunAhead:
    """The iterations of one session's runs, launched early where passes run from graphs.

    Args:
        state: of the session.
    """

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._ahead: Ahead | None = None

    def forget(self) -> None:
        """Drop what has been launched early."""
        self._ahead = None

    def iterate(
        self, handles: Handles, *, with_noise: bool, preview_next: bool, held: Collection[str] = ()
    ) -> Generator[Request, Answer, Iterated]:
        """Ask for one iteration of the paper, which proposes a step; see `livedrag.editor.drag.rows`.

        Args:
            handles: that are pulled, as they were tracked last; or where the field carries them in this iteration.
            with_noise: whether the noise is needed, whatever the loss is.
            preview_next: whether the next iteration shows a preview.
            held: names of those that are not tracked; see `livedrag.editor.drag.iteration.held_by_warp`.
        """
        state, ahead, self._ahead = self._state, self._ahead, None
        if ahead is not None and self._still_holds(ahead, handles, held, with_noise=with_noise):
            row, this = ahead.row, ahead.launched
        else:
            row = row_of(state, handles, with_noise=with_noise, held=held)
            this = yield from self._launch(row)
        note_unedited(state, this.proposal.features, this.proposal.noise)
        if self._should_go_on(handles):
            self._ahead = yield from self._go_on(row, this, handles, preview=preview_next)
        return this.wait()

    def _launch(self, row: Row) -> Generator[Request, Answer, Launched]:
        return (yield from launched(IterationPass(self._state.model, self._state.preparation.lora, row)))

    def _go_on(self, row: Row, this: Launched, handles: Handles, *, preview: bool) -> Generator[Request, Answer, Ahead]:
        """Launch the iteration after one that has been launched with this row and these handles."""
        state = self._state
        following, with_noise = carry(state, handles), preview or search_is_due(state, 1)
        circumstances = _circumstances(state, following, with_noise=with_noise, later=1)
        row = row_after(state, row, this.proposal, following, with_noise=with_noise)
        return Ahead(row, (yield from self._launch(row)), state.edit.latent_mask, circumstances)

    def _should_go_on(self, handles: Handles) -> bool:
        """Whether the next iteration follows from this one alone, as far as one can know."""
        state, settings = self._state, self._state.settings
        return (
            state.model.graphs is not None
            and state.iterations_done + 1 < settings.max_iterations
            and levels_due(state, 1) == state.descended
            and not (settings.background == "keep" and state.edit.latent_mask is not None)
            and not (tracking_is_due(state, 1) and may_be_held(state, handles))
        )

    def _still_holds(self, ahead: Ahead, handles: Handles, held: Collection[str], *, with_noise: bool) -> bool:
        state, latent = self._state, self._state.latent
        return (
            latent.value is ahead.row.latent
            and not latent.unedited
            and state.edit.latent_mask is ahead.mask
            and ahead.circumstances == _circumstances(state, handles, held, with_noise=with_noise)
        )


def _circumstances(
    state: SessionState, handles: Handles, held: Collection[str] = (), *, with_noise: bool, later: int = 0
) -> Circumstances:
    """Of this iteration, or of one so many ``later``, before which others have found the templates of all handles."""
    known = later > 0 or state.settings.supervision == "region"
    return Circumstances(
        settings=state.settings,
        descended=state.descended,
        pins=state.edit.pins,
        handles=tuple(
            Placed(name, handle.offset, handle.target, handle.warp, handle.tries, known or handle.template is not None)
            for name, handle in handles.items()
        ),
        held=frozenset(held),
        tracks=tracking_is_due(state, later),
        with_noise=with_noise,
    )

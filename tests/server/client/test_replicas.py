"""Everybody's copy of a room ends as the server's, whatever the network does: a state machine over the real registry.

People edit, undo, run, disconnect, come back, resume, send again what was answered, in any interleaving; the server is
started anew in between. What travels is what really would, encoded and decoded; only the sockets are not there.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from livedrag.server.access.password import Caller
from livedrag.server.client.replica import Replica
from livedrag.server.document.fold import fold
from livedrag.server.document.protocol import (
    AddDrag,
    AddStroke,
    ClearMask,
    Document,
    Drag,
    Edit,
    Hello,
    InvertMask,
    MoveDrag,
    Operation,
    Picture,
    Redo,
    Rejected,
    RemoveDrag,
    RemoveStroke,
    Request,
    Reset,
    SetPrompt,
    SetSettings,
    StartRun,
    StopRun,
    Stroke,
    Undo,
    Welcome,
    decode_client,
    decode_server,
    encode,
)
from livedrag.server.rooms.outbox import Outbox
from livedrag.server.rooms.registry import RoomRegistry
from livedrag.server.rooms.session import RoomSession
from livedrag.server.settings import Settings
from livedrag.server.storage import Store
from tests.fake_clock import FakeClock
from tests.open_room import send, settle
from tests.quiet import QuietEngine, png
from tests.traffic import UNLIMITED

T = TypeVar("T")
PEOPLE = 3

people = st.integers(0, PEOPLE - 1)
drags = st.sampled_from(["d1", "d2", "d3"])
layers = st.sampled_from(["s1", "s2", "s3"])
places = st.tuples(st.integers(0, 63).map(float), st.integers(0, 47).map(float))
operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(AddDrag, id=drags, handle=places, target=places),
    st.builds(MoveDrag, id=drags, target=places),
    st.builds(MoveDrag, id=drags, handle=places),
    st.builds(RemoveDrag, id=drags),
    st.builds(
        AddStroke,
        stroke=st.builds(
            Stroke,
            id=layers,
            mode=st.sampled_from(["paint", "erase"]),
            radius=st.just(4.0),
            points=st.lists(places, min_size=1, max_size=2),
        ),
    ),
    st.builds(RemoveStroke, id=layers),
    st.builds(InvertMask, id=layers),
    st.builds(ClearMask),
    st.builds(SetPrompt, prompt=st.sampled_from(["", "a bear", "a koala"])),
    st.builds(
        SetSettings,
        settings=st.dictionaries(
            st.sampled_from(["max_iterations", "lora_steps"]), st.none() | st.integers(5, 9), min_size=1
        ),
    ),
)


class Participant:
    """One person: their copy of the room, and what is on its way to the server."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.replica = Replica()
        self.asked: list[Request] = []  # ever
        self.refused: list[str] = []
        self.under_way: list[bytes] = []
        self.outbox: Outbox | None = None
        self.session: RoomSession | None = None

    def ask(self, request: Request) -> None:
        self.asked.append(self.replica.ask(request))
        if self.session is not None:
            self.under_way.append(encode(request))

    def read(self, most: int | None = None) -> bool:
        """Take up to so many of the messages that the server has sent; tells whether there were any."""
        count = 0
        while self.outbox is not None and count != most and (packed := self.outbox.take()) is not None:
            message = decode_server(packed)
            if isinstance(message, Welcome):
                assert message.version
            if isinstance(message, Rejected):
                self.refused.append(message.op_id)
            self.replica.receive(message)
            count += 1
        return count > 0


class Replicas(RuleBasedStateMachine):
    """The server and its people. Each rule is something that may happen next."""

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="replicas-"))
        self.people = [Participant(f"P{number}") for number in range(PEOPLE)]
        self.requests = 0
        self._await(self._start())
        self._await(self._make_room())

    def teardown(self) -> None:
        try:
            if hasattr(self, "room"):
                self._everybody_catches_up()
        finally:
            if hasattr(self, "loop"):
                self._await(self._stop())
                self.loop.close()
                shutil.rmtree(self.folder)

    # What people do --------------------------------------------------------------------------------------------------

    @rule(edits=st.lists(st.tuples(people, operations), min_size=1, max_size=6))
    def edit(self, edits: list[tuple[int, Operation]]) -> None:
        for who, op in edits:
            participant = self.people[who]
            offline = participant.session is None
            participant.ask(Edit(op_id=self._op_id(), base=participant.replica.seq, op=op, offline=offline))

    @rule(pressed=st.lists(st.tuples(people, st.sampled_from([Undo, Redo])), min_size=1, max_size=4))
    def take_back(self, pressed: list[tuple[int, type[Any]]]) -> None:
        for who, what in pressed:
            self.people[who].ask(what(op_id=self._op_id()))

    @rule(who=people, what=st.sampled_from([StartRun, StartRun, StopRun, Reset]))
    def press(self, who: int, what: type[Any]) -> None:
        self.people[who].ask(what(op_id=self._op_id()))

    # What the network does -------------------------------------------------------------------------------------------

    @rule(order=st.lists(people, min_size=3, max_size=12), delivered=st.booleans())
    def deliver(self, order: list[int], delivered: bool) -> None:
        """What people have sent arrives, one message of each in turn, and all of it before anything is on disk.

        ``delivered``: what the server says to it reaches everybody at once; else it is under way, and may get lost.
        """

        async def arrive() -> None:
            for who in order:
                participant = self.people[who]
                if participant.under_way and participant.session is not None:
                    send(participant.session, decode_client(participant.under_way.pop(0)))
            await self._settle()

        self._await(arrive())
        if delivered:
            for participant in self.people:
                participant.read()

    @rule(who=people, most=st.integers(1, 5))
    def read(self, who: int, most: int) -> None:
        self.people[who].read(most)

    @rule(who=people)
    def disconnect(self, who: int) -> None:
        """What is on its way in either direction is lost."""
        self._await(self._leave(self.people[who]))

    @rule(who=people, order=st.randoms(use_true_random=False), delivered=st.booleans())
    def connect(self, who: int, order: random.Random, delivered: bool) -> None:
        """A participant joins (again), and sends again what has no answer, in any order."""
        participant = self.people[who]
        if participant.session is None:
            self._await(self._join(participant))
            if delivered:
                participant.read()
            again = participant.replica.resend()
            order.shuffle(again)
            participant.under_way = [encode(request) for request in again]

    @rule(who=people, which=st.integers(0))
    def send_again(self, who: int, which: int) -> None:
        """Something that was answered already arrives once more: it changes nothing."""
        participant = self.people[who]
        known = {record.op_id for record in self._log() if hasattr(record, "op_id")}
        done = [request for request in participant.asked if request.op_id in known]
        if participant.session is None or not done:
            return
        before = self._truth()
        session, request = participant.session, done[which % len(done)]

        async def arrive() -> None:
            send(session, decode_client(encode(request)))
            await self._settle()

        self._await(arrive())
        assert self._truth() == before

    # What becomes of the server --------------------------------------------------------------------------------------

    @precondition(lambda self: self.requests > 3)
    @rule()
    def restart(self) -> None:
        async def again() -> None:
            for participant in self.people:
                await self._leave(participant)
            await self._stop()
            await self._start()

        self._await(again())

    # The end ---------------------------------------------------------------------------------------------------------

    def _everybody_catches_up(self) -> None:
        for participant in self.people:
            if participant.session is None:
                self._await(self._join(participant))
                participant.under_way = [encode(request) for request in participant.replica.resend()]
        quiet = False
        while not quiet:
            waiting = [who for who, participant in enumerate(self.people) for _ in participant.under_way]
            if waiting:
                self.deliver(waiting, delivered=True)
            self._await(self._settle())
            received = [participant.read() for participant in self.people]
            quiet = not any(received) and not waiting
        log = self._log()
        accepted = [record.op_id for record in log if hasattr(record, "op_id")]
        assert len(accepted) == len(set(accepted)), "something was done twice"
        document, seq = self._truth()
        late = Participant("late")
        self._await(self._join(late))
        late.read()
        for participant in (*self.people, late):
            assert participant.replica.pending == {}, f"{participant.name} has no answer"
            assert (participant.replica.document, participant.replica.seq) == (document, seq), participant.name
        for participant in self.people:
            answered = {request.op_id for request in participant.asked}
            assert answered == (answered & set(accepted)) | set(participant.refused)
        self._await(self._leave(late))

    # The house -------------------------------------------------------------------------------------------------------

    def _truth(self) -> tuple[Document, int]:
        """What the server says to participant who comes now."""
        room = self._await(self.registry.open(self.room))
        return room.document, room.seq

    def _log(self) -> list[Any]:
        """What is on disk; what the records lead to must be what is kept."""
        saved = self.store.load(self.room).result(10)
        assert saved is not None
        document = saved.base
        for record in saved.records:
            document = fold(document, record)
        assert document == saved.document
        return list(saved.records)

    async def _join(self, participant: Participant) -> None:
        participant.outbox = Outbox()
        hello = participant.replica.hello(secret=self.secret, name=participant.name)
        said = decode_client(encode(hello))
        assert isinstance(said, Hello)
        participant.session = await self.registry.join(self.room, said, participant.outbox, Caller())

    async def _leave(self, participant: Participant) -> None:
        if participant.session is not None:
            participant.session.room.leave(participant.session)
        participant.session = participant.outbox = None
        participant.under_way.clear()
        participant.replica.lose()
        await self._settle()

    async def _settle(self) -> None:
        """Until what has arrived is on disk and published, however long threads take."""
        await settle(self.registry, self.clock)

    async def _start(self) -> None:
        self.store = Store(self.folder)
        self.clock = FakeClock()
        settings = Settings(data_dir=self.folder, **UNLIMITED)  # type: ignore[arg-type]
        self.registry = RoomRegistry(settings, self.store, QuietEngine(), self.clock)
        await self.registry.__aenter__()

    async def _stop(self) -> None:
        await self._settle()
        await self.registry.__aexit__(None, None, None)
        self.store.close()

    async def _make_room(self) -> None:
        """With something in it that two people may both want to change."""
        picture = Picture(sha256=self.store.put_picture(png()), width=64, height=48)
        placed = {id: Drag(handle=(10.0 * number, 10.0), target=(30.0, 40.0)) for number, id in enumerate(("d1", "d2"))}
        self.room, self.secret = await self.registry.create(Document(picture=picture, drags=placed))
        for participant in self.people:
            await self._join(participant)
            participant.read()

    def _op_id(self) -> str:
        self.requests += 1
        return f"o{self.requests}"

    def _await(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(doing)


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

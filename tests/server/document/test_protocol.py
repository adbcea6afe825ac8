"""The messages: they round-trip, what is malformed is refused with its value, and the recorded ones have not drifted.

``python -m tests.server.document.test_protocol`` records ``tests/messages.json`` anew: one message of every
record, for the front end's tests too.
"""

from __future__ import annotations

import base64
import json
import math
import re
import typing
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livedrag.server.document import protocol as p
from livedrag.server.document.protocol_examples import CLIENT, OPERATIONS, SERVER
from livedrag.server.document.protocol_page import CLOSES, PAGE, page
from tests.conftest import ROOT

RECORDED = ROOT / "tests" / "messages.json"


def recorded(message: p.ClientMessage | p.ServerMessage) -> dict[str, Any]:
    """One message as the file has it; bytes in the JSON are base64."""
    return {
        "from": "client" if message in CLIENT else "server",
        "json": json.loads(msgspec.json.encode(message)),
        "msgpack": base64.b64encode(p.encode(message)).decode(),
    }


def kinds(union: Any) -> set[type]:
    return set(typing.get_args(union))


def test_recorded_messages_have_not_drifted() -> None:
    expected = json.loads(RECORDED.read_text())
    assert expected == [recorded(message) for message in [*CLIENT, *SERVER]], (
        "run `python -m tests.server.document.test_protocol`"
    )


def test_every_record_is_recorded() -> None:
    assert {type(message) for message in CLIENT} == kinds(p.ClientMessage)
    assert {type(message) for message in SERVER} == kinds(p.ServerMessage)
    assert {type(op) for op in OPERATIONS} == kinds(p.Operation)


def test_the_page_of_the_protocol_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m livedrag.server.document.protocol_page`"


def test_the_page_names_every_record_every_field_and_every_close_code() -> None:
    text = page()
    records: set[Any] = kinds(p.ClientMessage) | kinds(p.ServerMessage) | kinds(p.Operation) | kinds(p.MaskLayer)
    for record in {*records, p.Restore, p.Document}:
        assert f"### `{record.__struct_config__.tag}`" in text or f"### {record.__name__}" in text
        assert all(f"| `{field.name}` |" in text for field in msgspec.structs.fields(record))
    assert set(CLOSES) == set(p.Close)
    assert all(f"| {code.value} | {code.name} |" in text for code in p.Close)


@pytest.mark.parametrize("message", CLIENT, ids=lambda message: type(message).__name__)
def test_client_messages_round_trip(message: p.ClientMessage) -> None:
    assert p.decode_client(p.encode(message)) == message


@pytest.mark.parametrize("message", SERVER, ids=lambda message: type(message).__name__)
def test_server_messages_round_trip(message: p.ServerMessage) -> None:
    assert p.decode_server(p.encode(message)) == message


@pytest.mark.parametrize("sha256", ["../victim", "a" * 63, "A" * 64, "a" * 64 + "\n", "a" * 32 + "/" + "a" * 31])
@pytest.mark.parametrize("kind", [p.Picture, p.Result, p.Raster])
def test_only_a_sum_names_a_file(kind: type[msgspec.Struct], sha256: str) -> None:
    named = {"type": "raster", "id": "m", "sha256": "a" * 64, "width": 1, "height": 1, "run": "r"}
    fields = {name: value for name, value in named.items() if name == "type" or name in kind.__struct_fields__}
    if kind is not p.Raster:
        del fields["type"]
    assert msgspec.convert(fields, kind) is not None
    with pytest.raises(msgspec.ValidationError, match="sha256"):
        msgspec.convert({**fields, "sha256": sha256}, kind)


@pytest.mark.parametrize("id", ["d1\n", "", "a b", "x" * 65])
def test_an_id_is_of_plain_letters_alone(id: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(id, p.Id)


ids = st.text("abcXYZ019_.:-", min_size=1, max_size=64)
places = st.tuples(*[st.floats(-1e5, 1e5)] * 2)
settings = st.dictionaries(
    ids, st.none() | st.booleans() | st.integers(0, 2**31) | st.floats(allow_nan=False) | st.text()
)
operations = st.one_of(
    st.builds(p.AddDrag, id=ids, handle=places, target=places),
    st.builds(p.MoveDrag, id=ids, handle=st.none() | places, target=st.none() | places),
    st.builds(
        p.AddStroke,
        stroke=st.builds(
            p.Stroke,
            id=ids,
            mode=st.sampled_from(["paint", "erase"]),
            radius=st.floats(0, 10_000, exclude_min=True),
            points=st.lists(places, min_size=1, max_size=20),
            softness=st.floats(0, 1),
        ),
    ),
    st.builds(p.SetPrompt, prompt=st.text(max_size=1000)),
    st.builds(p.SetSettings, settings=settings),
)


@given(st.builds(p.Edit, op_id=ids, base=st.integers(0, 2**53), op=operations))
def test_any_edit_round_trips(edit: p.Edit) -> None:
    assert p.decode_client(p.encode(edit)) == edit


@given(st.binary(max_size=200))
def test_any_garbage_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(p.ProtocolError):
        p.decode_client(data)


@given(
    st.recursive(st.none() | st.integers(-(2**60), 2**60) | st.text(), lambda more: st.dictionaries(st.text(), more))
)
def test_any_other_value_is_a_protocol_error(value: object) -> None:
    with pytest.raises(p.ProtocolError):
        p.decode_client(msgpack.packb(value))


def edit(**op: object) -> bytes:
    packed: bytes = msgpack.packb({"type": "edit", "op_id": "o1", "base": 0, "op": op})
    return packed


@pytest.mark.parametrize(
    ("op", "quoted"),
    [
        ({"type": "add_drag", "id": "d", "handle": [math.nan, 1], "target": [2, 3]}, "nan"),
        ({"type": "add_drag", "id": "d", "handle": [1, 2, 3], "target": [2, 3]}, "[1, 2, 3]"),
        ({"type": "add_drag", "id": "", "handle": [1, 2], "target": [2, 3]}, "length >= 1"),
        ({"type": "add_drag", "id": "d", "handle": [1, 2], "target": [2, 3], "colour": "red"}, "colour"),
        ({"type": "set_prompt", "prompt": "x" * 10_001}, "10000"),
        ({"type": "restore", "drags": {}}, "restore"),
        (
            {
                "type": "add_stroke",
                "stroke": {
                    "type": "stroke",
                    "id": "s",
                    "mode": "paint",
                    "radius": 1,
                    "points": [[1, 2]],
                    "softness": 1.5,
                },
            },
            "<= 1.0",
        ),
        ({"type": "explode"}, "explode"),
    ],
)
def test_a_malformed_edit_quotes_its_value_and_can_be_rejected(op: dict[str, object], quoted: str) -> None:
    with pytest.raises(p.ProtocolError) as caught:
        p.decode_client(edit(**op))
    assert quoted in str(caught.value)
    assert caught.value.op_id == "o1"


@pytest.mark.parametrize("type", ["undo", "redo", "seek"])
def test_every_malformed_request_can_be_rejected(type: str) -> None:
    with pytest.raises(p.ProtocolError, match="moment") as caught:
        p.decode_client(msgpack.packb({"type": type, "op_id": "o1", "moment": "soon"}))
    assert caught.value.op_id == "o1"


def test_what_is_no_operation_has_no_op_id() -> None:
    with pytest.raises(p.ProtocolError) as caught:
        p.decode_client(msgpack.packb({"type": "hello", "op_id": "o1"}))
    assert caught.value.op_id is None


def test_text_and_oversized_messages_are_refused_with_their_size() -> None:
    with pytest.raises(p.ProtocolError, match="hi there"):
        p.decode_client("hi there")
    with pytest.raises(p.ProtocolError, match=r"message of 65537 bytes: at most 65536"):
        p.decode_client(bytes(65537))


if __name__ == "__main__":
    RECORDED.write_text(json.dumps([recorded(message) for message in [*CLIENT, *SERVER]], indent=1) + "\n")


def test_the_page_gives_up_on_the_same_codes() -> None:
    """It asks for a password and joins again where that can help; all other final codes end its attempts."""
    source = (ROOT / "frontend" / "src" / "room" / "socket.ts").read_text()
    listed = re.search(r"FINAL_CODES[^(]*\(\[(.*?)\]", source, re.DOTALL)
    assert listed is not None
    page_codes = {p.Close[name] for name in re.findall(r"Close\.(\w+)", listed[1])}
    assert page_codes == p.FINAL_CLOSES - {p.Close.BAD_MESSAGE, p.Close.PASSWORD}

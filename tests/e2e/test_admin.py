"""The operator's page in a real browser: entering, ejecting someone who is looking, draining, and how it looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from livedrag.server.client import create_room
from tests.e2e.editor import OUTPUT, Editor, OpenPage
from tests.e2e.test_access import violations
from tests.quiet import QuietEngine, png, quiet_server

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, QuietEngine]]:
    with quiet_server(tmp_path_factory.mktemp("admin"), admin_token="tökén", deadline=60.0) as served:
        yield served


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_an_operator_ejects_people_who_may_come_back(
    served: tuple[str, QuietEngine], open_page: OpenPage, complaints: list[str], theme: str, tmp_path: Path
) -> None:
    address, _ = served
    room = create_room(address, png(256, 192), title="Teddy bear")
    unnamed = create_room(address, png(256, 192))
    guest = open_page(f"{address}/r/{room.id}#{room.secret}")
    Editor(guest)

    page = open_page(f"{address}/admin", color_scheme=theme)
    field = page.get_by_label("Operator token or server password")
    expect(field).to_be_focused()
    field.fill("wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert").first).to_contain_text("use the token of LIVEDRAG_ADMIN_TOKEN")
    assert violations(page) == []
    field.fill("tökén")
    page.keyboard.press("Enter")
    row = page.get_by_role("row").filter(has_text=room.id)
    expect(row).to_contain_text("(owner)")
    expect(row.get_by_role("cell").nth(1)).to_have_text("Teddy bear")
    expect(page.get_by_role("row").filter(has_text=unnamed.id).get_by_role("cell").nth(1)).to_have_text("–")
    assert violations(page) == []
    page.screenshot(path=OUTPUT / f"admin-{theme}.png")

    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name=f"Eject everyone from room {room.id}").click()
    expect(row).to_contain_text("(owner)")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=f"Eject everyone from room {room.id}").click()
    expect(page.get_by_role("status")).to_have_text(f"Room {room.id} was ejected.")
    expect(guest.get_by_role("main").get_by_role("alert")).to_contain_text(
        "the operator of this server has closed this room for now"
    )
    expect(row).not_to_contain_text("(owner)")
    guest.reload()
    Editor(guest)
    expect(row).to_contain_text("(owner)")

    page.reload()  # it is still open in this tab
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=f"Delete room {room.id}").click()
    expect(guest.get_by_role("main").get_by_role("alert")).to_contain_text(
        "the operator of this server has deleted this room"
    )
    expect(row).to_have_count(0)
    page.get_by_role("button", name="Sign out").click()
    expect(field).to_be_visible()
    page.reload()
    expect(field).to_be_visible()
    complaints[:] = [text for text in complaints if "401" not in text]

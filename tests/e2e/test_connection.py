"""Pages whose browser gives them little time, or no cookie, stay in their room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.editor import Editor, OpenPage, choose
from tests.e2e.played import PlayedRun
from tests.e2e.test_together import new_link, toast
from tests.quiet import QuietEngine, quiet_server

HEARTBEAT, DEADLINE = 1.0, 6.0
HANDLE, TARGET = (94.0, 150.0), (72.0, 110.0)
COARSE_TIMERS = """
    const after = window.setTimeout.bind(window), cancel = window.clearTimeout.bind(window);
    const repeated = new Map();
    const untilWake = (delay = 0) => Math.ceil((performance.now() + delay) / 9000) * 9000 - performance.now();
    const repeat = (id, call, delay) =>
        repeated.set(id, after(() => { repeat(id, call, delay); call(); }, untilWake(delay)));
    window.setTimeout = (call, delay) => after(call, untilWake(delay));
    window.setInterval = (call, delay) => {
        const id = -1 - repeated.size;
        repeat(id, call, delay);
        return id;
    };
    window.clearInterval = id => cancel(repeated.get(id));
"""
"""What Chromium does to a tab that has been hidden for a while: timers fire together, each 9 s instead of a minute."""
COUNT_SOCKETS = """
    window.sockets = 0;
    window.WebSocket = class extends WebSocket {
        constructor(...rest) { super(...rest); window.sockets += 1; }
    };
"""

Quiet = tuple[str, QuietEngine]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quiet]:
    """A server that soon gives up a connection without a sign of life."""
    with quiet_server(tmp_path_factory.mktemp("quiet"), heartbeat=HEARTBEAT, deadline=DEADLINE) as served:
        yield served


def reloaded(page: Page, *scripts: str) -> Editor:
    for script in scripts:
        page.add_init_script(script)
    page.reload()
    return Editor(page)


def reconnect(page: Page) -> None:
    connection = page.get_by_test_id("connection")
    page.context.set_offline(True)
    expect(connection).to_have_attribute("data-state", "lost")
    page.context.set_offline(False)
    expect(connection).to_have_attribute("data-state", "open")


def pass_without_cookie(route: Route) -> None:
    """Answer as the server does, but for the cookie: what a browser that blocks cookies makes of it."""
    sent = route.request
    content = {"Content-Type": "application/json"}
    with urlopen(Request(sent.url, (sent.post_data or "").encode(), content)) as answer:
        route.fulfill(status=answer.status, body=answer.read(), content_type="application/json")


def expect_only_denials(page: Page, complaints: list[str]) -> None:
    """The browser noted requests that were denied at first; the person saw nothing of it."""
    assert complaints
    assert all("403" in complaint for complaint in complaints)
    complaints.clear()
    assert not [told for told in page.evaluate("window.toldToasts") if "Couldn't" in told]


def test_a_page_with_late_timers_stays_connected(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    bo = reloaded(open_page(new_link(ada.page, "edit")), COUNT_SOCKETS, COARSE_TIMERS)
    toast(ada.page, "joined")
    ada.page.evaluate("window.toldToasts.length = 0")
    bo.page.wait_for_timeout(6 * DEADLINE * 1000)
    expect(bo.page.get_by_test_id("connection")).to_have_attribute("data-state", "open")
    assert bo.page.evaluate("window.sockets") == 1
    assert not [told for told in ada.page.evaluate("window.toldToasts") if "joined" in told]
    ada.click(HANDLE)
    ada.click(TARGET)
    expect(bo.points).to_have_count(1)


def test_a_frozen_page_is_current_when_it_comes_back(open_page: OpenPage, upload: Path, quiet: Quiet) -> None:
    ada = choose(open_page(), upload)
    bo = reloaded(open_page(new_link(ada.page, "edit")), COUNT_SOCKETS)
    browser = bo.page.context.new_cdp_session(bo.page)
    browser.send("Page.setWebLifecycleState", {"state": "frozen"})
    ada.click(HANDLE)
    ada.click(TARGET)
    ada.page.wait_for_timeout(2 * DEADLINE * 1000)
    browser.send("Page.setWebLifecycleState", {"state": "active"})
    expect(bo.points).to_have_count(1)
    bo.page.wait_for_timeout(DEADLINE * 1000)
    expect(bo.page.get_by_test_id("connection")).to_have_attribute("data-state", "open")
    assert bo.page.evaluate("window.sockets") == 1


def test_a_lost_cookie_is_replaced(open_page: OpenPage, upload: Path, quiet: Quiet, complaints: list[str]) -> None:
    editor = choose(open_page(), upload)
    page = editor.page
    editor.click(HANDLE)
    editor.click(TARGET)
    editor.button("Drag").click()
    PlayedRun(quiet[1], page).step(3, 0.5)
    # What another server on this host does, if it gives its cookie the same name.
    page.context.clear_cookies()
    editor.stop()
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    assert page.context.cookies()

    page.context.clear_cookies()
    reconnect(page)
    expect_only_denials(page, complaints)


def test_a_browser_that_blocks_cookies_can_edit(
    open_page: OpenPage, upload: Path, quiet: Quiet, complaints: list[str]
) -> None:
    page = open_page()
    page.route("**/enter", pass_without_cookie)
    editor = choose(page, upload)
    editor.click(HANDLE)
    editor.click(TARGET)
    editor.button("Drag").click()
    PlayedRun(quiet[1], page).step(3, 0.5)
    editor.stop()
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    reconnect(page)
    expect(editor.points).to_have_count(1)
    assert not page.context.cookies()
    expect_only_denials(page, complaints)

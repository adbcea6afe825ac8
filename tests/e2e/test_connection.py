"""Pages whose browser gives them little time, or no cookie, stay in their room."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.conftest import ROOT
from tests.e2e.editor import HANDLE, SOON, TARGET, Editor, OpenPage, choose
from tests.e2e.played import PlayedRun
from tests.e2e.test_together import new_link, toast
from tests.quiet import QuietEngine, quiet_server

HEARTBEAT, DEADLINE = 1.0, 6.0
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
REMEMBER_OVER_RELOADS = """
    new MutationObserver(() => {
        for (const toast of document.querySelectorAll("[data-testid=toast]"))
            sessionStorage.told = (sessionStorage.told ?? "") + toast.textContent;
    }).observe(document, { childList: true, subtree: true });
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


def publish(static: Path, version: str) -> None:
    """Put a page whose script has another name in place of the one in ``static``."""
    page = (static / "app" / "index.html").read_text()
    script = re.search(r"/assets/([\w-]+\.js)", page)
    assert script is not None
    shutil.copy(static / "app" / "assets" / script[1], static / "app" / "assets" / f"index-{version}.js")
    (static / "app" / "index.html").write_text(page.replace(script[1], f"index-{version}.js"))


def name_in_comment(static: Path, version: str) -> None:
    """Have the server take its page for another than browsers get, as they do from a cache in between."""
    page = static / "app" / "index.html"
    comment = f'<!-- <script src="/assets/index-{version}.js"></script> -->'
    page.write_text(page.read_text().replace("<head>", f"<head>{comment}", 1))


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


@pytest.mark.long
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
    editor.place_and_drag()
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
    editor.place_and_drag()
    PlayedRun(quiet[1], page).step(3, 0.5)
    editor.stop()
    expect(editor.canvas).to_have_attribute("data-showing", "result")
    reconnect(page)
    expect(editor.points).to_have_count(1)
    assert not page.context.cookies()
    expect_only_denials(page, complaints)


def test_a_page_older_than_the_server_reloads_and_keeps_what_is_unsent(
    browser: Browser, upload: Path, tmp_path: Path, free_port: int
) -> None:
    static, data = tmp_path / "static", tmp_path / "data"
    shutil.copytree(ROOT / "static" / "app", static / "app")
    # Routes of Playwright don't see what a service worker asks for.
    with browser.new_context(service_workers="block") as context:
        context.set_default_timeout(SOON)
        context.add_init_script(REMEMBER_OVER_RELOADS)
        page = context.new_page()
        with quiet_server(data, static_dir=static, port=free_port) as (address, _):
            page.goto(address)
            editor = choose(page, upload)
        connection = page.get_by_test_id("connection")
        expect(connection).to_have_attribute("data-state", "lost")
        editor.click(HANDLE)
        editor.click(TARGET)
        page.get_by_label("Prompt").fill("a bear")  # not entered yet
        publish(static, "newer")
        with quiet_server(data, static_dir=static, port=free_port):
            expect(page.locator("script[type=module]")).to_have_attribute("src", re.compile("index-newer"))
            assert "livedrag has been updated" in page.evaluate("sessionStorage.told")
            editor = Editor(page)
            editor.expect_place("target", TARGET)
            expect(page.get_by_label("Prompt")).to_have_value("a bear")
            editor.expect_sent()
        # A cache in between that has only this page does not make it reload for ever.
        name_in_comment(static, "newest")
        expect(connection).to_have_attribute("data-state", "lost")
        with quiet_server(data, static_dir=static, port=free_port):
            page.wait_for_function("() => sessionStorage.told.includes('older than the server')")
            Editor(page).expect_place("target", TARGET)

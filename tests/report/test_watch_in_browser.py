"""`edgenas watch` in a real browser: the page follows a run, and what a person did on it stays."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgenas.report.live.served import Server
from edgenas.report.live.watched import Watched
from tests.processes import eventually
from tests.report.browser import Browser, keep, serious_faults, spot_of
from tests.report.subjects import MAKERS

MAIN = "return document.querySelector('main').innerText"
TABLE = "document.querySelector('.rows table')"
# A search by tables takes a second: this one waits at its 100th candidate for the file `go`, and at its 200th forever.
HELD = """
import os, sys, time
from edgenas import run
real, count = run.Appender.append, 0
def held(*arguments):
    global count
    real(*arguments)
    count += 1
    while count == 200 or (count == 100 and not os.path.exists("go")):
        time.sleep(0.05)
run.Appender.append = held
from edgenas.cli import main
main(sys.argv[1:])
"""


class Growing:
    """A run that another program writes: the first half of a search's candidates, and more of them when asked."""

    def __init__(self, whole: Path, path: Path) -> None:
        self.whole, self.path = whole, path
        path.mkdir()
        shutil.copy(whole / "run.json", path)
        self.lines = (whole / "trials.jsonl").read_bytes().splitlines(keepends=True)
        self.write(len(self.lines) // 2)

    def write(self, count: int) -> None:
        (self.path / "trials.jsonl").write_bytes(b"".join(self.lines[:count]))

    def end(self) -> None:
        self.write(len(self.lines))
        shutil.copy(self.whole / "result.json", self.path)


@contextmanager
def served(run: Path) -> Iterator[Server]:
    """The page of `run`, by looks that cost nothing, so that no test waits."""
    with Server(Watched([str(run)], share=1e9, look_s=0.0)) as server:
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                server.handle_request()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            stop.set()
            thread.join()


@pytest.fixture(autouse=True)
def _left(browser: Browser) -> Iterator[None]:
    """A page that is left asks no server that has gone, which the next test would find in the log."""
    yield
    browser.driver.get("about:blank")


@pytest.fixture
def growing(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Growing:
    return Growing(Path(MAKERS["search"](workplace, capsys)), workplace / "growing")


def shows(browser: Browser, candidates: int) -> None:
    """Waits until the page says that there are so many."""
    browser.wait(f"{MAIN}.includes('{candidates:,} candidates so far')")


def test_a_watched_page_updates_by_itself(growing: Growing, browser: Browser) -> None:
    with served(growing.path) as server:
        browser.asked()
        browser.visit(server.address)
        assert "UNFINISHED" in browser.run(MAIN)
        browser.run("document.querySelector('figure details summary').click(); window.same = true")
        browser.wait(f"return {TABLE}")
        growing.end()
        browser.wait("return document.getElementById('live').textContent.startsWith('Ended')")
        assert "UNFINISHED" not in browser.run(MAIN)
        assert browser.run("return window.same"), "it was not loaded again"
        browser.wait(f"return {TABLE}")  # what was unfolded stays so
        figures = browser.run("return document.querySelectorAll('figure').length")
        assert figures == browser.run("return document.querySelectorAll('.plot canvas').length") >= 1
        spot_of(browser, "winner")
        keep(browser, "watched")
        assert browser.logged() == []
        assert set(browser.asked()) == {server.address}
    browser.wait("return document.getElementById('live').textContent.includes('has ended')")
    assert "LIKELY" in browser.run(MAIN), "what it showed last stays"


def test_what_is_sorted_chosen_and_focused_stays_so(growing: Growing, browser: Browser) -> None:
    column = f"[...{TABLE}.tBodies[0].rows].map(row => Number(row.cells[2].textContent.replace(/,/g, '')))"
    with served(growing.path) as server:
        browser.visit(server.address)
        browser.run("document.querySelector('figure details summary').click()")
        browser.wait(f"return {TABLE}")
        browser.run("document.querySelector('.more').click()")
        head = f"{TABLE}.tHead.rows[0].cells[2]"
        while browser.run(f"return {head}.ariaSort") != "ascending":
            browser.run(f"{head}.querySelector('button').click()")
        browser.run(f"{head}.querySelector('button').focus()")
        static = "[...document.querySelectorAll('table.sortable')].find(each => !each.closest('.rows'))"
        browser.run(f"{static}.tHead.rows[0].cells[0].querySelector('button').click()")
        direction = browser.run(f"return {static}.tHead.rows[0].cells[0].ariaSort")
        browser.run(f"{head}.querySelector('button').focus()")
        browser.run("document.querySelector('.plot').edgenas.choose(document.querySelector('.plot').edgenas.points[0])")
        chosen = browser.run("return document.querySelector('.chosen').innerText")
        before = browser.run(f"return {column}")
        assert before == sorted(before)
        assert chosen
        for count in (len(growing.lines) - 3, len(growing.lines) - 1):
            growing.write(count)
            shows(browser, count)
            after = browser.run(f"return {column}")
            assert len(after) >= len(before)
            assert after == sorted(after)
            assert browser.run(f"return {head}.ariaSort") == "ascending"
            assert browser.run(f"return {static}.tHead.rows[0].cells[0].ariaSort") == direction
            assert browser.run(f"return document.activeElement === {head}.querySelector('button')")
            assert browser.run("return document.querySelector('.chosen').innerText") == chosen
        assert len(after) > len(before)
        assert browser.logged() == []


def test_axe_finds_nothing_serious_on_a_watched_page(growing: Growing, browser: Browser, axe: str) -> None:
    with served(growing.path) as server:
        # A policy keeps the page from running what is not its own; axe is the test's.
        browser.send("Page.setBypassCSP", enabled=True)
        try:
            browser.visit(server.address, dark=True)
            browser.run("document.querySelectorAll('summary').forEach(each => each.click())")
            browser.wait(f"return {TABLE}")
            assert serious_faults(browser, axe) == []
            growing.end()
            browser.wait("return document.getElementById('live').textContent.startsWith('Ended')")
            assert serious_faults(browser, axe) == []
        finally:
            browser.send("Page.setBypassCSP", enabled=False)


def test_a_search_that_is_killed_and_resumed_is_followed(workplace: Path, browser: Browser) -> None:
    run, trials = workplace / "killed", workplace / "killed" / "trials.jsonl"
    asked = ["search", "--device", "raspi4", "--latency", "5ms", "--run", str(run)]

    def seen() -> int:
        return trials.read_bytes().count(b"\n") if trials.exists() else 0

    search = subprocess.Popen([sys.executable, "-c", HELD, *asked], stdout=subprocess.DEVNULL)
    try:
        assert eventually(lambda: seen() == 100)
        with served(run) as server:
            browser.visit(server.address)
            shows(browser, 100)
            (workplace / "go").touch()
            shows(browser, 200)
            search.kill()
            search.wait()
            done = [sys.executable, "-c", "from edgenas.cli import main; main()", "search", "--resume", str(run)]
            assert subprocess.run(done, stdout=subprocess.DEVNULL, check=False).returncode == 0
            browser.wait("return document.getElementById('live').textContent.startsWith('Ended')")
            page = browser.run(MAIN)
            assert "UNFINISHED" not in page
            assert seen() > 200
            result = json.loads((run / "result.json").read_text())
            assert result["winner"]["arch_str"] in page
            assert f"{seen():,} candidates: score against latency" in page
            assert browser.logged() == []
    finally:
        search.kill()
        search.wait()

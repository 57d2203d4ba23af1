"""A real browser that opens pages: Chromium without a window, driven by selenium."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WAIT_S = 60.0
SERIOUS = {"serious", "critical"}


def needed() -> tuple[str, str]:
    """The paths of the browser and its driver; skips, with the reason, where they are not here."""
    pytest.importorskip("selenium", reason="selenium is not installed: pip install -e '.[dev]'")
    found = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(found):
        pytest.skip("no browser here: apt-get install chromium chromium-driver")
    browser, driver = found
    assert browser is not None
    assert driver is not None
    return browser, driver


class Browser:
    """Opens pages at a width, light or dark; says what they logged and asked for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = 1280, dark: bool = False, drawn: bool = True) -> None:
        """... and waits until all is drawn."""
        self.visit(page.resolve().as_uri(), width, dark, drawn)

    def visit(self, address: str, width: int = 1280, dark: bool = False, drawn: bool = True) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.logged()
        self.driver.get(address)
        if drawn:
            self.wait("return document.documentElement.dataset.drawn")

    def send(self, what: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(what, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any) -> Any:
        """What `script` returns, once that is something."""
        deadline = time.monotonic() + WAIT_S
        while not (found := self.run(script, *arguments)):
            assert time.monotonic() < deadline, f"still nothing: {script}"
            time.sleep(0.02)
        return found

    def logged(self) -> list[str]:
        """What was logged since the last time: errors, warnings and what the policy refused."""
        return [each["message"] for each in self.driver.get_log("browser")]

    def asked(self) -> list[str]:
        """The addresses that were asked for since the last time, but for those inside of pages."""
        found = []
        for each in self.driver.get_log("performance"):
            message = json.loads(each["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                found += [url] if not url.startswith(("data:", "blob:", "about:")) else []
        return found

    def find(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def move(self, x: float, y: float) -> None:
        """The pointer to a point of the window."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def shoot(self, path: Path) -> None:
        """A picture of the whole page."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def print(self, path: Path) -> None:
        printed = self.send("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(printed["data"]))


@contextlib.contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, so that nothing of the user's is touched."""
    browser, driver = needed()
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    # Chromium's sandbox does not run as root, and /dev/shm is small in containers.
    flags = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars")
    for flag in (*flags, f"--user-data-dir={profile}", "--no-first-run", "--disable-background-networking"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(driver))
    made.set_page_load_timeout(WAIT_S)
    try:
        yield Browser(made)
    finally:
        made.quit()


def keep(browser: Browser, name: str) -> None:
    if folder := os.environ.get("EDGENAS_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.shoot(Path(folder) / f"{name}.png")


def spot_of(browser: Browser, role: str) -> tuple[float, float]:
    """Where the first point of the series of that role is, in the window; its chart is scrolled there."""
    return tuple(
        browser.run(
            """const data = JSON.parse(document.getElementById('data').textContent);
            const [name, chart] = Object.entries(data.charts).find(([, each]) => each.table);
            const series = chart.series.find(each => each.role === arguments[0]);
            const table = data.tables[chart.table], row = series.rows[0];
            const plot = document.querySelector(`[data-chart=${name}] .plot`);
            plot.scrollIntoView({block: 'center', behavior: 'instant'});
            plot.focus({preventScroll: true});
            return new Promise(done => requestAnimationFrame(() => {
                const chartObject = plot.edgenas, over = plot.querySelector('.u-over').getBoundingClientRect();
                const u = chartObject.u;
                done([over.left + u.valToPos(table.data[chart.xs[0].column][row], 'x'),
                      over.top + u.valToPos(table.data[chart.y.column][row], 'y')]);
            }));""",
            role,
        )
    )


def serious_faults(browser: Browser, axe: str) -> list[tuple[str, str, str]]:
    """The name of each serious fault of the page that is open, where it is, and what axe says of it."""
    browser.run(axe)
    browser.driver.set_script_timeout(120)
    found = browser.driver.execute_async_script(
        "const done = arguments[arguments.length - 1]; axe.run(document).then(found => done(found.violations))"
    )
    return [
        (each["id"], node["html"][:200], node["failureSummary"])
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"][:3]
    ]

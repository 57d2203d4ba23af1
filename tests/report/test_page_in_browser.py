"""Reports in a real browser: nothing goes wrong, nothing leaves the page, and what a person does works.

Pictures go to the folder that EDGENAS_SCREENSHOTS names, if it does: look at them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from edgenas.report.page import render
from edgenas.report.subjects import Subject, read
from edgenas.text import printables
from tests.report.browser import Browser, keep, serious_faults, spot_of
from tests.report.subjects import KINDS, MAKERS
from tests.report.test_page import HOSTILE


@pytest.fixture(scope="module")
def made() -> dict[str, Subject]:
    """Subjects by their kinds, each made once."""
    return {}


@pytest.fixture
def page(made: dict[str, Subject], workplace: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Makes the page of a kind, or, called `all`, one of all kinds."""

    def make(kind: str) -> Path:
        kinds = KINDS if kind == "all" else [kind]
        for each in kinds:
            if each not in made:
                made[each] = read(MAKERS[each](workplace, capsys))
        path = workplace / f"{kind}.html"
        path.write_text(render([made[each] for each in kinds]))
        return path

    return make


@pytest.mark.parametrize("kind", [*KINDS, "all"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide", "narrow-dark"])
def test_a_page_opens_without_an_error_or_a_request(
    kind: str, width: int, dark: bool, page: Any, browser: Browser
) -> None:
    path = page(kind)
    browser.asked()
    browser.open(path, width, dark)
    assert browser.logged() == []
    assert browser.asked() == [path.as_uri()]
    assert browser.run("return document.documentElement.scrollWidth") <= width, "nothing sticks out"
    figures = browser.run("return document.querySelectorAll('figure').length")
    assert figures == browser.run("return document.querySelectorAll('.plot canvas').length") >= 1
    drawn = """return [...document.querySelectorAll('.plot canvas')].map(canvas => {
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const seen = new Set();
        for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) seen.add(pixels.slice(i, i + 3).join());
        return seen.size;
    })"""
    assert all(colours > 3 for colours in browser.run(drawn)), "every chart has something on it"
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    keep(browser, f"{kind}-{width}{'-dark' * dark}")


def test_a_candidate_that_is_pointed_at_shows_its_command(
    page: Any, made: dict[str, Subject], browser: Browser
) -> None:
    browser.open(page("search"))
    x, y = spot_of(browser, "winner")
    browser.move(x - 60, y - 60)
    browser.move(x + 1, y + 1)
    tip = browser.wait("const tip = document.querySelector('.tip'); return tip.hidden ? '' : tip.innerText")
    result = made["search"].result
    assert result is not None
    arch_str = result["winner"]["arch_str"]
    assert "what: winner" in tip
    assert f"edgenas train --space nasbench201 --dataset cifar10 --arch '{arch_str}'" in tip
    assert f"latency (ms): {result['winner']['costs']['latency']['value']:.5g}" in tip
    browser.click(x + 1, y + 1)
    chosen = browser.wait("return document.querySelector('.chosen').innerText")
    assert arch_str in chosen
    inside = """const tip = document.querySelector('.tip').getBoundingClientRect();
        const plot = document.querySelector('.plot').getBoundingClientRect();
        return tip.left >= plot.left - 1 && tip.right <= plot.right + 1"""
    assert browser.run(inside), "it stays within the chart"


def test_the_command_of_a_candidate_is_valid(page: Any, browser: Browser, workplace: Path) -> None:
    import shlex

    from edgenas.cli import app

    browser.open(page("search"))
    browser.run("document.querySelector('figure details summary').click()")
    text = browser.wait("const cell = document.querySelector('.rows td code'); return cell && cell.textContent")
    words = shlex.split(text)
    assert " ".join(words[:2]) == "edgenas train"
    known = {each.opts[-1] for each in typer.main.get_command(app).commands["train"].params}  # type: ignore[attr-defined]
    assert {word for word in words if word.startswith("--")} <= known
    from edgenas.spaces.nasbench201 import NASBench201

    assert NASBench201().parse(words[words.index("--arch") + 1])


def test_arrow_keys_go_from_candidate_to_candidate(page: Any, browser: Browser) -> None:
    browser.open(page("search"))
    spot_of(browser, "winner")
    texts = []
    for key in ("Home", "ArrowRight", "ArrowRight", "End"):
        for kind in ("keyDown", "keyUp"):
            browser.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)
        texts.append(browser.wait("return document.querySelector('.chosen').innerText"))
    costs = [float(re.search(r"latency \(ms\): ([0-9.]+)", text)[1]) for text in texts]  # type: ignore[index]
    assert costs == sorted(costs)
    assert len(set(texts)) > 2


def test_another_cost_can_be_chosen_and_kinds_hidden(page: Any, browser: Browser) -> None:
    browser.open(page("search"))
    browser.run(
        """const choice = document.querySelector('.controls select');
        choice.value = '1'; choice.dispatchEvent(new Event('change'));"""
    )
    label = browser.run("const chart = document.querySelector('.plot').edgenas; return chart.axis.label")
    assert label == "MACs (M)"
    before = browser.run("return document.querySelector('.plot').edgenas.points.length")
    browser.run("document.querySelector('.key').click()")
    assert 0 < browser.run("return document.querySelector('.plot').edgenas.points.length") < before
    assert browser.run("return document.querySelector('.key').getAttribute('aria-pressed')") == "false"
    assert browser.logged() == []


def test_a_part_of_a_chart_is_enlarged_and_all_shown_again(page: Any, browser: Browser) -> None:
    browser.open(page("front"))
    x, y = spot_of(browser, "front")
    scale = "const {x} = document.querySelector('.plot').edgenas.u.scales; return [x.min, x.max]"
    whole = browser.run(scale)
    browser.send("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
    for step in range(1, 6):
        browser.send(
            "Input.dispatchMouseEvent", type="mouseMoved", x=x + 40 * step, y=y + 30 * step, button="left", buttons=1
        )
    browser.send("Input.dispatchMouseEvent", type="mouseReleased", x=x + 200, y=y + 150, button="left", clickCount=1)
    part = browser.wait(f"{scale.replace('return', 'const all =')}; return all[1] < {whole[1]} && all")
    assert part[1] - part[0] < whole[1] - whole[0]
    browser.run("[...document.querySelectorAll('button')].find(each => each.textContent === 'Show all').click()")
    assert browser.wait(f"{scale.replace('return', 'const all =')}; return all[1] === {whole[1]} && all") == whole


@pytest.mark.parametrize("kind", ["comparison", "search"])
def test_tables_are_sorted_by_a_click(kind: str, page: Any, browser: Browser) -> None:
    browser.open(page(kind))
    if kind == "search":
        browser.run("document.querySelector('figure details summary').click()")
        browser.wait("return document.querySelector('.rows table')")
    table = ".rows table" if kind == "search" else "section table.sortable:not(figure table)"
    column = 2 if kind == "search" else 1
    last = f"[...document.querySelectorAll('{table}')].at(-1)"
    number = f"Number(row.cells[{column}].textContent.replace(/,/g, ''))"
    values = f"return [...{last}.tBodies[0].rows].map(row => {number})"
    button = f"{last}.tHead.rows[0].cells[{column}].querySelector('button').click()"
    for order in ("descending", "ascending", "descending"):
        browser.run(button)
        found = browser.run(values)
        assert len(found) >= 3
        assert found == sorted(found, reverse=order == "descending"), order
        assert browser.run(f"return {last}.tHead.rows[0].cells[{column}].ariaSort") == order


def test_the_list_of_candidates_shows_more_when_asked(page: Any, browser: Browser) -> None:
    browser.open(page("front"))
    browser.run("document.querySelector('figure details summary').click()")
    rows = "return document.querySelectorAll('.rows tbody tr').length"
    assert browser.wait(rows) == 100
    data = "JSON.parse(document.getElementById('data').textContent)"
    total = browser.run(f"return {data}.tables.table0.data[0].length")
    browser.run("document.querySelector('.more').click()")
    assert browser.run(rows) == min(600, total) > 100


def test_what_is_printed_has_whole_charts_in_light_colours(page: Any, browser: Browser, workplace: Path) -> None:
    """A chart lies on one page, within its margins."""
    path = page("all")
    browser.open(path, dark=True)
    browser.run(
        """addEventListener('beforeprint', () => setTimeout(() => {}));
        addEventListener('afterprint', () => { document.documentElement.dataset.printed = 'yes'; });"""
    )
    browser.print(workplace / "printed.pdf")
    assert (workplace / "printed.pdf").stat().st_size > 20_000
    assert browser.logged() == []
    browser.wait("return document.documentElement.dataset.printed")
    # As paper has it: A4 less its margins is 680 pixels wide and 1,009 high.
    browser.send("Emulation.setEmulatedMedia", media="print")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    browser.send("Emulation.setDeviceMetricsOverride", width=680, height=1009, deviceScaleFactor=1, mobile=False)
    boxes = browser.run(
        """return [...document.querySelectorAll('figure')].map(each => {
            const figure = each.getBoundingClientRect(), canvas = each.querySelector('canvas').getBoundingClientRect();
            return [figure.right, canvas.right, figure.height, getComputedStyle(each).breakInside];
        })"""
    )
    assert len(boxes) > 10
    for right, canvas, height, inside in boxes:
        assert right <= 681
        assert canvas <= 681
        assert height <= 1009
        assert inside == "avoid"
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.run("dispatchEvent(new Event('afterprint'))")
    if shutil.which("pdftotext"):
        text = subprocess.run(
            ["pdftotext", workplace / "printed.pdf", "-"], capture_output=True, text=True, check=True
        ).stdout
        assert "Verdict" in text
        assert "edgenas search" in text


def test_hostile_words_do_nothing(workplace: Path, capsys: pytest.CaptureFixture[str], browser: Browser) -> None:
    subject = read(MAKERS["refined"](workplace, capsys))
    training = {**subject.training, "class_names": [HOSTILE, "b", "c"], "dataset": HOSTILE}
    measured = read(MAKERS["deployment"](workplace, capsys))
    board = {**measured.fact, "board": {"name": HOSTILE, "device": HOSTILE}}
    path = workplace / "hostile.html"
    subjects = [
        replace(subject, name=HOSTILE, training=printables(training)),
        replace(measured, fact=printables(board)),
    ]
    path.write_text(render(subjects))
    browser.asked()
    browser.open(path)
    browser.run("document.querySelectorAll('summary').forEach(each => each.click())")
    browser.wait("return document.querySelector('.rows table')")
    assert browser.logged() == []
    assert browser.asked() == [path.as_uri()]
    assert browser.run("return document.querySelectorAll('img, iframe, object, embed, link, base').length") == 0
    assert browser.run("return document.querySelectorAll('script').length") == 3
    assert "hacked()" in browser.run("return document.body.innerText")


def test_without_its_program_the_page_still_says_all(page: Any, browser: Browser) -> None:
    path = page("search")
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(path, drawn=False)
        text = browser.driver.find_element("css selector", "main").text
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
    assert "The charts need JavaScript" in text
    assert "of 5 ms" in text
    assert "edgenas search" in text


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide", "narrow-dark"])
def test_axe_finds_nothing_serious(width: int, dark: bool, page: Any, browser: Browser, axe: str) -> None:
    browser.open(page("all"), width, dark)
    browser.run("document.querySelectorAll('summary').forEach(each => each.click())")
    browser.wait("return document.querySelector('.rows table')")
    assert serious_faults(browser, axe) == []


def test_axe_would_find_a_fault(page: Any, browser: Browser, axe: str) -> None:
    browser.open(page("training"))
    browser.run("document.querySelector('main h1').style.color = '#eee'")
    assert [name for name, *_ in serious_faults(browser, axe)] == ["color-contrast"]

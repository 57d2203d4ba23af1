"""`edgenas report`: what was found, as one HTML file that needs nothing else.

`render` makes the page from what `edgenas.report.subjects.read` gave, and from nothing else. All that the page's
program draws is one block of JSON in it. The program and its style are in assets/, beside uPlot, which draws the
charts. A policy in the page keeps it from asking for anything, and from running what is not its own.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgenas import __version__
from edgenas.errors import UsageError
from edgenas.files import read_file, write_whole
from edgenas.report.page import boards, comparisons, provenance, searches, training, verdict
from edgenas.report.page.charts import Drawings
from edgenas.report.page.costs import in_order, titled
from edgenas.report.page.markup import Markup, element, json_block, section, table
from edgenas.report.subjects import Subject, read_all
from edgenas.report.text import constraints_text
from edgenas.text import printable

ASSETS = Path(__file__).with_name("assets")
MAX_SUBJECTS = 50
GENERATOR = "EdgeNAS report"
_ADVICE = "give another place with -o"
_LOOK_BYTES = 1 << 26  # of what lies where a page is to be written


@dataclass(frozen=True)
class Live:
    """Of a page that a server shows while its subjects change: it asks for itself every `poll_s` seconds, and takes
    what has another `tag`. `note`: how things stand, in a sentence."""

    note: str
    tag: str
    poll_s: float


def report(names: Sequence[str], output: Path) -> Path:
    """Write the page on what `names` name to `output`. Raises UsageError and DataError as `read_all` does, and
    UsageError where the page cannot be written or something else lies there."""
    check_count(names)
    _check_place(output)
    content = render([subject for name in dict.fromkeys(names) for subject in read_all(name)])
    write_whole(output, content.encode(), UsageError, _ADVICE)
    return output


def check_count(names: Sequence[str]) -> None:
    """Raise UsageError where `names` are too many for a page."""
    if len(names) > MAX_SUBJECTS:
        raise UsageError(f"a report is of {MAX_SUBJECTS} runs at most, not {len(names)}; make several")


def _check_place(output: Path) -> None:
    """Raise UsageError where `output` is something that no report may take the place of."""
    if output.is_dir():
        raise UsageError(f"{printable(output)} is a folder; name a file, like -o report.html")
    if os.path.lexists(output):
        there = read_file(output, _LOOK_BYTES, UsageError, _ADVICE)
        if there and GENERATOR.encode() not in there[:2000]:
            raise UsageError(f"{printable(output)} is no report, so it stays; give another place with -o")


def render(subjects: Sequence[Subject], live: Live | None = None) -> str:
    """The page: a file that asks for nothing, or, where it is `live`, one that asks its server for its next state."""
    drawings = Drawings()
    places = [f"subject{number}" for number in range(len(subjects))]
    cards = [
        verdict.card(subject, [each for each in subjects if each is not subject], place, _short(subject, subjects))
        for subject, place in zip(subjects, places, strict=True)
    ]
    articles = [
        _article(subject, _short(subject, subjects), place, drawings)
        for subject, place in zip(subjects, places, strict=True)
    ]
    connect, asks = ("'self'", "only the program that serves it") if live else ("'none'", "nothing from outside")
    body = element(
        "main",
        element("h1", _title(subjects)),
        _live_note(live),
        section("Verdict", element("div", *cards, class_="cards"), _side_by_side(subjects), level=2),
        *articles,
        element("noscript", element("p", "The charts need JavaScript; all else on this page does not.", class_="note")),
        element(
            "footer",
            f"Made by EdgeNAS {__version__}. Charts by uPlot (MIT licence). This page asks {asks}.",
        ),
    )
    data = json_block({"charts": drawings.charts, "tables": drawings.tables}, "data")
    scripts = [_asset(name) for name in ("uPlot.iife.min.js", "report.js", *(["live.js"] if live else []))]
    hashes = " ".join(f"'sha256-{_sha256(each)}'" for each in scripts)
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}; img-src data:; connect-src {connect};"
        " base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="generator", content=GENERATOR),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,") if live else "",  # else a browser asks for one
        element("title", _title(subjects)),
        Markup(f"<style>{_asset('uPlot.min.css')}{_asset('report.css')}</style>"),
    )
    programs = Markup("".join(f"<script>{each}</script>" for each in scripts))
    page = element("html", head, element("body", body, data, programs), lang="en")
    return f"<!doctype html>\n{page}\n"


def _live_note(live: Live | None) -> Markup:
    if live is None:
        return Markup("")
    polling = {"data_tag": live.tag, "data_poll": f"{1000 * live.poll_s:.0f}"}
    return element("p", live.note, id="live", class_="note", role="status", **polling)


def _title(subjects: Sequence[Subject]) -> str:
    names = ", ".join(_short(subject, subjects) for subject in subjects[:3])
    return f"EdgeNAS report: {names}{', ...' * (len(subjects) > 3)}"


def _short(subject: Subject, subjects: Sequence[Subject]) -> str:
    """The end of its path, where no other of the subjects ends so."""
    ends = [each.name.rstrip("/").rpartition("/")[2] for each in subjects]
    end = subject.name.rstrip("/").rpartition("/")[2]
    return end if end and ends.count(end) == 1 else subject.name


def _article(subject: Subject, name: str, place: str, drawings: Drawings) -> Markup:
    parts: list[Markup] = []
    if subject.kind == "search":
        parts += searches.sections(subject, drawings)
        refined = searches.refinement(subject, drawings)
        parts += [refined] if refined is not None else []
    if subject.kind in ("search", "training"):
        parts += training.sections(subject, drawings)
    elif subject.kind in ("measurement", "deployment"):
        parts += boards.sections(subject, drawings)
    else:
        parts += comparisons.sections(subject, drawings)
    parts.append(provenance.section_of(subject))
    kind = "front" if subject.kind == "search" and subject.header["request"].get("pareto") else subject.kind
    return section(f"{kind.capitalize()}: {name}", *parts, level=2, identity=place)


def _side_by_side(subjects: Sequence[Subject]) -> Markup:
    """A line for each search, where there are several."""
    searched = [each for each in subjects if each.kind == "search"]
    if len(searched) < 2:
        return Markup("")
    rows = []
    known = in_order({cost for each in searched for cost in ((each.result or {}).get("winner") or {}).get("costs", {})})
    for each in searched:
        result = each.result or {}
        winner = result.get("winner")
        costs = winner["costs"] if winner else {}
        accuracy = each.training.get("test_accuracy", winner and winner["test_accuracy"])
        rows.append(
            [
                each.name,
                each.header["request"]["device"],
                each.header["request"]["dataset"],
                constraints_text(dict(result)) if result else "not ended",
                winner and winner["score"],
                *(costs.get(metric, {}).get("value") for metric in known),
                accuracy if isinstance(accuracy, float) else None,
                len(each.trials),
            ]
        )
    header = ["run", "device", "data set", "limits", "score", *map(titled, known)]
    return table([*header, "test accuracy (%)", "trials"], rows, "The searches side by side")


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _sha256(program: str) -> str:
    return base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()

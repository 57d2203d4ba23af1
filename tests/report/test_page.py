"""`edgenas report`: what is on the page, for each kind of thing, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgenas.architecture import Composed
from edgenas.cli import main
from edgenas.report.page import ASSETS, MAX_SUBJECTS, render
from edgenas.report.page import commands as page_commands
from edgenas.report.page.candidates import MAX_DETAILED
from edgenas.report.page.markup import Markup, element, json_block, text
from edgenas.report.page.networks import distance, operations
from edgenas.report.page.training import _matrix, _per_class
from edgenas.report.subjects import Subject, read, read_all
from edgenas.spaces.mobilenet import EfficientNetLite0
from edgenas.text import printables
from tests.fuzz import cases, command
from tests.report.subjects import CLASSES, KINDS, MAKERS, SPACE
from tests.test_fuzz_inputs import mutated

HOSTILE = "<script>hacked()</script>\"'><img src=x onerror=hacked()></script><!--\u2028\u202e\x1b[31m&amp;{{7*7}}`${1}`"
Make = Callable[[str], str]


@pytest.fixture
def make(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Make:
    """Makes a subject of a kind; what to call it by."""
    return lambda kind: MAKERS[kind](workplace, capsys)


class Seen(HTMLParser):
    """What a page has: its elements by name, its text, and the block of JSON."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside: list[str] = []
        self._data = ""
        self.feed(page)
        self.close()
        self.data: dict[str, Any] = json.loads(self._data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside.append("data" if ("id", "data") in attrs else tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() not in (tag, "data"):
            pass

    def handle_data(self, data: str) -> None:
        inside = self._inside[-1] if self._inside else ""
        if inside == "data":
            self._data += data
        elif inside not in ("script", "style"):
            self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def reported(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of `edgenas report`, and what it said is wrong."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["report", *arguments])
    return end.value.code if isinstance(end.value.code, int) else 0, capsys.readouterr().err


def seen(*names: str) -> Seen:
    return Seen(render([read(name) for name in names]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_of_each_kind(kind: str, make: Make, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = make(kind)
    code, printed = command(kind, capsys, "report", name, "-o", "page.html")
    assert code == 0
    assert printed.startswith("page.html: ")
    page = Path("page.html").read_text()
    assert len(page) < 2_000_000
    found = Seen(page)
    headings = [tag for tag, _ in found.elements if tag in ("h1", "h2", "h3", "h4")]
    assert headings[:3] == ["h1", "h2", "h3"], "the verdict comes first"
    assert found.text.index("Verdict") < found.text.index("How to do it again")
    assert found.count("figure") == len(found.data["charts"]) >= 1
    for figure in found.data["charts"].values():
        assert len(figure["alternative"]) > 20, "a chart is said in words too"
    assert page.count("Numbers of: ") == found.count("figure"), "every chart has its numbers below it"
    assert "edgenas " in found.text


def test_the_verdict_of_a_search(make: Make) -> None:
    found = seen(make("search"))
    result = read(make("search")).result
    assert result is not None
    winner = result["winner"]
    cost = winner["costs"]["latency"]
    assert f"{cost['value']:.4g} ms of 5 ms" in found.text
    assert "with 95 % probability" in found.text
    assert f"{100 * cost['chance_over_limit']:.0f} % chance of missing the limit" in found.text
    assert f"{winner['test_accuracy']:.2f} %" in found.text
    assert SPACE.draw(SPACE.parse(winner["arch_str"])) in found.text
    assert SPACE.describe(SPACE.parse(winner["arch_str"])) in found.text


def test_the_verdict_of_what_was_trained_and_exported(make: Make) -> None:
    found = seen(make("refined")).text
    assert "94.69 % of 113 test images of digits" in found
    assert "93.81 % against 94.69 %, -0.88 points, on 113 test images" in found
    assert "model_int8.tflite 129.9 KiB" in found


def test_candidates_are_all_there_with_what_trains_them(make: Make) -> None:
    subject = read(make("search"))
    found = seen(make("search")).data
    chart = next(each for each in found["charts"].values() if "table" in each)
    table = found["tables"][chart["table"]]
    unique = {tuple(each["genes"]) for each in subject.trials if each["score"] is not None}
    assert len(table["data"][0]) == len(unique)
    drawn = [row for series in chart["series"] for row in series["rows"]]
    assert sorted(drawn) == list(range(len(unique))), "each is drawn once"
    roles = {series["role"]: series["rows"] for series in chart["series"]}
    assert subject.result is not None
    assert table["data"][-1][roles["winner"][0]] == subject.result["winner"]["arch_str"]
    limit = next(each for each in chart["limits"])
    costs = table["data"][limit["column"]]
    assert all(costs[row] > limit["at"] for row in roles["over"])
    assert all(costs[row] <= limit["at"] for row in roles["within"])
    assert table["command"] == "edgenas train --space nasbench201 --dataset cifar10 --arch "


def test_a_front_is_marked(make: Make) -> None:
    subject = read(make("front"))
    found = seen(make("front")).data
    chart = next(each for each in found["charts"].values() if "table" in each)
    table = found["tables"][chart["table"]]
    rows = next(each["rows"] for each in chart["series"] if each["role"] == "front")
    assert subject.result is not None
    assert [table["data"][-1][row] for row in rows] == [point["arch_str"] for point in subject.result["front"]]
    assert table["data"][-2].count("front") == len(rows)


def test_the_command_searches_again_to_the_same_winner(
    make: Make, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    subject = read(make("search"))
    words = shlex.split(page_commands.search(subject.header))
    code, printed = command("again", capsys, *words[1:], "--run", str(workplace / "again"), "--json")
    assert code == 0
    assert subject.result is not None
    assert json.loads(printed)["winner"]["arch_str"] == subject.result["winner"]["arch_str"]
    assert " ".join(words[:2]) in seen(make("search")).text


def test_many_candidates_are_all_drawn_and_the_best_can_be_pointed_at(make: Make) -> None:
    subject = read(make("front"))
    chance = random.Random(0)
    base = dict(subject.trials[0])
    many = []
    for number, arch in enumerate(SPACE.all_architectures()[:12_000]):
        costs = {"latency": {**base["costs"]["latency"], "value": 1 + 60 * chance.random()}}
        many.append({**base, "trial": number, "genes": list(arch.genes), "score": chance.random(), "costs": costs})
    page = render([replace(subject, trials=many)])
    assert len(page) < 2_000_000
    found = Seen(page).data
    chart = next(each for each in found["charts"].values() if "table" in each)
    table = found["tables"][chart["table"]]
    detailed = len(table["data"][0])
    packed = {len(base64.b64decode(each["values"])) // 2 for each in chart["cloud"].values()}
    assert detailed <= MAX_DETAILED
    assert packed == {len(many) - detailed}
    assert max(each["score"] for each in many) == pytest.approx(max(table["data"][1]), rel=1e-5)


def test_several_on_one_page(make: Make, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [make(kind) for kind in KINDS]
    code, _ = command("all", capsys, "report", *names, "-o", "page.html")
    assert code == 0
    found = Seen(Path("page.html").read_text())
    assert "The searches side by side" in found.text
    ids = [each["id"] for _, each in found.elements if each.get("id")]
    assert len(ids) == len(set(ids))
    assert found.count("article") == len(KINDS)
    assert len(Path("page.html").read_text()) < 2_000_000


def test_a_job_is_its_search_with_the_stock_network_and_the_boards(make: Make, workplace: Path) -> None:
    job = workplace / "job"
    shutil.copytree(make("search"), job / "search")
    shutil.copytree(make("refined"), job / "stock")
    shutil.copy(make("deployment"), job / "fake.json")
    (job / "auto.json").write_text("{}")
    found = read_all("job")
    assert [each.kind for each in found] == ["search", "deployment"]
    page = Seen(render(found))
    assert "94.69 % stock network" in page.text
    chart = next(each for each in page.data["charts"].values() if "table" in each)
    baseline = next(each for each in chart["series"] if each["role"] == "baseline")
    assert page.data["tables"][chart["table"]]["data"][-2][baseline["rows"][0]] == "stock baseline"


def test_limits_of_several_devices_are_told_apart(make: Make) -> None:
    subject = read(make("search"))
    assert subject.result is not None

    def there(costs: dict[str, Any]) -> dict[str, Any]:
        latency = costs["latency"]
        return {
            "latency@raspi4": latency,
            "latency@fpga": {**latency, "value": latency["value"] / 2},
            "macs": costs["macs"],
        }

    request = {**subject.header["request"], "device": "raspi4,fpga", "latency_ms": {"raspi4": 5.0, "fpga": 4.0}}
    limits = [
        {"metric": "latency", "limit": limit, "unit": "ms", "device": device}
        for device, limit in request["latency_ms"].items()
    ]
    winner = subject.result["winner"]
    both = replace(
        subject,
        header={**subject.header, "request": request},
        trials=[{**each, "costs": there(each["costs"])} for each in subject.trials],
        result={**subject.result, "constraints": limits, "winner": {**winner, "costs": there(winner["costs"])}},
    )
    found = Seen(render([both]))
    assert "latency on raspi4 <= 5 ms, latency on fpga <= 4 ms" in found.text
    assert "--latency raspi4=5ms,fpga=4ms" in found.text
    chart = next(each for each in found.data["charts"].values() if "table" in each)
    assert [each["label"] for each in chart["limits"]] == ["limit 5 ms", "limit 4 ms"]
    assert {"latency on fpga (ms)", "latency on raspi4 (ms)"} <= {each["label"] for each in chart["xs"]}


def test_a_deployment_is_told_on_the_card_of_its_network(make: Make) -> None:
    searched, deployed = read(make("search")), read(make("deployment"))
    assert searched.result is not None
    package = {**deployed.fact["package"], "arch_str": searched.result["winner"]["arch_str"]}
    page = render([searched, replace(deployed, fact={**deployed.fact, "package": package})])
    assert "on board fake" in Seen(page).text
    assert "on board fake" not in Seen(render([searched, deployed])).text


def test_samples_are_drawn_with_temperature_and_clocks(make: Make) -> None:
    found = seen(make("measurement"))
    titles = [each["title"] for each in found.data["charts"].values()]
    assert titles == [
        "Distribution of the latency",
        "Latency over time",
        "Temperature while it was measured",
        "Clocks while it was measured",
    ]
    samples = read(make("measurement")).samples["attempts"][-1]["samples_ns"]
    counts = found.data["charts"]["chart0"]["series"][0]["y"]
    assert 0.95 * sum(map(len, samples)) <= sum(counts) <= sum(map(len, samples))


def test_samples_of_another_computer_are_missed_in_a_sentence(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    name = make("measurement")
    monkeypatch.setenv("EDGENAS_STATE_DIR", "elsewhere")
    assert "The raw samples are in the store of the computer that measured" in seen(name).text


def test_a_measurement_of_the_store_is_reported(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    from edgenas.board.store import Store

    make("measurement")
    stored = next(Store().folder.glob("*/*.json"))
    found = seen(str(stored))
    assert "Measured" in found.text
    assert found.data["charts"]["chart0"]["title"] == "Distribution of the latency"


def test_classes_and_confusion(make: Make) -> None:
    found = seen(make("training"))
    assert "From 88.1 % (one) to 100.0 % (two)." in found.text
    assert "one was taken for two most often, 3 times." in found.text


@pytest.mark.parametrize(
    ("record", "accuracies"),
    [
        ({"class_names": CLASSES, "confusion_matrix": [[1, 0, 0], [0, 2, 0], [1, 0, 1]]}, [100, 100, 50]),
        ({"confusion": {"classes": CLASSES, "counts": [[1, 0, 0], [0, 2, 0], [0, 0, 0]]}}, [100, 100, None]),
        ({"classes": [{"class": name, "images": 4, "right": 2} for name in CLASSES]}, [50, 50, 50]),
        ({"per_class": [{"name": name, "images": 4, "right": 3} for name in CLASSES]}, [75, 75, 75]),
        ({"per_class_accuracy": dict(zip(CLASSES, (1.0, 2.0, 3.0), strict=True))}, [1, 2, 3]),
        ({"class_accuracies": [5.0, None, 7.0], "class_names": CLASSES}, [5, None, 7]),
    ],
)
def test_accuracies_by_class_in_whichever_form(record: dict[str, Any], accuracies: list[float | None]) -> None:
    assert [name for name, _, _ in _per_class(record)] == CLASSES
    assert [accuracy for _, accuracy, _ in _per_class(record)] == accuracies


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"confusion_matrix": 5},
        {"confusion_matrix": [[1, 2]]},
        {"confusion_matrix": [[1, "a"], [2, 3]]},
        {"classes": "x"},
    ],
)
def test_no_classes_are_shown_where_none_are_known(record: dict[str, Any]) -> None:
    assert _per_class(record) == []
    assert _matrix(record) == ([], [])


def hostile(value: Any) -> Any:
    """`value` with every text, and every name that is not looked up, turned hostile."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, dict):
        return {key: hostile(each) for key, each in value.items()}
    return [hostile(each) for each in value] if isinstance(value, list | tuple) else value


def test_no_word_from_outside_becomes_a_part_of_the_page(make: Make) -> None:
    keep = ("space", "cost", "pareto", "fitness", "verdict", "unit", "metric")

    def spoiled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: each if key in keep else spoiled(each) for key, each in value.items()}
        return [spoiled(each) for each in value] if isinstance(value, list | tuple) else hostile(value)

    subjects = []
    for kind in KINDS:
        subject = read(make(kind))
        changed = {
            name: printables(spoiled(getattr(subject, name)))
            for name in ("header", "result", "training", "epochs", "export", "fact", "samples", "made_from")
        }
        regrets = [replace(row, method=HOSTILE, device=HOSTILE, arch_str=HOSTILE) for row in subject.regrets]
        subjects.append(replace(subject, name=HOSTILE, regrets=regrets, **changed))
    page = render(subjects)
    found = Seen(page)
    assert found.count("script") == 3, "the data, uPlot and the page's program"
    assert found.count("img") == 0
    assert not [attributes for _, attributes in found.elements if any(name.startswith("on") for name in attributes)]
    assert "hacked()" in found.text, "it is shown as text"
    assert not set("\u2028\u202e\x1b") & set(page)
    assert page.count("</script>") == 3
    assert "onerror" not in {name for _, attributes in found.elements for name in attributes}


def test_the_policy_names_the_programs_of_the_page_and_nothing_else(make: Make) -> None:
    page = render([read(make("training"))])
    policy = next(
        each["content"] for _, each in Seen(page).elements if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    programs = re.findall(r"<script>(.*?)</script>", page, re.S)
    hashes = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in programs]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert not re.search(r"""(src|href)=["'](?!#)""", page.split("<script")[0])
    assert not re.search(r"url\(|@import", page.split("<body")[0])


def test_the_page_is_a_function_of_its_subjects(make: Make) -> None:
    subjects = [read(make(kind)) for kind in KINDS]
    assert render(subjects) == render(subjects)


def test_what_came_with_uplot_is_unchanged() -> None:
    noted = dict(
        reversed(each.split())
        for each in re.findall(r"^    ([0-9a-f]{64}  \S+)$", (ASSETS / "README.md").read_text(), re.M)
    )
    assert set(noted) == {"uPlot.iife.min.js", "uPlot.min.css"}
    for name, digest in noted.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == digest
    assert "MIT License" in (ASSETS / "uPlot.LICENSE").read_text()


# Escaping.


@pytest.mark.parametrize(
    ("value", "html"),
    [
        ("<b>", "&lt;b&gt;"),
        (Markup("<b>"), "<b>"),
        (None, "-"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.1234567, "0.12346"),
        (1e9, "1,000,000,000"),
        (["a", Markup("<br>"), "<"], "a<br>&lt;"),
        ("a\u202eb\x00", "a\\u202eb\\x00"),
        ("two\n  lines", "two\n  lines"),
    ],
)
def test_text(value: Any, html: str) -> None:
    assert text(value) == html


def test_attributes_are_escaped() -> None:
    assert element("a", "x", class_='"><script>', href=None, hidden=True) == (
        '<a class="&quot;&gt;&lt;script&gt;" hidden>x</a>'
    )


def test_a_block_of_json_cannot_be_ended_from_inside() -> None:
    block = json_block({"</script>": "\u2028<!--&"}, "data")
    assert block.count("<") == 2
    assert "\u2028" not in block
    assert json.loads(block.partition(">")[2].rpartition("<")[0]) == {"</script>": "\u2028<!--&"}
    with pytest.raises(ValueError, match="JSON compliant"):
        json_block({"x": float("nan")}, "data")


# What spaces are made of.


@pytest.mark.parametrize("space", [SPACE, EfficientNetLite0()], ids=lambda space: str(space.name))
def test_spaces_say_what_they_are_made_of(space: Any) -> None:
    composed: object = space
    assert isinstance(composed, Composed)
    for arch in _some(space):
        found = operations(space.name, [arch.genes])
        assert found.total() == len(space.operations(arch)) > 0
        assert distance(found, found) == 0


def _some(space: Any) -> list[Any]:
    return [space.smallest(), space.largest()] if hasattr(space, "largest") else space.all_architectures()[:5]


def test_distance_is_the_total_variation() -> None:
    from collections import Counter

    assert distance(Counter(a=1), Counter(b=3)) == 1
    assert distance(Counter(a=1, b=1), Counter(a=3, b=1)) == pytest.approx(0.25)


# What is refused.


@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        ("nothing", 2, "no run"),
        ("folder", 2, "folder without a run.json"),
        ("text", 2, "is no run; name a run"),
        ("other.json", 2, "holds nothing that can be reported"),
        ("nan.json", 7, "cannot be read (NaN is no number)"),
        ("cut.json", 7, "cannot be read"),
        ("deep.json", 7, "cannot be read"),
        ("empty", 2, "no choices yet"),
        ("newer", 7, "has schema version 99"),
        ("damaged", 7, "line 3 of"),
        ("not-a-number", 7, "line 3 of"),
        ("half", 7, "has trials but no run.json"),
        ("fifo.json", 7, "is no regular file"),
    ],
)
def test_what_cannot_be_reported_is_refused_in_a_sentence(
    what: str, code: int, says: str, make: Make, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if what == "folder":
        Path(what).mkdir()
    elif what == "text":
        Path(what).write_text("hello")
    elif what == "other.json":
        Path(what).write_text('{"a": [1, 2]}')
    elif what == "nan.json":
        Path(what).write_text('{"median_ms": NaN}')
    elif what == "cut.json":
        Path(what).write_text('{"median_ms": 1')
    elif what == "deep.json":
        Path(what).write_text("[" * 100_000)
    elif what == "empty":
        Path(what).mkdir()
        (Path(what) / "regrets.csv").write_text("")
    elif what == "fifo.json":
        os.mkfifo(what)
    elif what != "nothing":
        shutil.copytree(make("search"), what)
        header, trials = Path(what) / "run.json", Path(what) / "trials.jsonl"
        lines = trials.read_bytes().splitlines(keepends=True)
        if what == "newer":
            header.write_text(header.read_text().replace('"schema_version": 3', '"schema_version": 99'))
        elif what == "damaged":
            trials.write_bytes(b"".join([*lines[:2], b'{"trial": 2}\n', *lines[3:]]))
        elif what == "not-a-number":
            spoiled = re.sub(rb'"score": [0-9.]+', b'"score": NaN', lines[2])
            trials.write_bytes(b"".join([*lines[:2], spoiled, *lines[3:]]))
        else:
            header.unlink()
    ended, said = reported(capsys, what)
    assert ended == code, said
    assert says in said
    assert said.count("\n") == 1
    assert not Path("report.html").exists()


def test_a_search_that_was_killed_is_reported(make: Make, workplace: Path) -> None:
    shutil.copytree(make("search"), "killed")
    (Path("killed") / "result.json").unlink()
    trials = Path("killed") / "trials.jsonl"
    trials.write_bytes(trials.read_bytes()[:-20])
    found = seen("killed")
    assert "UNFINISHED" in found.text
    assert "edgenas search --resume killed" in found.text


def test_a_search_without_a_trial_is_reported(make: Make, workplace: Path) -> None:
    shutil.copytree(make("search"), "begun")
    (Path("begun") / "result.json").unlink()
    (Path("begun") / "trials.jsonl").write_bytes(b"")
    assert "No candidate was scored yet." in seen("begun").text


def test_a_search_that_found_nothing_is_reported(make: Make) -> None:
    subject = read(make("search"))
    assert subject.result is not None
    found = Seen(render([replace(subject, result={**subject.result, "feasible": False, "winner": None})]))
    assert "NOTHING FITS" in found.text


def test_a_run_of_a_space_that_is_not_installed_is_reported(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = read(make("search"))
    monkeypatch.setattr("edgenas.report.page.networks.space_of", lambda name: None)
    found = Seen(render([subject]))
    assert "does not draw its networks here" in found.text
    table = next(iter(found.data["tables"].values()))
    assert "command" not in table


def test_a_run_of_an_older_schema_is_reported(make: Make, workplace: Path) -> None:
    shutil.copytree(make("search"), "old")
    for name in ("run.json", "result.json", "trials.jsonl"):
        path = Path("old") / name
        path.write_text(
            path.read_text().replace('"scored"', '"trained"').replace('"schema_version": 3', '"schema_version": 2')
        )
    settings = json.loads((Path("old") / "run.json").read_text())
    settings["search_settings"]["economical"] = True
    del settings["search_settings"]["survival"]
    (Path("old") / "run.json").write_text(json.dumps(settings))
    assert "EXPECTED" in seen("old").text or "LIKELY" in seen("old").text


def test_nothing_but_a_report_is_written_over(make: Make, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = make("training")
    Path("mine.html").write_text("mine")
    code, said = reported(capsys, name, "-o", "mine.html")
    assert code == 2
    assert "is no report, so it stays" in said
    assert Path("mine.html").read_text() == "mine"
    for _ in range(2):
        assert command("again", capsys, "report", name)[0] == 0


@pytest.mark.parametrize(("output", "says"), [("runs", "is a folder"), ("a/b.html", ""), ("/proc/no/page.html", "")])
def test_where_a_page_goes(
    output: str, says: str, make: Make, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = make("training")
    Path("runs").mkdir(exist_ok=True)
    code, said = reported(capsys, name, "-o", output)
    assert code == (0 if output == "a/b.html" else 2), said
    assert says in said


def test_too_many_are_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = reported(capsys, *(f"run{i}" for i in range(MAX_SUBJECTS + 1)))
    assert code == 2
    assert "make several" in said


def test_mutated_files_are_reported_or_refused(make: Make, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = {
        "deployment": [make("deployment")],
        "measurement": [make("measurement")],
        "training": [str(Path(make("training")) / "train" / "result.json")],
        "refined": [str(Path(make("refined")) / name) for name in ("run.json", "result.json", "export/export.json")],
    }
    whole = {path: Path(path).read_bytes() for paths in places.values() for path in paths}
    for case, chance in cases("report", 40, 4000):
        kind = chance.choice(list(places))
        path = chance.choice(places[kind])
        value = json.loads(whole[path])
        for _ in range(chance.randint(1, 3)):
            mutated(value, chance)
            value = json.loads(json.dumps(value))  # what is in it twice is so no more
        Path(path).write_text(json.dumps(value))
        code, _ = command(case, capsys, "report", make_name(kind, workplace), "-o", "page.html")
        assert code in (0, 2, 7), case
        if code == 0:
            Seen(Path("page.html").read_text())
        Path(path).write_bytes(whole[path])


def make_name(kind: str, folder: Path) -> str:
    names = {"deployment": "deployed.json", "measurement": "measured.json"}
    return str(folder / names.get(kind, kind))


def test_a_subject_says_nothing_by_default() -> None:
    assert "UNFINISHED" in Seen(render([Subject("x", "training")])).text

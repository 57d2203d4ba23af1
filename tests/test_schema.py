"""What the files of a run may hold, and that whatever else they hold is a sentence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas import run as runs
from edgenas import schema
from edgenas.architecture import Architecture, Cost, Refined, Score, SearchRequest, Trial
from edgenas.errors import DataError
from edgenas.fitness import FitnessSettings
from edgenas.schema.types import Costs, Metric
from edgenas.search.settings import SearchSettings
from edgenas.units import METRICS
from tests.runs import header, result, winner

GENES = (1, 2, 3, 4, 0, 1)
ARCH = Architecture("nasbench201", GENES)


def made(path: Path, count: int = 3, **asked: Any) -> runs.Run:
    run = runs.create(path, header(**asked))
    cost = Cost({"latency": 2.0, "macs": 3.0}, {"latency": "a test", "macs": "counted"})
    with run.appending() as store:
        for number in range(count):
            arch = Architecture("nasbench201", (*GENES[:5], number))
            store.append(Trial(number, 0, arch, Score(1.5, 0.1, phi=2.5), cost, 1.5, True, True), "a cell")
    run.finish(result(winner(GENES, "a cell", latency=2.0), constraints=[limit("latency", 5.0)]))
    return run


def limit(metric: str, value: float) -> dict[str, Any]:
    return {"metric": metric, "limit": value, "unit": METRICS[metric].unit}


def changed(record: Any, key: str, value: Any) -> Any:
    """`record` with another `value` at a.dotted.key; `...` takes the key out."""
    first, _, rest = key.partition(".")
    place: Any = int(first) if isinstance(record, list) else first
    copy = list(record) if isinstance(record, list) else dict(record)
    if rest:
        copy[place] = changed(record[place], rest, value)
    elif value is ...:
        del copy[place]
    else:
        copy[place] = value
    return copy


def test_the_schema_and_the_program_speak_of_the_same_metrics_and_settings() -> None:
    assert set(get_args(Metric)) == set(METRICS) == set(Costs.__annotations__)
    asked = {each.name for each in dataclasses.fields(SearchRequest)}
    assert set(schema.header({"schema_version": 3, **header()})["request"]) == asked
    for kind, made_by in ((SearchSettings, SearchSettings()), (FitnessSettings, FitnessSettings(eval_steps=()))):
        record = json.loads(json.dumps({k: v for k, v in dataclasses.asdict(made_by).items() if k != "eval_steps"}))
        assert schema.settings(kind, record) == made_by
    with pytest.raises(ValueError, match=r"precision .* at most 4096"):
        schema.settings(FitnessSettings, {"precision": "p" * 5000})


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[NaN]", b"[Infinity]", b"[1e999]", b"[" + b"1" * 30 + b"]", b"[" * 100_000, b"\xff\xfe\xfd"],
)
def test_what_is_no_json_in_bounds(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        schema.parse(content)


def test_a_byte_order_mark_is_read_over() -> None:
    assert schema.parse(b"\xef\xbb\xbf[1]") == [1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((name, ...) for name in ("kind", "created", "request", "search_settings", "fitness_source", "versions")),
        ("kind", "else"),
        ("created", 3),
        ("created", "yesterday"),
        ("request", []),
        ("request.device", ...),
        ("request.device", 5),
        ("request.device", "d" * 5000),
        ("request.dataset", "d" * 5000),
        ("request.latency_ms", "5"),
        ("request.latency_ms", -1.0),
        ("request.latency_ms", 1e300),
        ("request.latency_ms", True),
        ("request.seed", 0.5),
        ("request.pareto", "beauty"),
        ("fitness_settings", None),
        ("schema_version", 4),
        ("schema_version", 0),
        ("schema_version", True),
        ("schema_version", "3"),
        ("picked_from", 1),
    ],
)
def test_a_damaged_header_is_a_sentence(tmp_path: Path, key: str, value: Any) -> None:
    path = made(tmp_path / "r").path / "run.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), key, value)))
    with pytest.raises(DataError, match="start a new run") as caught:
        runs.open_run(str(tmp_path / "r"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((name, ...) for name in ("trial", "genes", "score", "costs", "feasible", "cost_error")),
        ("trial", 7),
        ("trial", "1"),
        ("space", "another"),
        ("genes", [1, 2, 3]),
        ("genes", [1, 2, 3, 4, 0, 5]),
        ("genes", [1, 2, 3, 4, 0, -1]),
        ("genes", [1, 2, 3, 4, 0, True]),
        ("genes", [10**18] * 6),
        ("genes", "123401"),
        ("score", "high"),
        ("score", None),
        ("fitness", None),
        ("feasible", 1),
        ("costs.latency", ...),
        ("costs.latency.value", -1.0),
        ("costs.latency.value", "2"),
        ("costs.latency.unit", "s"),
        ("costs.beauty", {"value": 1.0, "unit": "M", "source": ""}),
    ],
)
def test_a_damaged_trial_is_named_by_its_line(tmp_path: Path, key: str, value: Any) -> None:
    run = made(tmp_path / "r", latency_ms=5.0)
    path = run.path / "trials.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1] = changed(lines[1], key, value)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=r"^line 2 of .*trials\.jsonl is damaged \(") as caught:
        run.trials()
    assert "\n" not in str(caught.value)


def made_for_two(path: Path) -> runs.Run:
    """As `made`, of a search for two devices."""
    limits = {"edgetpu": 1.0, "raspi4": 5.0}
    run = runs.create(path, header(device="edgetpu,raspi4", latency_ms=limits))
    cost = Cost({"latency@edgetpu": 0.5, "latency@raspi4": 2.0, "macs": 3.0}, {"macs": "counted"})
    with run.appending() as store:
        store.append(Trial(0, 0, ARCH, Score(1.5, 0.1, phi=2.5), cost, 1.5, True, True), "a cell")
    run.keep_measured({ARCH: cost})
    found = {**winner(GENES, "a cell"), "costs": runs.cost_record(cost)}
    facts = {"genes": list(GENES), "arch_str": "a cell", "score": 1.5, "test_accuracy": 91.0}
    beside = {**facts, "device": "raspi4", "best_possible_accuracy": None, "searched": True, "command": "edgenas"}
    nothing = {**dict.fromkeys(beside), "device": "edgetpu", "searched": False, "command": "edgenas"}
    compromise = {**facts, "best_possible_accuracy": 92.0, "alone": [nothing, beside]}
    again = {"verdict": "PASS", "values": {"latency@raspi4": 2.1}, "source": "a board", "arch_str": "a cell"}
    kept = [{**limit("latency", each), "device": name} for name, each in limits.items()]
    run.finish(result(found, constraints=kept, compromise=compromise, confirmations=[again], device="edgetpu,raspi4"))
    return run


def test_what_is_of_several_devices_is_read_as_it_was_written(tmp_path: Path) -> None:
    made_for_two(tmp_path / "r")
    run = runs.open_run(str(tmp_path / "r"))
    assert run.header["request"]["latency_ms"] == {"edgetpu": 1.0, "raspi4": 5.0}
    (trial,) = run.trials()
    assert list(trial.cost.values.items()) == [("latency@edgetpu", 0.5), ("latency@raspi4", 2.0), ("macs", 3.0)]
    assert run.measured()[ARCH].values == trial.cost.values
    stored = json.loads((tmp_path / "r" / "result.json").read_text())
    assert run.result() == {**stored, "run": str(run.path)}


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("run.json", "request.latency_ms", {"raspi4": -1.0}),
        ("run.json", "request.latency_ms", {"raspi4": "5"}),
        ("run.json", "request.latency_ms", {"../raspi4": 5.0}),
        ("run.json", "request.macs_m", {"raspi4": 5.0}),
        ("trials.jsonl", "costs.latency@raspi4", ...),
        ("trials.jsonl", "costs.latency@raspi4.value", -1.0),
        ("trials.jsonl", "costs.latency@raspi4.unit", "mJ"),
        ("trials.jsonl", "costs.latency@", {"value": 1.0, "unit": "ms", "source": ""}),
        ("trials.jsonl", "costs.latency@a b", {"value": 1.0, "unit": "ms", "source": ""}),
        ("trials.jsonl", "costs.beauty@raspi4", {"value": 1.0, "unit": "ms", "source": ""}),
        ("trials.jsonl", "costs.macs@raspi4", {"value": 1.0, "unit": "M", "source": ""}),
        ("measured.jsonl", "costs.latency@raspi4.value", "2"),
        ("result.json", "winner.costs.latency@raspi4", ...),
        ("result.json", "constraints.0.device", 5),
        ("result.json", "confirmations.0.values", {"beauty@raspi4": 1.0}),
        ("result.json", "compromise.alone.1.score", "high"),
        ("result.json", "compromise.alone", ...),
    ],
)
def test_what_is_damaged_of_several_devices_is_a_sentence(tmp_path: Path, file: str, key: str, value: Any) -> None:
    path = made_for_two(tmp_path / "r").path / file
    path.write_text(json.dumps(changed(json.loads(path.read_text()), key, value)) + "\n")
    with pytest.raises(DataError, match=r"is damaged \(") as caught:  # noqa: PT012
        run = runs.open_run(str(tmp_path / "r"))
        run.trials(), run.measured(), run.result()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((name, ...) for name in ("feasible", "winner", "evaluations", "constraints", "seconds")),
        ("feasible", False),
        ("winner", None),
        ("winner.score", None),
        ("winner.genes", [9] * 6),
        ("winner.costs", {}),
        ("winner.test_accuracy", 101.0),
        ("constraints.0.metric", "beauty"),
        ("constraints.0.limit", 0),
        ("space", "another"),
        ("dataset", "another"),
        ("pareto", "latency"),
        ("front", []),
        ("evaluations.distinct", -1),
        ("confirmations", [{"verdict": "PERHAPS"}]),
        ("refinement", {}),
    ],
)
def test_a_damaged_result_is_a_sentence(tmp_path: Path, key: str, value: Any) -> None:
    run = made(tmp_path / "r")
    path = run.path / "result.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), key, value)))
    with pytest.raises(DataError, match=r"result\.json is damaged \(.*edgenas search --resume") as caught:
        run.result()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("right", "!"),
        ("right", "AA=="),
        ("val_loss", None),
        ("val_images", 0),
        ("val_images", 15),
        ("images_seen", -1),
        ("seconds", "long"),
        ("error", "it diverged"),
        ("genes", []),
    ],
)
def test_damage_of_what_was_refined_is_named_by_its_line(tmp_path: Path, key: str, value: Any) -> None:
    run = made(tmp_path / "r")
    for images in (128, 256):
        run.keep_refined(Refined(ARCH, images, 16, 0.5, b"\xff\x00", 1.0), "a cell", "a test")
    path = run.path / "refined.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(changed(json.loads(second), key, value))}\n")
    with pytest.raises(DataError, match=r"^line 2 of .*refined\.jsonl is damaged"):
        run.refined()


def test_damage_of_what_was_measured_is_named_by_its_line(tmp_path: Path) -> None:
    run = made(tmp_path / "r")
    run.keep_measured({ARCH: Cost({"latency": 0.0}, {"latency": "a board"})})
    with pytest.raises(DataError, match=r"^line 1 of .*measured\.jsonl is damaged"):
        run.measured()


def test_a_setting_of_a_newer_version_is_kept_for_whoever_needs_it(tmp_path: Path) -> None:
    run = made(tmp_path / "r")
    path = run.path / "run.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), "request.depth", 3)))
    assert runs.open_run(str(run.path)).header["request"]["depth"] == 3


def test_words_that_are_not_utf_8_are_kept(tmp_path: Path) -> None:
    """As a folder's name may be."""
    made(tmp_path / "r", dataset="caf\udce9").finish({**result(None), "dataset": "caf\udce9"})
    run = runs.open_run(str(tmp_path / "r"))
    found = run.result()
    assert found is not None
    assert run.header["request"]["dataset"] == found["dataset"] == "caf\udce9"


def test_settings_by_their_former_names_are_read(tmp_path: Path) -> None:
    run = made(tmp_path / "r", repeats=2)
    path = run.path / "run.json"
    content = json.loads(path.read_text())
    content["request"]["draws"] = content["request"].pop("repeats")
    content["fitness_settings"]["draws"] = content["fitness_settings"].pop("repeats")
    content["fitness_settings"]["readings"] = []
    content["refine_settings"] = {"passes": 10}
    path.write_text(json.dumps(content))
    found = runs.open_run(str(run.path)).header
    assert found["request"] == run.header["request"]
    assert found["fitness_settings"] == {**run.header["fitness_settings"], "eval_steps": []}
    assert found["refine_settings"] == {"max_epochs": 10}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON, st.sampled_from(["header", "trials", "measured", "refined", "result"]))
def test_no_value_is_more_than_a_sentence(tmp_path_factory: pytest.TempPathFactory, value: Any, what: str) -> None:
    run = made(tmp_path_factory.mktemp("any") / "r")
    name = {"header": "run.json", "result": "result.json"}.get(what, f"{what}.jsonl")
    (run.path / name).write_text(json.dumps(value) + "\n")

    def read() -> None:
        opened = runs.open_run(str(run.path))
        if what != "header":
            getattr(opened, what)()

    with pytest.raises(DataError):
        read()

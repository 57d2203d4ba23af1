"""Packages on boards: brought there, checked, counted and timed, with every finding in the report."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgenas import device as devices
from edgenas.board import registry
from edgenas.board.local import Local
from edgenas.board.registry import Board
from edgenas.board.statistics import wilson
from edgenas.board.store import Store
from edgenas.cli import main
from edgenas.data.images import load_images
from edgenas.errors import UsageError
from edgenas.package.accuracy import is_lower
from edgenas.package.build import FOLDER
from edgenas.package.deploy import _limit_ms, deploy
from edgenas.report.package import deployed_text
from tests.test_package import packed, unpacked, vouched


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code if isinstance(end.value.code, int) else 0


def test_deployed_on_this_computer(
    archive: Path,
    here: Board,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run("deploy", str(archive), "--board", "here", "--latency", "10s", "--images", "100", "--json")
    report = json.loads(capsys.readouterr().out)
    assert (code, report["latency"]["verdict"]) == (0, "PASS"), report["problem"]  # on a busy machine too
    assert report["latency"]["limit_ms"] == 10_000
    assert report["latency"]["median_ms"] > 0
    assert report["latency"]["output_checked"] is True
    assert report["latency"]["fingerprint"]["model_sha256"] == report["model"]["sha256"]
    assert report["model"]["file"] == "model.onnx"
    assert report["problem"] is None
    assert report["self_check"]["passed"] is True
    assert len(report["self_check"]["models"]) == 4
    accuracy = report["accuracy"]
    assert accuracy["images"] == 100
    assert accuracy["percent"] > 80
    low, high = accuracy["interval_percent"]
    assert low <= accuracy["percent"] <= high
    assert accuracy["agrees_with_this_computer"] == 1.0
    assert accuracy["runtime"]["name"] == "onnxruntime"
    assert accuracy["lower_than_package"] is False
    assert report["package"]["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    stem = archive.name.removesuffix(".tar.gz")
    assert json.loads((workplace / f"{stem}-here.json").read_text()) == report
    text = (workplace / f"{stem}-here.md").read_text()
    assert f"{accuracy['percent']:.2f} % of 100 test images" in text
    assert report["latency"]["verdict"] in text


def test_nothing_is_brought_twice_but_what_was_damaged(
    archive: Path, here: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    push, pushed = Local.push, []

    def counting(self: Local, source: Path, target: str, *limits: Any) -> None:
        pushed.append(target)
        push(self, source, target, *limits)

    monkeypatch.setattr(Local, "push", counting)
    deploy(archive, "here", images=10)
    names = {name.removeprefix(f"{FOLDER}/") for name in unpacked(archive)}
    assert {target.split("/", 3)[3] for target in pushed if "/deployed/" in target} == names
    pushed.clear()
    assert deploy(archive, "here", images=10).report["self_check"]["passed"] is True
    assert not [target for target in pushed if "/deployed/" in target]
    folder = next((Path(here.options["home"]) / ".edgenas" / "deployed").iterdir())
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[:100])
    assert deploy(archive, "here", images=10).report["self_check"]["passed"] is True
    assert (folder / "model.onnx").read_bytes() == whole
    assert [Path(target).name for target in pushed if "/deployed/" in target] == ["model.onnx"]


def test_too_slow_is_infeasible(archive: Path, here: Board) -> None:
    deployed = deploy(archive, "here", latency_ms=0.0001, images=10)
    assert deployed.problem is not None
    assert (deployed.problem.exit_code, deployed.report["latency"]["verdict"]) == (3, "FAIL")


def test_the_limit_is_that_of_the_search_on_such_a_board(archive: Path, tmp_path: Path, here: Board) -> None:
    registry.add(Board("pi", "raspi4", "local", {"home": str(tmp_path / "pi")}, here.python))
    assert deploy(archive, "here", images=10).report["latency"]["limit_ms"] is None
    report = deploy(archive, "pi", images=10).report
    assert report["latency"]["limit_ms"] == 5.0
    assert report["model"]["file"] == "model.tflite"  # as the profile of a raspi4 says


def test_the_latency_is_measured_anew_each_time_and_stands_beside_the_search_s(
    archive: Path, tmp_path: Path, here: Board
) -> None:
    registry.add(Board("pi", "raspi4", "local", {"home": str(tmp_path / "pi")}, here.python))
    first, second = (deploy(archive, "pi", images=10).report for _ in range(2))
    assert {each["latency"]["from_store"] for each in (first, second)} == {False}
    assert first["latency"]["measured_at"] < second["latency"]["measured_at"]
    assert len(list(Store().folder.glob("*/*.json"))) >= 2  # and the first is kept all the same
    for report in (first, second):
        known = report["searched"]
        assert (known["latency_ms"], known["board_off_percent"]) == (4.2, None)  # no reference was timed in that search
        assert known["off_percent"] == pytest.approx(100 * (report["latency"]["median_ms"] / 4.2 - 1), abs=0.01)
        assert f"{known['off_percent']:+.1f} % from the search's 4.2 ms" in deployed_text(report)
    assert deploy(archive, "here", images=10).report["searched"] is None  # that was not searched for
    assert deploy(archive, "pi", form="onnx", images=10).report["searched"] is None  # nor was that


def test_how_fast_the_board_is_stands_beside_how_fast_it_was_in_the_search(
    archive: Path, tmp_path: Path, here: Board
) -> None:
    def timed(manifest: dict[str, Any]) -> None:
        manifest["costs"]["latency"]["reference_ms"] = 2.0

    registry.add(Board("pi", "raspi4", "local", {"home": str(tmp_path / "pi")}, here.python))
    package = packed(tmp_path / "timed.tar.gz", vouched(unpacked(archive), timed))
    report = deploy(package, "pi", latency_ms=1e4, images=10).report
    off = report["searched"]["board_off_percent"]
    assert off == pytest.approx(100 * (report["latency"]["reference_ms"] / 2 - 1), abs=0.01)
    assert f"; the board itself {off:+.1f} %, by its reference model" in deployed_text(report)


def test_of_several_devices_the_limit_is_that_of_the_board_s(tmp_path: Path) -> None:
    limits = {"edgetpu": 1.0, "raspi4": 5.0}
    manifest: dict[str, Any] = {
        "device": None,
        "devices": [{"name": name} for name in limits],
        "constraints": [
            {"metric": "energy", "limit": 0.5, "unit": "mJ", "device": "raspi4"},
            *({"metric": "latency", "limit": each, "unit": "ms", "device": name} for name, each in limits.items()),
            {"metric": "macs", "limit": 60.0, "unit": "M"},
        ],
    }
    for name, limit_ms in {**limits, "pixel3": None}.items():
        assert _limit_ms(manifest, Board("mine", name, "local", {})) == limit_ms
    own = tmp_path / "own.toml"
    own.write_text(devices.load("edgetpu").path.read_text())
    assert _limit_ms(manifest, Board("mine", str(own), "local", {})) == 1.0


def test_all_images(archive: Path, here: Board, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("deploy", str(archive), "--board", "here", "--images", "all", "--json", "-o", "all")
    report = json.loads(capsys.readouterr().out)
    assert report["accuracy"]["images"] == len(load_images("digits", "test").labels)
    assert json.loads(Path("all.json").read_text()) == report
    for count in ("0", "some", "-1"):
        assert run("deploy", str(archive), "--board", "here", "--images", count) == 2
        assert "--images all" in capsys.readouterr().err


def test_images_of_a_folder_are_found_by_its_path(archive: Path, here: Board, tmp_path: Path) -> None:
    """A manifest has a folder's name only; it counts what the fingerprint vouches for, wherever that lies."""

    def of_a_folder(manifest: dict[str, Any]) -> None:
        manifest["dataset"]["name"] = "flowers"

    package = packed(tmp_path / "flowers.tar.gz", vouched(unpacked(archive), of_a_folder))
    accuracy = deploy(package, "here", images=10).report["accuracy"]
    assert accuracy["images"] == 0
    assert "give them by --dataset" in accuracy["note"]
    assert deploy(package, "here", images=10, dataset="digits").report["accuracy"]["images"] == 10


def test_a_phone_is_timed_and_the_rest_is_said_to_be_missing(
    archive: Path, pixel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run("deploy", str(archive), "--board", pixel, "--latency", "5ms", "--json", "-o", "phone")
    report = json.loads(capsys.readouterr().out)
    assert (code, report["latency"]["verdict"], report["latency"]["median_ms"]) == (0, "PASS", 2.0)
    assert report["self_check"] == {"passed": None, "note": "a phone has no Python to run it", "models": []}
    assert report["accuracy"]["images"] == 0
    assert report["model"]["file"] == "model.tflite"
    text = Path("phone.md").read_text()
    assert "a phone has no Python" in text
    assert "not measured: benchmark_model shows no outputs" in text
    assert run("deploy", str(archive), "--board", pixel, "--format", "onnx", "-o", "other") == 2
    assert "has no runtime for onnx files (it has: benchmark_model)" in capsys.readouterr().err
    assert not Path("other.md").exists()


def test_a_strangers_words_cannot_act_in_the_report(archive: Path, here: Board, tmp_path: Path) -> None:
    def odd(manifest: dict[str, Any]) -> None:
        manifest["architecture"]["arch_str"] = "`\x1b[2J\n# All is well"

    package = packed(tmp_path / "odd.tar.gz", vouched(unpacked(archive), odd))
    text = deployed_text(deploy(package, "here", images=10).report)
    assert "`?\\x1b[2J # All is well`" in text


def test_a_format_of_choice(archive: Path, here: Board) -> None:
    report = deploy(archive, "here", form="tflite-int8", images=50).report
    assert report["model"]["file"] == "model_int8.tflite"
    assert report["accuracy"]["agrees_with_this_computer"] == 1.0
    with pytest.raises(UsageError, match="--format"):
        deploy(archive, "here", form="coreml")


def test_wilson_interval() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_lower_by_more_than_chance_explains() -> None:
    assert is_lower(0, 10, 9, 10)
    assert not is_lower(940, 1000, 940, 1000)
    assert not is_lower(950, 1000, 940, 1000)
    assert is_lower(920, 1000, 940, 1000)  # the same images: the package's share is what it is
    assert not is_lower(9200, 10_000, 935, 1000)  # other images: the package's share was luck in part
    assert is_lower(9000, 10_000, 940, 1000)
    # Newcombe 1998, table II: 56/70 against 48/80 differ by 0.0524 to 0.3339 (method 10), so 0 is outside.
    assert is_lower(48, 80, 56, 70)

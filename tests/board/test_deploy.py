"""Packages on boards: shipped, checked, counted and timed there, with every finding in the report."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgenas.board import registry
from edgenas.board.local import Local
from edgenas.board.registry import Board
from edgenas.board.transport import output
from edgenas.cli import main
from edgenas.errors import BoardError, DataError, ExportError, UsageError
from edgenas.package.accuracy import wilson
from edgenas.package.build import FOLDER
from edgenas.package.deploy import deploy
from tests.board import sshd as openssh
from tests.test_package import packed, unpacked, vouched

pytestmark = pytest.mark.usefixtures("quick_tiers")


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
    assert code == (0 if report["latency"]["verdict"] == "PASS" else 5)  # a busy machine is unstable
    assert report["latency"]["verdict"] in ("PASS", "UNSTABLE")
    assert report["latency"]["limit_ms"] == 10_000
    assert report["latency"]["median_ms"] > 0
    assert report["latency"]["output_checked"] is True
    assert report["latency"]["fingerprint"]["model_sha256"] == report["model"]["sha256"]
    assert report["model"]["file"] == "model.onnx"
    assert report["self_check"]["passed"] is True
    assert len(report["self_check"]["models"]) == 4
    accuracy = report["accuracy"]
    assert accuracy["images"] == 100
    assert accuracy["percent"] > 80
    low, high = accuracy["interval_percent"]
    assert low <= accuracy["percent"] <= high
    assert accuracy["agrees_with_this_computer"] == 1.0
    assert report["package"]["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    stem = archive.name.removesuffix(".tar.gz")
    assert json.loads((workplace / f"{stem}-here.json").read_text()) == report
    text = (workplace / f"{stem}-here.md").read_text()
    assert f"{accuracy['percent']:.2f} % of 100 test images" in text
    assert report["latency"]["verdict"] in text


def test_deployed_over_ssh_and_nothing_brought_twice(
    archive: Path,
    sshd: openssh.Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user without numpy there: the files arrive whole, and what is missing is said."""
    options = {"host": openssh.HOST, "user": sshd.user, "port": sshd.port, "key": str(sshd.key)}
    options |= {"known_hosts": str(sshd.known_hosts), "config": os.devnull}
    registry.add(Board("pi", "raspi4", "ssh", options))
    pushed: list[str] = []
    from edgenas.board.ssh import SSH

    push = SSH.push

    def counting(self: SSH, source: Path, target: str, timeout_s: float) -> None:
        pushed.append(target)
        push(self, source, target, timeout_s)

    monkeypatch.setattr(SSH, "push", counting)
    for _ in range(2):
        with pytest.raises(BoardError, match=r"board pi cannot run the self-check.*edgenas board check pi"):
            deploy(archive, "pi")
    content = unpacked(archive)
    assert len(pushed) == len(content), "the second time all was there"
    folder = next((sshd.home / ".edgenas" / "deployed").iterdir())
    for name, each in content.items():
        assert (folder / name.removeprefix(f"{FOLDER}/")).read_bytes() == each


def test_a_file_damaged_on_the_board_is_brought_again(archive: Path, here: Board) -> None:
    deploy(archive, "here", images=10)
    folder = next((Path(here.options["home"]) / ".edgenas" / "deployed").iterdir())
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[:100])
    assert deploy(archive, "here", images=10).report["self_check"]["passed"] is True
    assert (folder / "model.onnx").read_bytes() == whole


def test_what_was_tampered_with_is_never_sent(archive: Path, here: Board, tmp_path: Path) -> None:
    content = unpacked(archive)
    content[f"{FOLDER}/model.onnx"] = content[f"{FOLDER}/model.onnx"][:-1] + b"?"
    with pytest.raises(DataError, match="another hash"):
        deploy(packed(tmp_path / "bad.tar.gz", content), "here")
    assert not Path(here.options["home"]).exists()


def test_the_archives_own_runner_does_not_run_on_the_board(
    archive: Path,
    here: Board,
    tmp_path: Path,
) -> None:
    content = unpacked(archive)
    mark = tmp_path / "it_ran"
    content[f"{FOLDER}/run.py"] = f"open({str(mark)!r}, 'w')".encode()
    report = deploy(packed(tmp_path / "odd.tar.gz", vouched(content)), "here", images=10).report
    assert report["self_check"]["passed"] is True
    assert not mark.exists()


def test_a_model_that_is_wrong_on_the_board_is_an_error_and_in_the_report(
    archive: Path,
    here: Board,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The board's runner finds the int8 file wrong, though here it is right: as with a faulty kernel there."""

    def odd(transport: Any, command: Any, timeout_s: float, **more: Any) -> Any:
        done = output(transport, command, timeout_s, **more)
        if "--self-check" not in command:
            return done
        models = json.loads(done.stdout)
        models[-1] |= {"passed": False, "detail": "3 of 8 golden images in their class"}
        return type(done)(1, json.dumps(models).encode(), "")

    monkeypatch.setattr("edgenas.package.deploy.output", odd)
    deployed = deploy(archive, "here", images=10)
    assert deployed.report["self_check"]["passed"] is False
    assert isinstance(deployed.problem, ExportError)
    assert "3 of 8 golden images" in str(deployed.problem)


def test_fewer_right_answers_than_in_the_package_are_an_error(archive: Path, here: Board, tmp_path: Path) -> None:
    def flattered(manifest: dict[str, Any]) -> None:
        for record in manifest["models"]:
            record["checked"]["accuracy"] = 1.0

    content = unpacked(archive)
    manifest = json.loads(content[f"{FOLDER}/manifest.json"])
    if manifest["models"][0]["checked"]["accuracy"] == 1.0:
        pytest.skip("the network of this test makes no mistake")
    deployed = deploy(packed(tmp_path / "flattered.tar.gz", vouched(content, flattered)), "here")
    assert isinstance(deployed.problem, ExportError)
    assert "more than chance explains" in str(deployed.problem)


def test_too_slow_is_infeasible(archive: Path, here: Board) -> None:
    deployed = deploy(archive, "here", latency_ms=0.0001, images=10)
    assert deployed.problem is not None
    assert deployed.problem.exit_code == (3 if deployed.report["latency"]["verdict"] == "FAIL" else 5)


def test_the_limit_is_that_of_the_search_on_such_a_board(archive: Path, tmp_path: Path, here: Board) -> None:
    registry.add(Board("pi", "raspi4", "local", {"home": str(tmp_path / "pi")}, here.python))
    assert deploy(archive, "here", images=10).report["latency"]["limit_ms"] is None
    report = deploy(archive, "pi", images=10).report
    assert report["latency"]["limit_ms"] == 5.0
    assert report["model"]["file"] == "model.tflite"  # as the profile of a raspi4 says


def test_a_format_of_choice(archive: Path, here: Board) -> None:
    report = deploy(archive, "here", form="tflite-int8", images=50).report
    assert report["model"]["file"] == "model_int8.tflite"
    assert report["accuracy"]["agrees_with_this_computer"] == 1.0
    with pytest.raises(UsageError, match="--format"):
        deploy(archive, "here", form="coreml")


def test_without_the_test_images_the_rest_is_done(
    archive: Path,
    here: Board,
    tmp_path: Path,
) -> None:
    def elsewhere(manifest: dict[str, Any]) -> None:
        manifest["dataset"] = {"name": str(tmp_path / "gone"), "test_sha256": "0" * 64}

    content = vouched(unpacked(archive), elsewhere)
    report = deploy(packed(tmp_path / "a.tar.gz", content), "here").report
    assert report["accuracy"]["images"] == 0
    assert "not on this machine" in report["accuracy"]["note"]
    assert report["latency"]["median_ms"] > 0


def test_a_board_lost_in_the_middle(archive: Path, here: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    push, count = Local.push, 0

    def failing(self: Local, source: Path, target: str, timeout_s: float) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise BoardError("local: connection lost")
        push(self, source, target, timeout_s)

    with monkeypatch.context() as patch:
        patch.setattr(Local, "push", failing)
        with pytest.raises(BoardError, match="connection lost"):
            deploy(archive, "here")
    assert deploy(archive, "here", images=10).report["self_check"]["passed"] is True


def test_wilson_interval() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)

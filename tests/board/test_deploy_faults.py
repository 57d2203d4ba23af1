"""Packages on boards that go wrong: what must not be sent is not, and what was found is reported all the same."""

from __future__ import annotations

import json
import os
import venv
from pathlib import Path
from typing import Any

import pytest

from edgenas.board import registry
from edgenas.board.local import Local
from edgenas.board.pool import connect
from edgenas.board.registry import Board
from edgenas.board.ssh import SSH
from edgenas.cli import main
from edgenas.errors import BoardError, DataError, ExportError
from edgenas.package.build import FOLDER
from edgenas.package.deploy import deploy
from edgenas.package.self_check import self_check
from tests.board import sshd as openssh
from tests.profiles import quick_profile
from tests.test_package import packed, unpacked, vouched

# A board's onnxruntime, changed on its way in: found before the real one, which it loads.
CHANGED = """
import sys
folder = __file__.rpartition("/onnxruntime/")[0]
sys.path.remove(folder)
del sys.modules["onnxruntime"]
import onnxruntime
sys.path.insert(0, folder)
class Session(onnxruntime.InferenceSession):
    {change}
onnxruntime.InferenceSession = Session
"""
NEGATED = "def run(self, *arguments):\n        return [-each for each in super().run(*arguments)]"
CRASHING = "def __init__(self, *arguments, **more):\n        __import__('os').kill(__import__('os').getpid(), 11)"


@pytest.fixture
def pi_over_ssh(sshd: openssh.Server, tmp_path: Path) -> Board:
    """Its user has Python, but neither numpy nor a runtime."""
    options = {"host": openssh.HOST, "user": sshd.user, "port": sshd.port, "key": str(sshd.key)}
    options |= {"known_hosts": str(sshd.known_hosts), "config": os.devnull}
    board = Board("pi", str(quick_profile(tmp_path, "raspi4")), "ssh", options)
    registry.add(board)
    return board


def with_onnxruntime(here: Board, tmp_path: Path, change: str) -> str:
    """The name of a board like `here` whose onnxruntime does otherwise."""
    folder = tmp_path / "changed" / "onnxruntime"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(CHANGED.format(change=change))
    options = {**here.options, "environment": {"PYTHONPATH": str(folder.parent)}}
    registry.add(Board("odd", here.device, "local", options, here.python))
    return "odd"


def test_what_was_tampered_with_is_never_sent(archive: Path, here: Board, tmp_path: Path) -> None:
    content = unpacked(archive)
    content[f"{FOLDER}/model.onnx"] = content[f"{FOLDER}/model.onnx"][:-1] + b"?"
    with pytest.raises(DataError, match="another size or hash"):
        deploy(packed(tmp_path / "bad.tar.gz", content), "here")
    assert not Path(here.options["home"]).exists()


def test_the_archives_own_runner_does_not_run_on_the_board(archive: Path, here: Board, tmp_path: Path) -> None:
    content = unpacked(archive)
    mark = tmp_path / "it_ran"
    content[f"{FOLDER}/run.py"] = f"open({str(mark)!r}, 'w')".encode()
    report = deploy(packed(tmp_path / "odd.tar.gz", vouched(content)), "here", images=10).report
    assert report["self_check"]["passed"] is True
    assert not mark.exists()


def test_wrong_answers_there_are_an_error_and_in_the_report(
    archive: Path, here: Board, tmp_path: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = with_onnxruntime(here, tmp_path, NEGATED)
    with pytest.raises(SystemExit) as end:
        main(["deploy", str(archive), "--board", name, "--images", "20", "-o", "found"])
    assert end.value.code == 6
    assert "model.onnx does not do on odd what it did" in capsys.readouterr().err
    report = json.loads(Path("found.json").read_text())
    assert [each["passed"] for each in report["self_check"]["models"]] == [False, True, True, True]
    assert report["problem"] in Path("found.md").read_text()
    assert "FAILED: model.onnx" in Path("found.md").read_text()


def test_a_runtime_that_crashes_there_is_an_error_and_in_the_report(archive: Path, here: Board, tmp_path: Path) -> None:
    deployed = deploy(archive, with_onnxruntime(here, tmp_path, CRASHING), images=10)
    assert isinstance(deployed.problem, ExportError)
    first, *others = deployed.report["self_check"]["models"]
    assert (first["passed"], first["detail"]) == (False, "ended with signal 11")
    assert all(each["passed"] for each in others)
    assert deployed.report["accuracy"]["failed"] is True
    assert deployed.report["latency"]["verdict"] is None
    assert "crash" in deployed.report["latency"]["error"] or "signal" in deployed.report["latency"]["error"]


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


def test_a_board_without_a_runtime_is_sent_nothing(archive: Path, pi_over_ssh: Board, sshd: openssh.Server) -> None:
    before = sorted((sshd.home / ".edgenas").glob("deployed/**/*"))  # other tests deploy to this server too
    with pytest.raises(BoardError, match=r"board pi has no runtime for tflite files.*pip install ai-edge-litert"):
        deploy(archive, "pi")
    assert sorted((sshd.home / ".edgenas").glob("deployed/**/*")) == before


def test_a_board_without_numpy_has_the_files_whole_and_once(
    archive: Path, pi_over_ssh: Board, sshd: openssh.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    push, pushed = SSH.push, []

    def counting(self: SSH, source: Path, target: str, *limits: Any) -> None:
        pushed.append(target)
        push(self, source, target, *limits)

    content = {name.removeprefix(f"{FOLDER}/"): each for name, each in unpacked(archive).items()}
    session: Any = connect(pi_over_ssh)
    try:
        monkeypatch.setattr(SSH, "push", counting)
        for _ in range(2):
            with pytest.raises(BoardError, match=r"board pi cannot run the self-check.*numpy.*edgenas board check pi"):
                self_check(pi_over_ssh, session, content, "0" * 64, ["model.onnx"])
    finally:
        session.close()
    assert len(pushed) == len(content), "the second time all was there"
    for name, each in content.items():
        assert (sshd.home / ".edgenas" / "deployed" / ("0" * 16) / name).read_bytes() == each


def test_a_board_whose_python_has_nothing(archive: Path, here: Board, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    registry.add(Board("bare", here.device, "local", here.options, str(tmp_path / "bare" / "bin" / "python")))
    with pytest.raises(BoardError, match=r"board bare has no runtime for onnx files \(it has: none\)"):
        deploy(archive, "bare")


def test_a_board_that_times_for_others_is_not_disturbed(archive: Path, here: Board) -> None:
    other = connect(here)
    try:
        other.lease(60.0)
        with pytest.raises(BoardError, match="edgenas, process"):
            deploy(archive, "here")
        assert not (Path(here.options["home"]) / ".edgenas" / "deployed").exists()
    finally:
        other.close()
    assert deploy(archive, "here", images=10).report["self_check"]["passed"] is True


def test_a_board_lost_in_the_middle(archive: Path, here: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    push, count = Local.push, 0

    def failing(self: Local, source: Path, target: str, *limits: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise BoardError("local: connection lost")
        push(self, source, target, *limits)

    with monkeypatch.context() as patch:
        patch.setattr(Local, "push", failing)
        with pytest.raises(BoardError, match="connection lost"):
            deploy(archive, "here")
    assert deploy(archive, "here", images=10).report["self_check"]["passed"] is True


def test_without_the_test_images_the_rest_is_done(archive: Path, here: Board, tmp_path: Path) -> None:
    def elsewhere(manifest: dict[str, Any]) -> None:
        manifest["dataset"] = {"name": str(tmp_path / "gone"), "test_sha256": "0" * 64}

    content = vouched(unpacked(archive), elsewhere)
    report = deploy(packed(tmp_path / "a.tar.gz", content), "here").report
    assert report["accuracy"]["images"] == 0
    assert "give them by --dataset" in report["accuracy"]["note"]
    assert report["latency"]["median_ms"] > 0
    assert deploy(packed(tmp_path / "a.tar.gz", content), "here", dataset="digits").report["accuracy"]["images"] == 0

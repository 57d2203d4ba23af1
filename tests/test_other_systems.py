"""On Windows and macOS everything works but what times models on this computer, and that says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenas import files, host
from edgenas.errors import DataError
from tests.train.worlds import image_folder

ROOT = Path(__file__).parent.parent
SYSTEMS = ("Windows", "macOS")
# A search that ends in the middle of a line, as on a kill.
TORN = '{"trial": 40, "gener'


def python(arguments: Sequence[str], cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "warn_default_encoding", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def on(system: str, commands: Sequence[str], cwd: Path) -> list[tuple[int, str, str]]:
    """(exit code, stdout, stderr) of each command there."""
    printed = python(["-m", "tests.other_system", system, *commands], cwd)
    found: list[list[Any]] = [json.loads(line) for line in printed.splitlines()]
    assert len(found) == len(commands)
    for _, out, err in found:
        assert "Traceback" not in out + err, err
    return [(code, out, err) for code, out, err in found]


@pytest.mark.parametrize("system", SYSTEMS)
def test_searches_runs_and_data(system: str, workplace: Path) -> None:
    ok = [
        "--help",
        "search --help",
        "devices",
        "devices show raspi4",
        "search --device raspi4 --latency 20ms --generations 5 --run whole",
        "search --device raspi4 --pareto latency --generations 3 --run größe",
        "runs list",
        "runs show whole",
        "runs pick größe --latency 20ms",
        "data list",
        "doctor",
    ]
    for command, (code, out, err) in zip(ok, on(system, ok, workplace), strict=True):
        assert code == 0, (command, err)
        assert out.strip(), command
    trials = (workplace / "runs/whole/trials.jsonl").read_text(encoding="utf-8")
    torn = "".join(trials.splitlines(keepends=True)[:40]) + TORN
    (workplace / "runs/whole/trials.jsonl").write_text(torn, encoding="utf-8")
    (workplace / "runs/whole/result.json").unlink()
    again = [
        "search --resume whole",
        "runs show ./runs/whole --json",
        "search --device raspi4 --latency 20ms --run ./elsewhere/x --generations 1",
        "search --device raspi4 --latency 20ms --run whole",
        "runs show gone",
        "data verify cifar10",
    ]
    found = on(system, again, workplace)
    assert [code for code, _, _ in found] == [0, 0, 0, 2, 2, 7]
    assert (workplace / "runs/whole/trials.jsonl").read_text(encoding="utf-8") == trials
    assert (workplace / "elsewhere/x/result.json").exists()
    assert "gr\\xf6\\xdfe" in on(system, ["runs list"], workplace)[0][1], "a console without that letter shows its code"


@pytest.mark.parametrize("system", SYSTEMS)
def test_boards_elsewhere(system: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(workplace))
    monkeypatch.setenv("PATH", str(workplace))  # no adb
    pytest.importorskip("paramiko")
    commands = [
        "board list",
        "board add pi --device raspi4 --ssh pi@127.0.0.1:9",
        "board add tx2 --device jetson_tx2 --ssh tx2 --jump me@gateway",
        "board add phone --device pixel3 --adb 8A9X",
        "board add here --device host --local",
        "board list",
        "board remove tx2",
        "board check pi",
        "board check phone",
    ]
    found = on(system, commands, workplace)
    assert [code for code, _, _ in found] == [0, 0, 0, 0, 2, 0, 0, 4, 4]
    assert "--ssh" in found[0][1], "the first board it proposes is one that it can have"
    assert found[4][2].count("\n") == 1
    assert f"this computer runs {system}, and models are timed on Linux and Android only" in found[4][2]
    assert "edgenas board add NAME --device DEVICE --ssh USER@HOST" in found[4][2]
    assert "127.0.0.1" in found[7][2]
    assert "adb" in found[8][2]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_local_board_of_another_computer_is_refused(system: str, workplace: Path) -> None:
    """A configuration folder may be shared."""
    entry = {"name": "here", "device": "host", "transport": "local"}
    content = {"schema_version": 1, "boards": {"here": {**entry, "options": {}}}}
    (Path(os.environ["EDGENAS_CONFIG_DIR"]) / "boards.json").write_text(json.dumps(content), encoding="utf-8")
    (workplace / "model.onnx").write_bytes((ROOT / "edgenas/board/reference.onnx").read_bytes())
    commands = ["board list", "board check here", "measure model.onnx --board here --tier screen"]
    found = on(system, commands, workplace)
    assert [code for code, _, _ in found] == [0, 4, 4]
    assert all("models are timed on Linux and Android only" in err for _, _, err in found[1:])


def test_training_exporting_and_verifying(workplace: Path, trained_run: Path, archive: Path) -> None:
    import torch

    from edgenas.fitness.reference import ResNet

    image_folder(workplace / "photos", count=30)
    torch.save(ResNet(20, 2).state_dict(), workplace / "reference.pt")
    commands = [
        f"verify {archive}",
        f"export {trained_run} --format onnx -o models",
        "search --dataset photos --macs 200M --fitness live --cells 1 --channels 4 --epochs 1 --batch-size 8 --budget 2"
        " --pool 0 --refine 0 --reference reference.pt",
        "train --arch |none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2| --dataset photos --epochs 1"
        " --batch-size 8 --run trained",
        "train trained --restart --epochs 1 --batch-size 8",
    ]
    for command, (code, _, err) in zip(commands, on("Windows", commands, workplace), strict=True):
        assert code == 0, (command, err)
    assert {each.name for each in (workplace / "models").iterdir()} >= {"model.onnx"}


CHILD = """
from tests.other_system import pretend
pretend("Windows")
import time
from edgenas.board.local import Child
from edgenas.errors import BoardError
echo = Child(["cat"], "here")
echo.send(b"one", 10.0)
assert echo.receive(10.0) == b"one"
try:
    echo.receive(0.1)
except BoardError as error:
    assert "said nothing" in str(error)
echo.kill()
assert not echo.running
assert echo.receive(10.0) == b""
many = Child(["sh", "-c", "sleep 1000 & echo $!; wait"], "here")
pid = many.receive(10.0).decode().strip()
many.kill()
for _ in range(1000):
    if not __import__("pathlib").Path(f"/proc/{pid}").exists():
        break
    time.sleep(0.01)
else:
    raise AssertionError("its child is still there")
try:
    Child(["no-such-tool"], "here")
except BoardError as error:
    assert "no-such-tool" in str(error)
"""


def test_children_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of adb's client, ended by Windows' own tool, of which this is an image."""
    tool = tmp_path / "taskkill"
    tool.write_text('#!/bin/sh\n[ "$1 $2 $3" = "/F /T /PID" ] && kill -9 "-$4"\n', encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    python(["-c", CHILD], tmp_path)


def test_the_other_system_lacks_what_it_should(tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    package = tmp_path / "edgenas"
    package.mkdir()
    (package / "__init__.py").write_text("import os, signal, sys\nfrom select import select\n", encoding="utf-8")
    code = """
from tests.other_system import pretend
pretend("Windows")
import edgenas
assert edgenas.sys.platform == "win32"
for module, name in ((edgenas.os, "fork"), (edgenas.os, "sched_getaffinity"), (edgenas.signal, "SIGKILL")):
    assert not hasattr(module, name), name
assert edgenas.os.getpid() > 0
import os
assert hasattr(os, "fork")
for line in ("import fcntl", "from os import killpg", "from select import poll"):
    try:
        exec(line, {"__name__": "edgenas.some"})
    except ImportError:
        continue
    raise AssertionError(line)
"""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, timeout=60, check=True)


def test_a_file_that_is_read_meanwhile_is_replaced_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "boards.json"
    path.write_bytes(b"old")
    refusals, replace = [3], os.replace

    def refusing(source: Path, target: Path) -> None:
        if refusals[0]:
            refusals[0] -= 1
            raise PermissionError(13, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(DataError, match=r"\(Access is denied\); close it"):
        files.write_whole(path, b"new", DataError, "close it")  # where that means what it says
    assert refusals == [2]
    monkeypatch.setattr(host, "SYSTEM", "Windows")
    files.write_whole(path, b"new", DataError, "close it")
    assert path.read_bytes() == b"new"
    refusals[0] = 10**9
    (tmp_path / "newer").write_bytes(b"newer")
    with pytest.raises(PermissionError, match="Access is denied"):
        files.replace(tmp_path / "newer", path, wait_s=0.05)
    assert path.read_bytes() == b"new"

"""The runtime that a device names is the one that runs there, under one name everywhere, or nothing is timed."""

from __future__ import annotations

import importlib.util
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgenas import device as devices
from edgenas import runtimes
from edgenas.board import phone, registry
from edgenas.board.check import Finding, examine
from edgenas.board.model import read
from edgenas.board.pool import connect
from edgenas.board.registry import Board
from edgenas.board.replies import RefusedError, valid_timing
from edgenas.board.runtimes import chosen, for_device, model_format
from edgenas.board.session import agent
from edgenas.cli import main
from edgenas.errors import BoardError, ExportError, UsageError
from edgenas.lower import edgetpu
from edgenas.runtimes import LIBEDGETPU, NONE, RUNTIMES, TENSORRT
from tests.agents.conftest import Models, models  # noqa: F401  # real model files
from tests.board.boards import model
from tests.profiles import quick_profile
from tests.stand_ins import COMPILED, StandInBoard, compiler


def agent_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("edgenas_agent", agent()[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command))
    captured = capsys.readouterr()
    return end.value.code if isinstance(end.value.code, int) else 0, captured.out, captured.err


# The names.


def test_the_agent_has_the_same_names() -> None:
    module = agent_module()
    assert {name: each.format for name, each in RUNTIMES.items()} == {
        name: each.form for name, each in module.RUNTIMES.items()
    }
    assert edgetpu.is_compiled(b".." + module.COMPILED)
    assert edgetpu.is_compiled(COMPILED)


@pytest.mark.parametrize("name", devices.names())
def test_every_profile_names_a_runtime_that_takes_its_files(name: str) -> None:
    device = devices.load(name)
    if device.kind == "simulated":
        assert device.runtime == NONE
        return
    assert RUNTIMES[device.runtime].format == device.model_format.removesuffix("-int8")


def test_profiles_with_other_names_are_refused(tmp_path: Path) -> None:
    text = (devices.profiles() / "host.toml").read_text()
    path = tmp_path / "own.toml"
    for there, says in (("trtexec", "not known; use one of onnxruntime"), ("ai-edge-litert", "takes tflite files")):
        path.write_text(text.replace('runtime = "onnxruntime"', f'runtime = "{there}"'))
        with pytest.raises(UsageError, match=says):
            devices.read(path)


def test_a_phone_has_the_profiles_runtime() -> None:
    assert phone.TOOL == devices.load("pixel3").runtime == runtimes.BENCHMARK_MODEL


def test_a_board_tells_all_of_them_by_these_names(tmp_path: Path) -> None:
    made = StandInBoard(tmp_path, coral=True, tensorrt=True)
    session = connect(Board("all", "edgetpu", "local", made.options, made.python))
    found = {each["name"]: each for each in session.facts["runtimes"]}
    session.close()
    assert set(found) - {"benchmark_model"} == {
        "onnxruntime", "ai-edge-litert", "tflite-runtime", LIBEDGETPU, TENSORRT,
    }  # fmt: skip
    assert all(each["formats"] == [RUNTIMES[name].format] for name, each in found.items())
    assert "tflite-runtime 2.5.0" in found[LIBEDGETPU]["version"]


# Which one runs a model.

ALL = [{"name": name, "version": "1", "formats": [each.format]} for name, each in RUNTIMES.items()]
TFLITE, ONNX = model(b""), model(b"onnx")
TFLITE = type(TFLITE)(b"....TFL3", "tflite")
TPU_FILE = type(TFLITE)(b"....TFL3" + COMPILED, "tflite")


def names(*wanted: str) -> list[dict[str, Any]]:
    return [each for each in ALL if each["name"] in wanted]


@pytest.mark.parametrize(
    ("device", "file", "asked", "there", "runs"),
    [
        ("raspi4", TFLITE, "", ("ai-edge-litert", "tflite-runtime"), "ai-edge-litert"),
        ("raspi4", TFLITE, "", ("tflite-runtime", "libedgetpu"), "tflite-runtime"),  # both run it on the processor
        ("raspi4", TFLITE, "tflite-runtime", ("ai-edge-litert", "tflite-runtime"), "tflite-runtime"),
        ("raspi4", TPU_FILE, "", ("ai-edge-litert", "libedgetpu"), "libedgetpu"),  # a stick in a Raspberry Pi
        ("raspi4", ONNX, "", ("ai-edge-litert", "onnxruntime", "tensorrt"), "onnxruntime"),
        ("edgetpu", TPU_FILE, "", ("ai-edge-litert", "libedgetpu"), "libedgetpu"),
        ("edgetpu", TFLITE, "ai-edge-litert", ("ai-edge-litert", "libedgetpu"), "ai-edge-litert"),
        ("jetson_tx2", ONNX, "", ("onnxruntime", "onnxruntime+cuda", "tensorrt"), "tensorrt"),
        ("jetson_tx2", ONNX, "onnxruntime+cuda", ("onnxruntime", "onnxruntime+cuda"), "onnxruntime+cuda"),
        ("host", ONNX, "", ("onnxruntime", "tensorrt"), "onnxruntime"),
        ("pixel3", TFLITE, "", ("benchmark_model",), "benchmark_model"),
    ],
)
def test_the_one_that_runs(device: str, file: Any, asked: str, there: Sequence[str], runs: str) -> None:
    assert chosen(names(*there), devices.load(device), file, asked, "one")["name"] == runs


@pytest.mark.parametrize(
    ("device", "file", "asked", "there", "code", "says"),
    [
        ("edgetpu", TPU_FILE, "", ("ai-edge-litert",), 4, "has no libedgetpu.*apt install libedgetpu1-std"),
        ("jetson_tx2", ONNX, "", ("onnxruntime", "onnxruntime+cuda"), 4, "has no tensorrt.*libnvinfer-bin"),
        ("jetson_tx2", ONNX, "onnxruntime+cuda", ("onnxruntime",), 4, "has no onnxruntime.cuda.*onnxruntime-gpu"),
        ("raspi4", TFLITE, "tflite-runtime", ("ai-edge-litert",), 4, "pip install tflite-runtime"),
        ("raspi4", TFLITE, "", ("libedgetpu",), 4, "no runtime for tflite files.*pip install ai-edge-litert"),
        ("host", ONNX, "", ("tensorrt", "onnxruntime+cuda"), 4, "no runtime for onnx files.*pip install onnxruntime"),
        ("edgetpu", TFLITE, "", ("ai-edge-litert", "libedgetpu"), 2, "edgetpu_compiler is not on PATH"),
        ("raspi4", TPU_FILE, "", ("ai-edge-litert",), 2, "which board one has not.*file that it was compiled from"),
        ("edgetpu", TPU_FILE, "ai-edge-litert", ("ai-edge-litert", "libedgetpu"), 2, "does not drive one"),
        ("edgetpu", ONNX, "", ("onnxruntime", "libedgetpu"), 2, "takes .tflite files, not .onnx.*--runtime onnxr"),
        ("jetson_tx2", TFLITE, "", ("ai-edge-litert", "tensorrt"), 2, "takes .onnx files.*--runtime ai-edge-litert"),
        ("host", ONNX, "ai-edge-litert", ("ai-edge-litert", "onnxruntime"), 2, "another --runtime"),
        ("raspi4", ONNX, "", ("ai-edge-litert",), 2, "give a .tflite file, or on the board: .*onnxruntime"),
        ("host", ONNX, "onnx", ("onnxruntime",), 2, "no runtime 'onnx'; did you mean onnxruntime"),
    ],
)
def test_nothing_stands_in(
    device: str, file: Any, asked: str, there: Sequence[str], code: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises((UsageError, BoardError), match=says) as refused:
        chosen(names(*there), devices.load(device), file, asked, "one")
    assert refused.value.exit_code == code


def test_the_files_that_a_runtime_takes() -> None:
    coral, jetson = devices.load("edgetpu"), devices.load("jetson_tx2")
    assert [model_format(coral, asked) for asked in ("", "ai-edge-litert")] == ["tflite-int8"] * 2
    assert [model_format(jetson, asked) for asked in ("", "onnxruntime", "tflite-runtime")] == [
        "onnx",
        "onnx",
        "tflite",
    ]


def test_a_time_of_another_runtime_is_refused() -> None:
    said = {"samples_ns": [[10**7]], "runtime": {"name": "ai-edge-litert", "version": "2"}}
    plan = {"repeats": 1, "min_repeat_ms": 10.0, "max_repeat_s": 1.0}
    assert valid_timing(said, plan, 1.0, "one", "ai-edge-litert") == said
    with pytest.raises(RefusedError, match="a time of ai-edge-litert where libedgetpu was asked for"):
        valid_timing(said, plan, 1.0, "one", LIBEDGETPU)
    with pytest.raises(RefusedError, match="a time of no runtime"):
        valid_timing({"samples_ns": [[10**7]]}, plan, 1.0, "one", LIBEDGETPU)


# The whole way, with stand-ins for the hardware.


@pytest.fixture
def coral(tmp_path: Path) -> StandInBoard:
    made = StandInBoard(tmp_path / "coral", coral=True)
    registry.add(Board("coral", str(quick_profile(tmp_path, "edgetpu")), "local", made.options, made.python))
    return made


def measured(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    code, out, err = run(f"measure {command} --tier screen --json", capsys)
    assert code in (0, 5), err  # a busy machine is unstable
    fact: dict[str, Any] = json.loads(out)
    return fact


def test_an_int8_file_is_compiled_checked_and_timed_on_the_edge_tpu(
    coral: StandInBoard,
    models: Models,  # noqa: F811
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (workplace / "model_int8.tflite").write_bytes(models.int8)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    code, _, err = run("measure model_int8.tflite --board coral", capsys)
    assert code == 2
    assert "edgetpu_compiler is not on PATH; install it as" in err
    assert "`edgetpu_compiler model_int8.tflite`" in err
    assert coral.asked == []
    compiler(workplace / "bin", monkeypatch)
    fact = measured("model_int8.tflite --board coral", capsys)
    assert fact["fingerprint"]["runtime"] == LIBEDGETPU
    assert fact["output_checked"] is True
    assert set(coral.asked) == {"tpu"}  # the reference model ran by the other interpreter
    count = len(coral.asked)
    fact = measured("model_int8.tflite --board coral --runtime ai-edge-litert", capsys)
    assert fact["fingerprint"]["runtime"] == "ai-edge-litert"
    assert fact["output_checked"] is True
    assert len(coral.asked) == count


def test_a_compiled_file_goes_to_the_delegate_and_is_not_run_here(
    coral: StandInBoard,
    here: Board,
    models: Models,  # noqa: F811
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("it was run here")

    (workplace / "compiled.tflite").write_bytes(models.int8 + COMPILED)
    monkeypatch.setattr("edgenas.lower.verify.run_model", never)
    monkeypatch.setattr("edgenas.lower.examine.run_apart", never)
    fact = measured("compiled.tflite --board coral", capsys)
    assert fact["fingerprint"]["runtime"] == LIBEDGETPU
    assert fact["output_checked"] is False
    assert "compiled for an Edge TPU" in fact["note"]
    assert set(coral.asked) == {"tpu"}
    code, out, err = run("measure compiled.tflite --board here", capsys)
    assert (code, out) == (2, "")
    assert "is compiled for an Edge TPU, which board here has not" in err


def test_a_board_without_its_accelerator_times_nothing(
    tmp_path: Path,
    models: Models,  # noqa: F811
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = StandInBoard(tmp_path / "bare")
    (workplace / "compiled.tflite").write_bytes(models.int8 + COMPILED)
    (workplace / "model.onnx").write_bytes(models.onnx)
    for device, file, says in (
        ("edgetpu", "compiled.tflite", "sudo apt install libedgetpu1-std"),
        ("jetson_tx2", "model.onnx", "sudo apt install libnvinfer-bin"),
    ):
        registry.add(Board(device, str(quick_profile(tmp_path, device)), "local", bare.options, bare.python))
        code, out, err = run(f"measure {file} --board {device}", capsys)
        assert (code, out) == (4, "")
        assert says in err
        assert len(err.splitlines()) == 1
    assert not list(registry.data_dir().rglob("*.json")), "nothing was measured"
    code, out, _ = run("measure model.onnx --board jetson_tx2 --runtime onnxruntime --tier screen --json", capsys)
    assert json.loads(out)["fingerprint"]["runtime"] == "onnxruntime"
    assert code in (0, 5)


def test_a_jetson_times_by_tensorrt(
    tmp_path: Path,
    models: Models,  # noqa: F811
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = workplace / "model.onnx"
    path.write_bytes(models.onnx)
    model = read(path)
    assert model.golden is not None
    assert model.description is not None
    output = np.frombuffer(model.golden.target, "<f4").tolist()
    name = model.description.outputs[0].name
    jetson = StandInBoard(tmp_path / "jetson", tensorrt=True, output=output, output_name=name)
    registry.add(Board("jetson", str(quick_profile(tmp_path, "jetson_tx2")), "local", jetson.options, jetson.python))
    fact = measured("model.onnx --board jetson", capsys)
    assert fact["fingerprint"]["runtime"] == TENSORRT
    assert fact["output_checked"] is True
    assert fact["median_ms"] == 5.0
    assert any("--loadInputs" in asked for asked in jetson.asked)
    count = len(jetson.asked)
    fact = measured("model.onnx --board jetson --runtime onnxruntime", capsys)
    assert fact["fingerprint"]["runtime"] == "onnxruntime"
    assert len(jetson.asked) == count


def test_a_boards_own_entry_may_name_another(
    tmp_path: Path, coral: StandInBoard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("board add pi --device raspi4 --ssh pi@10.0.0.7 --runtime tflite-runtime", capsys)[0] == 0
    assert registry.board("pi").runtime == "tflite-runtime"
    assert registry.board("pi", "ai-edge-litert").runtime == "ai-edge-litert"
    code, _, err = run("board add other --device raspi4 --ssh pi@10.0.0.8 --runtime ai-edge-lite", capsys)
    assert code == 2
    assert "did you mean ai-edge-litert" in err


def finding(entry: Board) -> Finding:
    session = connect(entry)
    try:
        return next(
            each for each in examine(session, devices.load(entry.device), entry.runtime) if each.subject == "runtime"
        )
    finally:
        session.close()


def test_check_asks_for_nothing_that_is_there(tmp_path: Path) -> None:
    full = StandInBoard(tmp_path / "full", coral=True, tensorrt=True)
    bare = StandInBoard(tmp_path / "bare")
    for device, cure in (("edgetpu", "libedgetpu1-std"), ("jetson_tx2", "libnvinfer-bin")):
        assert finding(Board("full", device, "local", full.options, full.python)).ok
        missing = finding(Board("bare", device, "local", bare.options, bare.python))
        assert not missing.ok
        assert cure in missing.cure
        assert "accept" not in missing.cure
    asked = finding(Board("bare", "edgetpu", "local", bare.options, bare.python, runtime="ai-edge-litert"))
    assert asked.ok


def test_what_cannot_be_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coral = devices.load("edgetpu")
    compiler(tmp_path, monkeypatch)
    assert for_device(TFLITE, coral).content == TFLITE.content + COMPILED
    assert for_device(TPU_FILE, coral) is TPU_FILE
    assert for_device(TFLITE, coral, "ai-edge-litert") is TFLITE
    assert for_device(TFLITE, devices.load("raspi4")) is TFLITE
    with pytest.raises(ExportError, match="Invalid model"):
        for_device(type(TFLITE)(b"no model at all", "tflite"), coral)


def test_a_package_is_deployed_to_an_edge_tpu(
    archive: Path, coral: StandInBoard, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgenas.package.deploy import deploy

    compiler(workplace / "bin", monkeypatch)
    report = deploy(archive, "coral", images=20).report
    assert report["model"]["format"] == "tflite-int8"
    assert report["latency"]["fingerprint"]["runtime"] == LIBEDGETPU
    assert report["latency"]["output_checked"] is True
    assert report["accuracy"]["runtime"]["name"] == LIBEDGETPU
    assert report["accuracy"]["images"] == 20
    assert set(coral.asked) >= {"tpu"}

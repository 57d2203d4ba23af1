"""`edgenas board` and `edgenas measure` on this computer, with real models."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from edgenas.board import registry
from edgenas.board.registry import Board
from edgenas.board.store import Store
from edgenas.cli import main
from edgenas.cost.live import LiveCost
from tests.agents.conftest import Models, models  # noqa: F401  # real model files


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command))
    captured = capsys.readouterr()
    return end.value.code if isinstance(end.value.code, int) else 0, captured.out, captured.err


def test_a_boards_life(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no board yet" in run("board list", capsys)[1]
    code, out, _ = run("board add here --device host --local --threads 2", capsys)
    assert (code, out) == (0, "here is a board of host; look at it by: edgenas board check here\n")
    code, out, _ = run(
        "board add pi --device raspi4 --ssh pi@10.0.0.7:2222 --key k --jump me@gate --python python3.9", capsys
    )
    assert code == 0
    listed = {each["name"]: each for each in json.loads(run("board list --json", capsys)[1])}
    assert listed["here"]["threads"] == 2
    options = listed["pi"]["options"]
    assert (options["host"], options["user"], options["port"], options["jump"]) == ("10.0.0.7", "pi", 2222, "me@gate")
    assert Path(options["key"]).is_absolute()
    table = run("board list", capsys)[1]
    assert re.search(r"^pi +raspi4 +ssh ", table, re.M)
    assert run("board remove pi", capsys)[0] == 0
    for address, host, port in (
        ("[::1]:2222", "::1", 2222),
        ("ssh://pi@board:22/", "board", 22),
        ("pi@::1", "::1", None),
    ):
        assert run(f"board add six --device raspi4 --ssh {address}", capsys)[0] == 0
        options = registry.board("six").options
        assert (options["host"], options.get("port")) == (host, port)
        assert run("board remove six", capsys)[0] == 0
    assert list(registry.boards()) == ["here"]


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("board add x --device host", 2, "by one of --ssh"),
        ("board add x --device host --local --ssh a", 2, "by one of --ssh"),
        ("board add x --device host --local --key k", 2, "belong to --ssh"),
        ("board add x --device raspi4 --ssh pi@", 2, "is no address"),
        ("board add x --device raspi4 --ssh @host", 2, "is no address"),
        ("board add x --device raspi4 --ssh host:port", 2, "is no address"),
        ("board add x --device raspi4 --ssh pi@host:99999", 2, "--ssh names the port 99999; ports are 1 to 65535"),
        ("board add x --device raspi4 --ssh pi@host --jump gate:0", 2, "--jump names the port 0; ports are 1"),
        ("board add x --device raspi4 --ssh pi@host --jump a,,b", 2, "--jump  is no address"),
        ("board add x --device raspi4 --ssh -oProxyCommand=id", 2, "is no address"),
        ("board add x --device fpga --local", 2, "simulated table only"),
        ("board add x --device raspi44 --local", 2, "did you mean raspi4"),
        ("board add here --device host --local", 2, "first: edgenas board remove here"),
        ("board remove her", 2, "did you mean here"),
        ("board check gone", 2, "edgenas board list"),
        ("board bench gone", 2, "edgenas board list"),
        ("board profile gone", 2, "edgenas board list"),
        ("board profile here --samples 3", 2, "give --samples 5 or more"),
        ("board profile here --blocks", 2, "networks of nasbench201 have no blocks that can be measured"),
        ("board profile here --space nasbench21", 2, "did you mean nasbench201"),
        ("measure model.onnx --board gone", 2, "edgenas board list"),
        ("measure gone.onnx --board here", 7, "give an .onnx or .tflite file"),
        ("measure model.onnx --board here --tier long", 2, "--tier is screen or final"),
        ("measure model.onnx --board here --latency 5", 2, "5ms"),
        ("search --device host --latency 5ms --cost live --board gone", 2, "edgenas board list"),
        ("search --device eyeriss --latency 5ms --cost live", 2, "simulated table only"),
        ("search --device fpga --energy 5mJ --cost hybrid", 2, "simulated table only"),
        ("search --device jetson_tx2 --latency 5ms --cost live", 4, "edgenas board add NAME --device jetson_tx2"),
    ],
)
def test_users_errors_are_one_sentence(
    here: Board,
    models: Models,  # noqa: F811
    workplace: Path,
    command: str,
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (workplace / "model.onnx").write_bytes(models.onnx)
    exit_code, out, err = run(command, capsys)
    assert (exit_code, out) == (code, "")
    assert says in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_check_and_bench(here: Board, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("board check here", capsys)
    assert code == 0
    assert "runtime" in out
    found = json.loads(run("board check here --json", capsys)[1])
    assert found["facts"]["python"]
    assert {"subject", "ok", "detail", "cure"} == set(found["findings"][0])
    code, out, _ = run("board bench here --json", capsys)
    fact = json.loads(out)
    assert code == 0
    assert fact["median_ms"] > 0
    assert 0 < fact["round_trip_ms"] < 60_000
    assert "the reference model" in run("board bench here", capsys)[1]


@pytest.mark.parametrize("form", ["onnx", "tflite", "int8"])
def test_measure(
    here: Board,
    models: Models,  # noqa: F811
    workplace: Path,
    form: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "model.onnx" if form == "onnx" else "model.tflite"
    (workplace / name).write_bytes(getattr(models, form))
    command = f"measure {name} --board here --latency 10s --tier screen"
    code, out, err = run(f"{command} --json", capsys)
    fact = json.loads(out)
    assert (code, fact["verdict"]) == (0, "PASS"), err  # on a busy machine too
    assert fact["interval_ms"][0] <= fact["median_ms"] <= fact["interval_ms"][1]
    assert 0 < fact["min_ms"] <= fact["p90_ms"] <= fact["p99_ms"]
    assert fact["output_checked"] is True
    assert (fact["limit_ms"], fact["from_store"]) == (10_000, False)
    key = fact["fingerprint"]
    assert key["runtime"] == ("onnxruntime" if form == "onnx" else "ai-edge-litert")
    assert (key["threads"], key["tier"]["name"], key["device"]) == (1, "screen", "host")
    again = json.loads(run(f"{command} --json", capsys)[1])
    assert again.pop("from_store") is True
    assert again == {name: value for name, value in fact.items() if name != "from_store"}
    text = run(command, capsys)[1]
    assert text.startswith("PASS, of 10000 ms")
    assert f"as measured at {fact['measured_at']}" in text
    code, out, err = run(f"measure {name} --board here --latency 0.0001ms --tier screen", capsys)
    assert code == 3
    assert out.startswith("FAIL")
    assert "--cost live" in err


def test_the_final_tier_is_the_default(
    here: Board,
    models: Models,  # noqa: F811
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (workplace / "model.onnx").write_bytes(models.onnx)
    code, out, _ = run("measure model.onnx --board here --json", capsys)
    fact = json.loads(out)
    assert fact["fingerprint"]["tier"]["name"] == "final"
    assert code == 0, "a wide interval is a warning"
    assert fact["verdict"] in ("STABLE", "WIDE")
    assert fact["warnings"] or fact["verdict"] == "STABLE"
    assert fact["first_inference_ms"] > 0
    assert fact["init_ms"] > 0
    assert fact["peak_memory_mb"] > 1


def test_a_board_that_is_not_there_is_reported_at_once(
    models: Models,  # noqa: F811
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (workplace / "model.onnx").write_bytes(models.onnx)
    registry.add(Board("pi", "raspi4", "ssh", {"host": "127.0.0.1", "port": 1, "user": "pi"}))
    code, out, err = run("measure model.onnx --board pi", capsys)
    assert (code, out) == (4, "")
    assert "127.0.0.1:1" in err
    assert "edgenas board check pi" in err


def test_a_profile_of_networks_for_photos_and_of_their_blocks(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured before an interruption is not measured again."""
    registry.add(Board("made-up", "host", "null", {}))
    command = "board profile made-up --space efficientnet-lite0 --samples 8 --blocks"
    kept: list[str] = []
    keep, parts = Store.keep, LiveCost.parts

    def noting(self: Store, fingerprint: Any, measured: Any) -> Any:
        kept.append(fingerprint["model_sha256"])
        return keep(self, fingerprint, measured)

    def interrupted(self: LiveCost, asked: Any) -> Any:
        for number, each in enumerate(parts(self, asked)):
            if number == 5:
                raise KeyboardInterrupt
            yield each

    monkeypatch.setattr(Store, "keep", noting)
    monkeypatch.setattr(LiveCost, "parts", interrupted)
    code, _, err = run(command, capsys)
    assert code == 130
    assert "8 of 8 architectures and 5 of 216 blocks measured on made-up; nothing measured is lost" in err
    assert not (workplace / "made-up.toml").exists()
    monkeypatch.setattr(LiveCost, "parts", parts)
    code, out, _ = run(command, capsys)
    assert code == 0
    assert "fitted on 8 architectures and 216 blocks measured on board made-up" in out
    assert "edgenas search --device made-up.toml --space efficientnet-lite0 --latency 5ms" in out
    assert len(kept) == len(set(kept)) == 8 + 216
    code, out, _ = run(
        "search --device made-up.toml --space efficientnet-lite0 --latency 20ms --fitness macs --budget 20"
        " --batch-size 8",
        capsys,
    )
    assert code == 0
    assert "predictor in profile made-up (fitted on 8 architectures and 216 blocks" in out


def test_a_profile_is_not_overwritten(here: Board, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "here.toml").write_text("mine")
    code, _, err = run("board profile here", capsys)
    assert code == 2
    assert "choose another place by -o FILE" in err
    assert (workplace / "here.toml").read_text() == "mine"

"""The null board behaves like any other, takes no time, and has latencies that the seed and the model alone decide."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas import device as devices
from edgenas.board import registry
from edgenas.board.measure import Bench, Measured, Tier
from edgenas.board.model import Model, reference
from edgenas.board.null import Null
from edgenas.board.pool import connect
from edgenas.board.registry import Board
from edgenas.board.session import AgentSession, RefusedError, Session
from edgenas.board.store import Store
from edgenas.cli import main
from edgenas.errors import BoardError, UsageError
from edgenas.testing import check_session, check_transport


def null(**options: Any) -> AgentSession:
    session = connect(Board("fake", "host", "null", options))
    assert isinstance(session, AgentSession)
    return session


def median_ms(store: Path, content: bytes, **options: Any) -> float:
    device = devices.load("host")
    assert device.measurement is not None
    with contextlib.closing(null(**options)) as session:
        bench = Bench(session, device, "fake", 1, Store(store))
        (outcome,) = bench([Model(content, "onnx")], Tier.final(device.measurement))
    assert isinstance(outcome, Measured)
    assert not outcome.summary.problems
    return outcome.summary.median_ms


def test_it_is_a_transport_as_agreed() -> None:
    check_transport(lambda: Null(seed=11), shell=False)


def test_it_is_a_session_as_agreed() -> None:
    check_session(lambda: null(seed=12))


def test_so_is_this_computer(tmp_path: Path) -> None:
    board = Board("one", "host", "local", {"home": str(tmp_path)}, sys.executable)
    check_session(lambda: connect(board))


def test_a_session_that_lets_two_in_is_caught() -> None:
    class Generous(AgentSession):
        def lease(self, seconds: float) -> None:
            with contextlib.suppress(RefusedError):
                super().lease(seconds)

    def make() -> Session:
        return Generous(Null(seed=13))

    with pytest.raises(AssertionError, match="leased to one program at a time"):
        check_session(make)


def test_latencies_depend_on_seed_and_model_alone(tmp_path: Path) -> None:
    small, large = bytes(10_000), bytes(4_000_000)
    first = median_ms(tmp_path / "a", small)
    assert median_ms(tmp_path / "b", small) == first
    assert median_ms(tmp_path / "c", small, seed=1) != first
    assert median_ms(tmp_path / "d", large) > 4 * first
    spread = Null(seed=0).board.latency_ms(small)
    assert first == pytest.approx(spread, rel=0.01)


def test_what_is_made_up_says_so() -> None:
    with contextlib.closing(null()) as session:
        assert "made up" in session.facts["model"]
        assert {each["version"] for each in session.facts["runtimes"]} == {"null, made up"}


def test_outputs_are_made_up_in_the_models_own_number() -> None:
    model = reference("onnx")
    with contextlib.closing(null(seed=14)) as session:
        session.lease(60.0)
        file = {**session.put(model.content, ".onnx").reference(), "format": "onnx"}
        inputs = np.zeros((2, 3, 32, 32), "<f4").tobytes()
        outputs = session.run(10.0, inputs, model=file, runtime="onnxruntime", threads=1, batch=1)
        assert np.frombuffer(outputs, "<f4").reshape(2, 10).std() > 0
        assert session.run(10.0, inputs, model=file, runtime="onnxruntime", threads=1, batch=1) == outputs
        with pytest.raises(RefusedError, match="takes a multiple of 3072"):
            session.run(10.0, inputs[:-4], model=file, runtime="onnxruntime", threads=1, batch=1)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"no JSON", "request"),
        (b"[]", "request"),
        (b'{"op": "dance"}', "request"),
        (b'{"op": "time"}', "request"),
        (b'{"op": "lease", "holder": "x", "seconds": "long"}', "request"),
        (b'{"op": "release"}', "request"),
    ],
)
def test_requests_that_are_not_as_agreed_are_refused(line: bytes, kind: str) -> None:
    with contextlib.closing(Null(seed=15)) as transport:
        agent = transport.run(["python3", "-u", "agent.py", "--work", "work"])
        agent.receive(1.0)
        agent.send(line + b"\n", 1.0)
        reply = json.loads(agent.receive(1.0).removeprefix(b"@edgenas "))
        assert (reply["ok"], reply["kind"]) == (False, kind)
        agent.send(b'{"id": 7, "op": "close"}\n', 1.0)
        assert json.loads(agent.receive(1.0).removeprefix(b"@edgenas "))["id"] == 7
        assert (agent.receive(1.0), agent.wait(1.0)) == (b"", 0)


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": "x"}, {"noise": 2}, {"noise": "much"}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="a null board has no"):
        Null(**options)


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(shlex.split(command))
    captured = capsys.readouterr()
    return end.value.code if isinstance(end.value.code, int) else 0, captured.out, captured.err


def test_it_is_a_board_like_any_other(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the tiers as they are: no time passes."""
    (workplace / "model.onnx").write_bytes(reference("onnx").content)
    assert run("board add fake --device host --transport null --option seed=3 --option noise=0.02", capsys)[0] == 0
    assert registry.board("fake").options == {"seed": 3, "noise": 0.02}
    assert "nothing found that would spoil" in run("board check fake", capsys)[1]
    assert "made up" in run("board bench fake", capsys)[1]
    code, out, _ = run("measure model.onnx --board fake --latency 5ms --json", capsys)
    assert (code, json.loads(out)["verdict"]) == (0, "PASS")
    code, out, err = run("measure model.onnx --board fake --latency 0.1ms", capsys)
    assert (code, out.splitlines()[0]) == (3, "FAIL, of 0.1 ms")
    assert "edgenas search --latency 0.1ms --cost live" in err


def test_a_search_measures_on_it_and_finds_the_same_again(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The latencies too, with nothing left of the first time: nothing of them is this machine's."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    assert run("board add fake --device host --transport null", capsys)[0] == 0
    winners = []
    for name in ("one", "two"):
        monkeypatch.setenv("EDGENAS_STATE_DIR", str(workplace / name))  # where measurements are kept
        command = "search --device host --latency 50ms --cost live --fitness macs --board fake --generations 1"
        code, out, err = run(f"{command} --population 4 --pool 0 --refine 0 --run {name} --json", capsys)
        assert code == 0, err
        winners.append(json.loads(out)["winner"])
    assert winners[0]["costs"]["latency"] == winners[1]["costs"]["latency"]
    assert winners[0]["genes"] == winners[1]["genes"]
    assert 0 < winners[0]["costs"]["latency"]["value"] < 50


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("board add x --device host --transport nul", "did you mean null"),
        ("board add x --device host --transport null --local", "by one of --ssh"),
        ("board add x --device host --local --option seed=1", "--option belongs to --transport"),
        ("board add x --device host --transport null --option seed", "is no option; write it like NAME=VALUE"),
        ("board add x --device host --transport null --option seed=1 --option seed=2", "once for a name"),
        ("board add x --device host --transport null --option sed=1", "it takes seed, noise"),
    ],
)
def test_users_errors_are_one_sentence(command: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(command, capsys)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1
    assert registry.boards() == {}


def test_no_package_is_deployed_to_it(archive: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("board add fake --device host --transport null", capsys)[0] == 0
    code, out, err = run(f"deploy {archive} --board fake", capsys)
    assert (code, out) == (4, "")
    assert "a null board runs no command; use a real board" in err


def test_a_closed_agent_takes_no_requests() -> None:
    session = null(seed=16)
    session.close()
    with pytest.raises(BoardError, match="the agent has ended"):
        session.call("ping", 1.0)

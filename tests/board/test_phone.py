"""A phone timed with the real adb client: an emulated phone, and an emulated benchmark_model on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.board.session import RefusedError
from edgenas.errors import BoardError
from tests.board.fake_adbd import FakePhone
from tests.board.phones import REFERENCE, Connect, on_path, script, timed


def test_facts(connect_phone: Connect, android: dict[str, Path]) -> None:
    facts = connect_phone(procfs=str(android["procfs"]), sysfs=str(android["sysfs"])).facts
    assert facts["model"] == "Google Pixel 3"
    assert facts["cpu"] == "Qualcomm Technologies, Inc SDM845"
    assert (facts["cores"], facts["memory_mb"], facts["platform"]) == (8, 3645, "Android 12")
    assert facts["boot_id"] == "11111111-2222"
    assert facts["board_id"] == hashlib.sha256(b"8A9X0B1C2").hexdigest()[:16]
    state = facts["state"]
    assert state["governor"] == ["schedutil", "schedutil"]
    assert (state["clocks_mhz"], state["max_clocks_mhz"]) == ([825.6, 825.6], [1766.4, 2803.2])
    assert state["temperature_c"] == {"cpu-0-0-usr": 41.3, "skin": 38.0}
    assert (state["load"], state["uptime_s"]) == (0.25, 1000.5)
    assert "the governor is schedutil, not performance" in state["notes"]


def test_what_a_phone_hides_stays_unknown(
    connect_phone: Connect, android: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Temperature{mValue=31.5, mType=3, mName=skin, mStatus=0}"
    on_path(tmp_path, monkeypatch, "dumpsys", f'[ "$1" = thermalservice ] && echo "  {said}"')
    facts = connect_phone(procfs=str(android["procfs"]), sysfs=str(tmp_path / "none")).facts
    state = facts["state"]
    assert (state["governor"], state["clocks_mhz"], state["throttled"]) == (None, None, None)
    assert facts["cores"] is None
    assert state["temperature_c"] == {"skin": 31.5}, "from dumpsys, where the zones are not readable"


def test_the_tool_is_brought_once_and_files_once(connect_phone: Connect, phone: FakePhone, steady_tool: Path) -> None:
    folder = phone.path("/data/local/tmp/edgenas")
    session = connect_phone()
    version = hashlib.sha256(steady_tool.read_bytes()).hexdigest()[:16]
    assert session.facts["runtimes"] == [{"name": "benchmark_model", "version": version, "formats": ["tflite"]}]
    brought = folder / f"benchmark_model-{version}"
    before = brought.stat().st_mtime_ns
    file = session.put(b"content", ".tflite")
    there = folder / "files" / file.name
    assert there.read_bytes() == b"content"
    there.write_bytes(b"changed")
    assert session.put(b"content", ".tflite") == file
    assert there.read_bytes() == b"changed", "it was not copied again"
    connect_phone()
    assert brought.stat().st_mtime_ns == before


def test_the_tool_may_lie_on_the_phone(connect_phone: Connect, phone: FakePhone, steady_tool: Path) -> None:
    phone.path("/data/local/tmp/benchmark_model").write_bytes(steady_tool.read_bytes())
    session = connect_phone(tool=None)
    assert session.facts["runtimes"][0]["version"] == hashlib.sha256(steady_tool.read_bytes()).hexdigest()[:16]
    session.lease(60.0)
    assert timed(session)["samples_ns"] == [[2_000_000]] * 3


def test_a_start_is_a_sample(connect_phone: Connect) -> None:
    session = connect_phone()
    session.lease(60.0)
    raw = timed(session, affinity=[0], fresh=True)
    assert raw["samples_ns"] == [[2_000_000]] * 3
    assert raw["averaged_runs"] == [15] * 3, "30 ms each"
    assert raw["inner"] == 15
    assert [each["mean_ns"] for each in raw["starts"]] == [2_000_000] * 3
    assert (raw["affinity"], raw["golden_error"]) == ([0], None)
    assert raw["peak_memory_kb"] == round(13.1797 * 1024)
    assert timed(session)["peak_memory_kb"] is not None, "it is known by now"


def test_what_is_refused(connect_phone: Connect, phone: FakePhone, android: dict[str, Path]) -> None:
    session = connect_phone(procfs=str(android["procfs"]), sysfs=str(android["sysfs"]))

    def refused(kind: str, work: Callable[[], object]) -> None:
        with pytest.raises(RefusedError) as caught:
            work()
        assert caught.value.kind == kind, caught.value

    refused("lease", lambda: timed(session))
    session.lease(60.0)
    refused("model", lambda: timed(session, b"no model at all"))
    refused("runtime", lambda: timed(session, golden={"input": {}, "output": {}, "relative_error": 1e-3}))
    refused("hardware", lambda: timed(session, affinity=[8]))
    refused("runtime", lambda: session.call("run", 1.0))
    assert session.call("ping", 10.0) == {}
    path = phone.path("/data/local/tmp/edgenas/files") / session.put(REFERENCE, ".tflite").name
    path.write_bytes(REFERENCE + b"x")
    refused("hash", lambda: timed(session))
    path.unlink()
    refused("missing", lambda: timed(session))


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("kill -SEGV $$", "crash", "signal 11"),
        ("kill -KILL $$", "memory", "memory is short"),
        ("echo INFO: STARTING!; exit 1", "crash", "did not finish: INFO: STARTING!"),
        ("echo all is well", "crash", "did not finish: all is well"),
        ("sleep 1000", "timeout", "took too long"),
        ("exec no-such-command", "runtime", "does not start"),
    ],
)
def test_a_tool_that_fails(connect_phone: Connect, tmp_path: Path, body: str, kind: str, message: str) -> None:
    session = connect_phone(script(tmp_path, body))
    session.lease(60.0)
    with pytest.raises(RefusedError, match=message) as caught:
        timed(session, timeout_s=1.0 if kind == "timeout" else 60.0)
    assert caught.value.kind == kind
    session.lease(60.0)
    assert session.call("ping", 10.0) == {}, "the next job works"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("avg={", "avg=-{"), "cannot be"),
        (("[2000]", "[2000000000]"), "samples that sum to"),
        (("[2000]", "[20]"), "a repeat of"),
        (("Inference (avg): {", "Inference (avg): 9{"), "two means"),
    ],
)
def test_numbers_that_cannot_be(
    connect_phone: Connect, steady_tool: Path, change: tuple[str, str], message: str
) -> None:
    emulated = steady_tool.read_text().replace(
        'text = f"count={len(times)}"', 'times[-1] += 1\n    text = f"count={len(times)}"'
    )
    assert change[0] in emulated
    steady_tool.write_text(emulated.replace(*change))
    session = connect_phone()
    session.lease(60.0)
    with pytest.raises(RefusedError, match=message) as caught:
        timed(session)
    assert caught.value.kind == "impossible"


def test_no_tool(connect_phone: Connect, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=r"there is no benchmark_model on the phone; get the .*--benchmark-model"):
        connect_phone(tool=None)
    with pytest.raises(BoardError, match=r"cannot be read.*--benchmark-model"):
        connect_phone(tool=tmp_path / "nowhere")
    broken = tmp_path / "broken"
    sparc = (2).to_bytes(2, "big")
    broken.write_bytes(b"\x7fELF\2\2\1" + bytes(9) + (2).to_bytes(2, "big") + sparc + bytes(44))
    with pytest.raises(BoardError, match=r"does not start there .*; get the benchmark_model for"):
        connect_phone(tool=broken)


def test_throttling_is_reported(connect_phone: Connect, android: dict[str, Path], steady_tool: Path) -> None:
    capped = android["sysfs"] / "devices/system/cpu/cpufreq/policy4/scaling_max_freq"
    said = 'say("STARTING!")'
    text = steady_tool.read_text()
    assert said in text
    steady_tool.write_text(text.replace(said, f"open({str(capped)!r}, 'w').write('1000000')\n{said}"))
    session = connect_phone(**{name: str(path) for name, path in android.items()})
    session.lease(60.0)
    raw = timed(session)
    assert (raw["before"]["throttled"], raw["after"]["throttled"]) == (None, 4)
    assert "clocks are held at 1000 of 2803.2 MHz" in raw["after"]["notes"]

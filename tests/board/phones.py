"""Sessions with an emulated phone, and what an Android tells about itself."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenas import device as devices
from edgenas.board.adb import Adb
from edgenas.board.model import reference
from edgenas.board.phone import PhoneSession
from edgenas.cli import main
from edgenas.device import Device
from tests.board.fake_adbd import FakePhone

REFERENCE = reference("tflite").content
PLAN = {
    "warmup_runs": 1,
    "warmup_s": 0.01,
    "repeats": 3,
    "min_repeat_ms": 30.0,
    "min_runs": 0,
    "max_repeat_s": 20.0,
    "pause_s": 0.0,
    "min_sample_ms": 1.0,
}
PROPERTIES = {
    "ro.serialno": "8A9X0B1C2",
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 3",
    "ro.build.version.release": "12",
}

Connect = Callable[..., PhoneSession]


@pytest.fixture
def connect_phone(phone: FakePhone, adb_server_port: int, steady_tool: Path) -> Iterator[Connect]:
    """Opens sessions with the phone, with what an ordinary one takes unless asked otherwise."""
    with contextlib.ExitStack() as opened:

        def open_session(tool: Path | None = steady_tool, holder: str = "the tests", **options: Any) -> PhoneSession:
            session = PhoneSession(Adb(phone.serial, server_port=adb_server_port), tool, holder, **options)
            opened.callback(session.close)
            return session

        yield open_session


@pytest.fixture
def android(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Files in place of the phone's /proc and /sys, and its getprop."""
    values = "\n".join(f"({name}) echo '{value}';;" for name, value in PROPERTIES.items())
    on_path(tmp_path, monkeypatch, "getprop", f'case "$1" in\n{values}\nesac')
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    files = {
        proc / "sys/kernel/random/boot_id": "11111111-2222",
        proc / "uptime": "1000.50 2000.10",
        proc / "meminfo": "MemTotal:        3733464 kB\nMemFree: 5 kB",
        proc / "cpuinfo": "processor\t: 0\nHardware\t: Qualcomm Technologies, Inc SDM845",
        proc / "loadavg": "0.25 0.30 0.10 1/100 999",
        sys / "devices/system/cpu/present": "0-7",
        sys / "class/thermal/thermal_zone0/temp": "41300",
        sys / "class/thermal/thermal_zone0/type": "cpu-0-0-usr",
        sys / "class/thermal/thermal_zone1/temp": "38",
        sys / "class/thermal/thermal_zone1/type": "skin",
        sys / "class/thermal/thermal_zone2/temp": "77",
        sys / "class/thermal/thermal_zone2/type": "soc",
        sys / "class/thermal/thermal_zone3/temp": "-273000",
        sys / "class/thermal/thermal_zone3/type": "off",
    }
    for policy, top in (("policy0", 1766400), ("policy4", 2803200)):
        folder = sys / "devices/system/cpu/cpufreq" / policy
        files |= {folder / "scaling_governor": "schedutil", folder / "scaling_cur_freq": "825600"}
        files |= {folder / "cpuinfo_max_freq": str(top), folder / "scaling_max_freq": str(top)}
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return {"procfs": proc, "sysfs": sys}


def on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """A command of the phone's."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / name).chmod(0o755)
    if str(folder / "bin") not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def timed(session: PhoneSession, content: bytes = REFERENCE, timeout_s: float = 60.0, **fields: Any) -> dict[str, Any]:
    model = {**session.put(content, ".tflite").reference(), "format": "tflite"}
    asked = {"model": model, "runtime": "benchmark_model", "threads": 1, "affinity": None, "plan": PLAN, "fresh": False}
    return session.time(timeout_s, **{**asked, **fields})


def script(tmp_path: Path, body: str) -> Path:
    """A tool that starts, and then does `body` instead of timing."""
    tool = tmp_path / "script"
    tool.write_text(f'#!/bin/sh\n[ "$1" = --help ] && exit 0\n{body}\n')
    return tool


@pytest.fixture
def pixel3(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The profile of the Pixel 3, with short repeats on a core that this computer has; and no boards."""
    monkeypatch.setenv("EDGENAS_CONFIG_DIR", str(workplace / "config"))
    monkeypatch.setenv("EDGENAS_STATE_DIR", str(workplace / "state"))
    text = (devices.profiles() / "pixel3.toml").read_text()
    changes = {
        "affinity = [4, 5, 6, 7]": "affinity = [0]",
        "min_repeat_ms = 100.0": "min_repeat_ms = 20.0",
        "warmup_s = 0.5": "warmup_s = 0.0",
        "pause_s = 0.1": "pause_s = 0.0",
        "final_process_s = 10.0": "final_process_s = 0.05",
    }
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    (workplace / "pixel3.toml").write_text(text)
    return devices.load("./pixel3.toml")


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(command.split())
    captured = capsys.readouterr()
    return end.value.code if isinstance(end.value.code, int) else 0, captured.out, captured.err


@pytest.fixture
def pixel(pixel3: Device, phone: FakePhone, steady_tool: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The name of a board."""
    command = f"board add pixel --device ./pixel3.toml --adb {phone.serial} --benchmark-model {steady_tool}"
    code, _, err = run(command, capsys)
    assert code == 0, err
    return "pixel"

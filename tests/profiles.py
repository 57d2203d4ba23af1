"""Devices whose measurements take milliseconds: how long they take is what a device's profile says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgenas import device as devices
from edgenas.device import Device

QUICK: dict[str, Any] = {
    "warmup_runs": 1,
    "warmup_s": 0.0,
    "repeats": 3,
    "min_repeat_ms": 10.0,
    "pause_s": 0.0,
    "final_processes": 2,
    "final_process_s": 0.02,
    "attempts": 1,
    "final_attempts": 1,
    "reference_repeat_ms": 5.0,
}
INSTANT = {"repeats": 2, "min_repeat_ms": 0.001, "final_process_s": 0.001, "reference_repeat_ms": 0.001}


def quick_profile(folder: Path, name: str = "host", **changes: Any) -> Path:
    """A file like the profile called `name`, with QUICK measurements, but for `changes`."""
    text = (devices.profiles() / f"{name}.toml").read_text()
    settings = {**QUICK, **changes}
    for key in settings:
        text = re.sub(rf"(?m)^{key} = .*\n", "", text)
    assert "[measurement]\n" in text
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    path = folder / f"{name}.toml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("[measurement]\n", f"[measurement]\n{lines}"))
    return path


def quick(device: Device, **changes: Any) -> Device:
    """`device` with QUICK measurements, but for `changes`."""
    assert device.measurement is not None
    return replace(device, measurement=replace(device.measurement, **{**QUICK, **changes}))

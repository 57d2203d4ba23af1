"""What work costs in energy and CO2e, by the method that the paper's Table 1 goes by (Strubell et al., ACL 2019)."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# What a data centre takes beside its processors, and pounds of CO2e a kWh, the mean of the USA: both of that method.
OVERHEAD, LB_CO2E_A_KWH, G_A_LB = 1.58, 0.954, 453.592
WATTS_A_CORE = 15.0  # assumed, where nothing measures it
POWERCAP = Path("/sys/class/powercap")
_J_A_KWH = 3.6e6


def kwh_of(core_seconds: float, joules: float | None) -> float:
    """What processors took, assumed by `core_seconds` where no `joules` were measured, and the data centre beside."""
    return (core_seconds * WATTS_A_CORE if joules is None else joules) / _J_A_KWH * OVERHEAD


def co2e_lb(kwh: float) -> float:
    return kwh * LB_CO2E_A_KWH


def energy_text(core_seconds: float, joules: float | None) -> str:
    """What that comes to, and whether it was measured."""
    assumed = f"assumed {WATTS_A_CORE:g} W a core"
    kwh = kwh_of(core_seconds, joules)
    how = assumed if joules is None else "measured: all that this computer's processors took meanwhile"
    return (
        f"{kwh:.2g} kWh, about {co2e_lb(kwh) * G_A_LB:.2g} g CO2e ({how}, x {OVERHEAD:g}, {LB_CO2E_A_KWH:g} lbs a kWh)"
    )


class Meter:
    """What the processors of this computer take, where they count it themselves: CPUs by RAPL, NVIDIA's GPUs by NVML.

    Counters start again at 0 now and then, so ask at least every few minutes.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        counters: list[_Rapl | _Gpu] = [*_rapl(powercap), *_nvml()]
        self._counters = [each for each in counters if each.read() is not None]
        self._last = [each.read() for each in self._counters]
        self._joules = 0.0

    @property
    def sources(self) -> list[str]:
        """What is measured, in words."""
        return [each.name for each in self._counters]

    def joules(self) -> float | None:
        """Since the start; None where nothing can be read."""
        for place, counter in enumerate(self._counters):
            now, before = counter.read(), self._last[place]
            if now is None or before is None:
                return None
            self._joules += now - before if now >= before else now - before + counter.span_j
            self._last[place] = now
        return self._joules if self._counters else None

    def since(self, before_j: float | None) -> float | None:
        """Since `joules` was `before_j`; None where either could not be read."""
        now_j = self.joules()
        return None if before_j is None or now_j is None else now_j - before_j


class _Rapl:
    """A processor's package."""

    def __init__(self, zone: Path) -> None:
        self._zone, self.name = zone, f"RAPL {zone.name.partition(':')[2]}"
        self.span_j = _joules(zone / "max_energy_range_uj") or 0.0

    def read(self) -> float | None:
        return _joules(self._zone / "energy_uj")


class _Gpu:
    span_j = 0.0

    def __init__(self, nvml: Any, handle: Any, number: int) -> None:
        self._nvml, self._handle, self.name = nvml, handle, f"NVML GPU {number}"

    def read(self) -> float | None:
        with contextlib.suppress(self._nvml.NVMLError):
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        return None


def _rapl(powercap: Path) -> Iterable[_Rapl]:
    """The packages alone: what is within one is counted with it."""
    with contextlib.suppress(OSError):
        return [_Rapl(zone) for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    return []


def _nvml() -> Iterable[_Gpu]:
    try:
        pynvml: Any = importlib.import_module("pynvml")

        pynvml.nvmlInit()
        return [
            _Gpu(pynvml, pynvml.nvmlDeviceGetHandleByIndex(number), number)
            for number in range(pynvml.nvmlDeviceGetCount())
        ]
    except Exception:  # not installed, or no driver: its own errors are known only where it is
        return []


def _joules(path: Path) -> float | None:
    """Of a file of the kernel's, in microjoules; None where it is not there, or root's alone, or holds no number."""
    try:
        return float(path.read_text(encoding="ascii")) / 1e6
    except (OSError, ValueError):
        return None

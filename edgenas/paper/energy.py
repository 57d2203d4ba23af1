"""What work costs in energy and CO2e, by the method that the paper's Table 1 goes by (Strubell et al., ACL 2019)."""

from __future__ import annotations

# What a data centre takes beside its processors, and pounds of CO2e a kWh, the mean of the USA: both of that method.
OVERHEAD, LB_CO2E_A_KWH, G_A_LB = 1.58, 0.954, 453.592
WATTS_A_CORE = 15.0  # assumed


def kwh_of(core_seconds: float, watts: float = WATTS_A_CORE) -> float:
    """What cores, of `watts` each, take for so many seconds, the data centre's own share included."""
    return core_seconds / 3.6e6 * watts * OVERHEAD


def co2e_lb(kwh: float) -> float:
    return kwh * LB_CO2E_A_KWH

"""Which figures there are, and how those that are asked for become ready to be made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgenas.benchmarks.nasbench201.methods import BenchmarkTables
from edgenas.errors import UnknownNameError, UsageError
from edgenas.paper.fig2 import Fig2
from edgenas.paper.fig3 import Fig3
from edgenas.paper.fig5 import Fig5
from edgenas.paper.figure import Asked, Figure
from edgenas.paper.searches import DEVICES, LIMITS, SEEDS, prepared
from edgenas.units import check_ranges

FIGURES = ("fig2", "fig3", "fig5")
ABSENT = {
    "table1": "it rests on searches in the space of Once-for-all on ImageNet, which take hours on a GPU",
    "fig4": "it rests on networks of the space of Once-for-all trained on photos, which takes hours on a GPU",
}
PRESETS = ("default", "paper")
MAX_LIMITS = 50


@dataclass(frozen=True)
class Paper:
    """`figures` ready to be made, in the folder `folder`; `left_out`: by its name, why one is not."""

    figures: tuple[Figure, ...]
    folder: Path
    left_out: dict[str, str]


def paper(
    figure: str,
    preset: str = "default",
    seeds: int | None = None,
    limits: int | None = None,
    output: Path | str = "paper",
    workers: int | None = None,
) -> Paper:
    """`figure`, one of FIGURES or "all", ready to be made in the folder `output`, of `seeds` searches under each of
    `limits` limits by `preset`, one of PRESETS; `workers`: processes, by default one a core.

    Raises UsageError for what cannot be asked, and DataError for data that is missing or damaged.
    """
    if figure in ABSENT:
        raise UsageError(f"{figure} is not made: {ABSENT[figure]}; give one of {', '.join(FIGURES)}, or all")
    known = (*FIGURES, "all")
    if figure not in known:
        raise UnknownNameError("figure", figure, known, f"`edgenas paper` makes {', '.join(known)}")
    if preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS, f"--preset is {' or '.join(PRESETS)}")
    if limits is not None and not 1 <= limits <= MAX_LIMITS:
        raise UsageError(f"--limits {limits} is not from 1 to {MAX_LIMITS}; give how many limits a device has")
    if seeds is not None and seeds < 1:
        raise UsageError(f"--seeds {seeds} searches nothing; give at least --seeds 1")
    check_ranges(seeds=seeds, workers=workers)
    asked = Asked(preset, seeds, limits, Path(output), workers)
    names = FIGURES if figure == "all" else (figure,)
    return Paper(tuple(_made(names, asked)), asked.folder, ABSENT if figure == "all" else {})


def _made(names: tuple[str, ...], asked: Asked) -> list[Figure]:
    found: list[Figure] = []
    if {"fig2", "fig3"} & set(names):
        searches = prepared(asked) if "fig2" in names else prepared(asked, DEVICES)
        found += [make(searches) for make in (Fig2, Fig3) if make.name in names]
    if "fig5" in names:
        found.append(Fig5(BenchmarkTables(), asked.seeds or SEEDS, asked.limits or LIMITS))
    return found

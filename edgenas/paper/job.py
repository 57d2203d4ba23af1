"""Which figures there are, and how those that are asked for become ready to be made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgenas.benchmarks.nasbench201.methods import BenchmarkTables
from edgenas.data import files
from edgenas.errors import DataError, UnknownNameError, UsageError
from edgenas.paper.fig2 import Fig2
from edgenas.paper.fig3 import Fig3
from edgenas.paper.fig4 import fig4
from edgenas.paper.fig5 import Fig5
from edgenas.paper.figure import Asked, Figure
from edgenas.paper.searches import DEVICES, LIMITS, SEEDS, prepared
from edgenas.paper.table1 import SUPERNET_FILE, table1
from edgenas.search.request import PRESETS as SEARCH_PRESETS
from edgenas.search.request import Preset
from edgenas.units import check_ranges

_Maker = Callable[[Asked, Mapping[str, Preset]], Figure]
_MAKERS: dict[str, _Maker] = {
    "table1": table1,
    "fig2": lambda asked, _: Fig2(prepared(asked)),
    "fig3": lambda asked, _: Fig3(prepared(asked, DEVICES)),
    "fig4": fig4,
    "fig5": lambda asked, _: Fig5(BenchmarkTables(), asked.seeds or SEEDS, asked.limits or LIMITS),
}
FIGURES = tuple(_MAKERS)
_NEEDING = ("table1", "fig4")  # what does not come with the program
ABSENT = {
    "S1": "it is Fig. 3 of CIFAR-100 and ImageNet16-120 alone, and neither their accuracies nor scores by their images"
    " are in the tables that ship (`edgenas paper fig3` makes S2 to S6 of CIFAR-10)",
}
PRESETS = ("default", "paper")
MAX_LIMITS = 50
# What not every figure takes, by the field of Asked: its flag, and which take it.
_TAKEN: dict[str, tuple[str, tuple[str, ...]]] = {
    "limits": ("--limits", ("fig2", "fig3", "fig4", "fig5")),
    "dataset": ("--dataset", ("table1", "fig4")),
    "space": ("--space", ("fig4",)),
    "references": ("--reference", ("fig4",)),
    "time_s": ("--time", ("fig4",)),
}


@dataclass(frozen=True)
class Paper:
    """`figures` ready to be made, in the folder `folder`; `left_out`: by its name, why one is not."""

    figures: tuple[Figure, ...]
    folder: Path
    left_out: dict[str, str]


def paper(
    figure: str, output: Path | str = "paper", presets: Mapping[str, Preset] = SEARCH_PRESETS, **asked: Any
) -> Paper:
    """`figure`, one of FIGURES or "all", ready to be made in the folder `output`; `asked`: fields of Asked, None leaves
    the choice to each. Of all those are left out that need what is not on this machine. `presets`: as of
    edgenas.search.search.

    Raises UsageError for what cannot be asked, and DataError for data that is missing or damaged.
    """
    if figure in ABSENT:
        raise UsageError(f"{figure} is not made: {ABSENT[figure]}; give one of {', '.join(FIGURES)}, or all")
    known = (*FIGURES, "all")
    if figure not in known:
        raise UnknownNameError("figure", figure, known, f"`edgenas paper` makes {', '.join(known)}")
    found = Asked(folder=Path(output), **asked)
    _check(figure, found)
    if figure != "all":
        return Paper((_MAKERS[figure](found, presets),), found.folder, {})
    figures, left_out = [], {}
    for name, make in _MAKERS.items():
        try:
            figures.append(make(_of_all(name, found), presets))
        except (DataError, UsageError) as error:
            if name not in _NEEDING:
                raise
            left_out[name] = str(error)
    return Paper(tuple(figures), found.folder, {**left_out, **ABSENT})


def _of_all(name: str, asked: Asked) -> Asked:
    """What is asked of the figure `name` where all are: photos are no use to table1 without the supernet."""
    useless = name == "table1" and files.locate(SUPERNET_FILE) is None
    return replace(asked, dataset=None) if useless else asked


def _check(figure: str, asked: Asked) -> None:
    """Raises UsageError for what cannot be asked of `figure`, whatever data is there."""
    if asked.preset not in PRESETS:
        raise UnknownNameError("preset", asked.preset, PRESETS, f"--preset is {' or '.join(PRESETS)}")
    if asked.limits is not None and not 1 <= asked.limits <= MAX_LIMITS:
        raise UsageError(f"--limits {asked.limits} is not from 1 to {MAX_LIMITS}; give how many limits a device has")
    if asked.seeds is not None and asked.seeds < 1:
        raise UsageError(f"--seeds {asked.seeds} searches nothing; give at least --seeds 1")
    check_ranges(seeds=asked.seeds, workers=asked.workers)
    for name, (flag, taking) in _TAKEN.items():
        if getattr(asked, name) is not None and figure not in (*taking, "all"):
            raise UsageError(f"{flag} is of {' and '.join(taking)}; leave it out for {figure}")

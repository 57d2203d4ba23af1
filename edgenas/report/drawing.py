"""Plots by matplotlib, written the same for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgenas.errors import DataError
from edgenas.files import write_whole

# Told apart by the colour-blind (Okabe and Ito).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")


def new_figure(width_inches: float, height_inches: float) -> Any:
    """One of matplotlib's; None where that is not installed."""
    try:
        import matplotlib  # noqa: F401 - a part of it may be known where the whole is not
        from matplotlib.figure import Figure
    except ImportError:
        return None
    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def save(figure: Any, path: Path, suffixes: Sequence[str], advice: str) -> list[Path]:
    """Write matplotlib's `figure` beside `path` with each of `suffixes`, png or svg. Raises DataError, which ends in
    `advice`, where that cannot be written."""
    import matplotlib

    metadata = {"png": {"Software": None}, "svg": {"Date": None}}
    paths = []
    # No date and no random ids: the same choices give the same files.
    with matplotlib.rc_context({"svg.hashsalt": "edgenas"}):
        for suffix in suffixes:
            paths.append(path.with_name(f"{path.name}.{suffix}"))
            drawn = io.BytesIO()
            figure.savefig(drawn, format=suffix, dpi=150, metadata=metadata[suffix])
            write_whole(paths[-1], drawn.getvalue(), DataError, advice)
    return paths

"""What `edgenas export` and `edgenas package` do, as functions of these names; `verify` and `deploy` are in the files
of their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenas.package.build import build, exported
from edgenas.package.export import CALIBRATION_IMAGES, EDGETPU, FORMATS, parse_formats
from edgenas.package.export import export as write
from edgenas.package.remedies import REMEDIES, check_remedies
from edgenas.run import open_trained


@dataclass(frozen=True)
class Exported:
    """The `record` of what was written, as export.json holds it, and the `folder` that has the files."""

    record: dict[str, Any]
    folder: Path


def export(
    run: str,
    formats: str = ",".join(FORMATS),
    folder: Path | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    remedies: str = REMEDIES[-1],
) -> Exported:
    """Write the network trained in `run`, a name or a folder, to `folder` (default RUN/export) in each of `formats`,
    with commas between.

    Raises UnknownNameError for another format and for other remedies, else as edgenas.package.export.export does.
    """
    check_remedies(remedies)
    asked, opened = parse_formats(formats), open_trained(run)
    folder = folder or opened.path / "export"
    return Exported(write(opened, asked, folder, calibration_images, remedies), folder)


def export_once(run: str, formats: str = ",".join(FORMATS)) -> Exported:
    """As `export`, to RUN/export; but where an earlier export of the same weights left every format there, that is it.
    Raises as that does, and DataError where the run is not trained."""
    from edgenas.train.files import load_trained

    opened = open_trained(run)
    folder = opened.path / "export"
    found = exported(folder, load_trained(opened.path))
    if found is None or (EDGETPU in parse_formats(formats) and found[0]["edgetpu"] is None):
        return export(run, formats)
    return Exported(found[0], folder)


def package(run: str, path: Path) -> dict[str, Any]:
    """Put the network trained in `run`, a name or a folder, into the archive `path`; its manifest. Raises as
    edgenas.package.build.build does."""
    return build(open_trained(run), path)

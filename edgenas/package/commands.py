"""What `edgenas export` and `edgenas package` do, as functions of these names; `verify` and `deploy` are in the files
of their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenas.package.build import build, exported_once
from edgenas.package.export import CALIBRATION_IMAGES, FORMATS, parse_formats
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


def export_once(run: str, edgetpu: bool = False) -> Exported:
    """As `export`, to RUN/export in every format, with `edgetpu` for that device too; but what an earlier export of the
    same weights left there is taken, and files that the devices searched for do not take are left out where they
    disagree with torch. Raises as that does."""
    from edgenas.train.files import load_trained

    opened = open_trained(run)
    record, _ = exported_once(opened, load_trained(opened.path), edgetpu)
    return Exported(record, opened.path / "export")


def package(run: str, path: Path) -> dict[str, Any]:
    """Put the network trained in `run`, a name or a folder, into the archive `path`; its manifest. Raises as
    edgenas.package.build.build does."""
    return build(open_trained(run), path)

"""`edgenas export`, `edgenas package`, `edgenas verify` and `edgenas deploy`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Run = Annotated[str, typer.Argument(help="A trained run's name under ./runs, or its folder.")]


def export(
    run: _Run,
    formats: Annotated[
        str, typer.Option("--format", help="Any of onnx, tflite, tflite-f16, tflite-int8, edgetpu, with commas.")
    ] = "onnx,tflite,tflite-f16,tflite-int8",
    output: Annotated[str | None, typer.Option("-o", "--output", help="Folder for the files.  [RUN/export]")] = None,
    calibration: Annotated[
        int, typer.Option(min=1, help="Images of the train split that set the ranges of int8.")
    ] = 128,
    as_json: _Json = False,
) -> None:
    """Write the trained network as model files, each checked against torch on real images.

    Example: edgenas export digits --format onnx,tflite,tflite-f16,tflite-int8,edgetpu
    """
    from edgenas.package.export import export as write
    from edgenas.package.export import parse_formats
    from edgenas.report.package import export_text
    from edgenas.run import open_trained

    asked, opened = parse_formats(formats), open_trained(run)
    folder = Path(output) if output else opened.path / "export"
    record = write(opened, asked, folder, calibration)
    print(json.dumps(record) if as_json else export_text(record, folder))


def package(
    run: _Run,
    output: Annotated[str, typer.Option("-o", "--output", help="The archive to write, FILE.tar.gz.")],
    as_json: _Json = False,
) -> None:
    """Put models, manifest, model card, golden images and a runner into one reproducible archive.

    Example: edgenas package digits -o digits.tar.gz
    """
    from edgenas.package.build import build
    from edgenas.report.package import package_text
    from edgenas.run import open_trained

    manifest = build(open_trained(run), Path(output))
    print(json.dumps(manifest) if as_json else package_text(manifest, Path(output)))


def verify(
    file: Annotated[str, typer.Argument(help="An archive that `edgenas package` made.")], as_json: _Json = False
) -> None:
    """Check a package: its structure, every hash, and what its models make of the golden images.

    Example: edgenas verify digits.tar.gz
    """
    from edgenas.package.verify import verify as check
    from edgenas.report.package import verify_text

    found = check(Path(file))
    print(json.dumps(found) if as_json else verify_text(found))


def deploy(
    file: Annotated[str, typer.Argument(help="An archive that `edgenas package` made.")],
    board: Annotated[str, typer.Option(help="The board's name.")],
    latency: Annotated[
        str | None, typer.Option(help="Judge it against this limit, like 5ms.  [the one it was searched for]")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="onnx, tflite, tflite-f16 or tflite-int8.  [the device's]")
    ] = None,
    images: Annotated[str, typer.Option(help="Test images to count right answers on, at most; or: all.")] = "1000",
    dataset: Annotated[
        str | None, typer.Option(help="Folder of those images, where it was trained on a folder.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="The report, less .json and .md.  [FILE-BOARD]")
    ] = None,
    runtime: Annotated[str, typer.Option(help="What executes it there.  [as the board's entry or device says]")] = "",
    as_json: _Json = False,
) -> None:
    """Bring a package to a board, check it there, and measure its accuracy and latency there.

    Example: edgenas deploy digits.tar.gz --board here
    """
    from edgenas.errors import ExportError, UsageError
    from edgenas.files import check_place
    from edgenas.package.deploy import ADVICE, report_paths, write_report
    from edgenas.package.deploy import deploy as bring
    from edgenas.report.package import deployed_text
    from edgenas.units import parse

    path = Path(file)
    if images != "all" and not re.fullmatch(r"0*[1-9][0-9]{0,8}", images, re.A):
        raise UsageError(f"--images {images:.24} counts nothing; give a number of 1 or more, or: --images all")
    count = None if images == "all" else int(images)
    base = Path(output) if output else Path(f"{path.name.removesuffix('.tar.gz')}-{board}")
    for each in report_paths(base):
        check_place(each, ExportError, ADVICE)
    deployed = bring(path, board, parse(latency, "latency") if latency else None, form, count, dataset, runtime)
    text = deployed_text(deployed.report)
    written = write_report(deployed, base, text)
    print(json.dumps(deployed.report) if as_json else f"{text}\nreport: {', '.join(map(str, written))}")
    if deployed.problem is not None:
        raise deployed.problem

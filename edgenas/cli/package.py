"""`edgenas export`, `edgenas package`, `edgenas verify` and `edgenas deploy`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from edgenas.cli.options import Json, OnBoard, PackageFile, Runtime, TrainedRun, option
from edgenas.cli.results import interrupted, show


def export(
    run: TrainedRun,
    formats: Annotated[
        str, option("Any of onnx, tflite, tflite-f16, tflite-int8, edgetpu, with commas.", "--format")
    ] = "onnx,tflite,tflite-f16,tflite-int8",
    output: Annotated[str | None, option("Folder for the files.", "-o", "--output", default="RUN/export")] = None,
    calibration: Annotated[int, option("Images of the train split that set the ranges of int8.", min=1)] = 128,
    int8_remedies: Annotated[
        str,
        option(
            "What is tried, in order, where int8 is more than a point less accurate than float: none; calibration,"
            " which takes seconds; training: that, then a few hundred steps of training, which take some minutes."
        ),
    ] = "training",
    as_json: Json = False,
) -> None:
    """Write the trained network as model files, each checked against torch on real images.

    Example: edgenas export digits --format onnx,tflite,tflite-f16,tflite-int8,edgetpu
    """
    from edgenas.package import commands
    from edgenas.report.package import export_text

    with interrupted(lambda: "interrupted; what was exported before is as it was, run the same command again"):
        found = commands.export(run, formats, Path(output) if output else None, calibration, int8_remedies)
    show(found.record, as_json, lambda: export_text(found.record, found.folder))


def package(
    run: TrainedRun,
    output: Annotated[str, option("The archive to write, FILE.tar.gz.", "-o", "--output")],
    as_json: Json = False,
) -> None:
    """Put models, manifest, model card, golden images and a runner into one reproducible archive.

    Example: edgenas package digits -o digits.tar.gz
    """
    from edgenas.package import commands
    from edgenas.report.package import package_text

    manifest = commands.package(run, Path(output))
    show(manifest, as_json, lambda: package_text(manifest, Path(output)))


def verify(file: PackageFile, as_json: Json = False) -> None:
    """Check a package: its structure, every hash, and what its models make of the golden images.

    Example: edgenas verify digits.tar.gz
    """
    from edgenas.package.verify import verify as check
    from edgenas.report.package import verify_text

    found = check(Path(file))
    show(found, as_json, lambda: verify_text(found))


def deploy(
    file: PackageFile,
    board: OnBoard,
    latency: Annotated[
        str | None,
        option("Say whether it keeps this limit, like 5ms.", default="the one that it was searched for"),
    ] = None,
    form: Annotated[
        str | None, option("onnx, tflite, tflite-f16 or tflite-int8.", "--format", default="the device's")
    ] = None,
    images: Annotated[str, option("Test images to count right answers on, at most; or: all.")] = "1000",
    dataset: Annotated[str | None, option("Folder of those images, where it was trained on a folder.")] = None,
    output: Annotated[
        str | None, option("The report, less .json and .md.", "-o", "--output", default="FILE-BOARD")
    ] = None,
    runtime: Runtime = "",
    as_json: Json = False,
) -> None:
    """Bring a package to a board, check it there, and measure its accuracy and latency there.

    Example: edgenas deploy digits.tar.gz --board here
    """
    from edgenas.errors import UsageError
    from edgenas.package.deploy import deploy as bring
    from edgenas.report.package import deployed_text
    from edgenas.units import parse

    path = Path(file)
    if images != "all" and not re.fullmatch(r"0*[1-9][0-9]{0,8}", images, re.A):
        raise UsageError(f"--images {images:.24} counts nothing; give a number of 1 or more, or: --images all")
    count = None if images == "all" else int(images)
    limit_ms = parse(latency, "latency") if latency else None
    base = Path(output) if output else Path(f"{path.name.removesuffix('.tar.gz')}-{board}")
    found = bring(path, board, limit_ms, form, count, dataset, base, runtime)
    files = ", ".join(map(str, found.files))
    show(found.report, as_json, lambda: f"{deployed_text(found.report)}\nreport: {files}", found.problem)

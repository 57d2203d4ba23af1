"""`edgenas tabulate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgenas.errors import InterruptedRunError, UsageError
from edgenas.fitness import FitnessSettings


def tabulate(
    dataset: Annotated[str, typer.Option(help="cifar10, cifar100, imagenet16-120, digits, or a folder.")] = "cifar10",
    space: Annotated[str, typer.Option(help="Search space.")] = "nasbench201",
    seeds: Annotated[int, typer.Option(help="Scores are means over so many.")] = 2,
    epochs: Annotated[
        str, typer.Option(help="Training steps on the one batch; several, ascending, are all told.")
    ] = str(FitnessSettings.epochs),
    cells: Annotated[int, typer.Option(help="Cells a stage of the scored network (N).")] = FitnessSettings.cells,
    channels: Annotated[int, typer.Option(help="Channels of its first stage (C).")] = FitnessSettings.channels,
    batch_size: Annotated[int, typer.Option(help="Images in the batch.")] = FitnessSettings.batch_size,
    reference: Annotated[str, typer.Option(help="resnet20, resnet56, or weights.")] = "resnet20",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    engine: Annotated[str, typer.Option(help="local, ray, ray:HOST:PORT or ray://HOST:PORT.")] = "local",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The table's .json.  [where searches find it]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score every class of a space, so that searches look scores up. Hours on a CPU; stopped, it goes on.

    Example: edgenas tabulate --dataset digits --seeds 1 --epochs 1,2 --cells 1 --channels 4 --batch-size 8
    """
    from edgenas.cli.progress import follow
    from edgenas.fitness.tabulate import tabulate as prepare

    try:
        steps = [int(each) for each in epochs.split(",")]
    except ValueError:
        raise UsageError(f"--epochs {epochs} is no list of steps; give one like --epochs 10,25,50") from None
    settings = FitnessSettings(
        epochs=steps[-1],
        readings=tuple(steps[:-1]),
        cells=cells,
        channels=channels,
        batch_size=batch_size,
        reference=reference,
        precision=precision,
        engine=engine,
    )
    job = prepare(space, dataset, settings, seeds, output)
    try:
        follow(job)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted at {job.state}; nothing is lost, run the same command to go on"
        ) from None
    description = json.loads(job.path.read_bytes())
    if as_json:
        print(json.dumps({**description, "path": str(job.path)}))
    else:
        failed = description["made"]["failed"]
        print(f"{job.path}: {description['source']}, {len(job.classes)} classes, {failed} trainings failed")

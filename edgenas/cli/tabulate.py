"""`edgenas tabulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from edgenas import spaces
from edgenas.architecture import SearchRequest
from edgenas.cli import options
from edgenas.cli.options import Json, option
from edgenas.cli.results import interrupted, show
from edgenas.fitness import FitnessSettings


def tabulate(
    dataset: Annotated[str, options.dataset()] = SearchRequest.dataset,
    space: Annotated[str, options.space()] = spaces.DEFAULT,
    seeds: Annotated[int, option("A score is the mean over this many.")] = 2,
    epochs: Annotated[str, option("Training steps on the one batch; several, ascending, are all in the table.")] = str(
        FitnessSettings.epochs
    ),
    size: Annotated[str | None, options.size()] = None,
    cells: Annotated[int | None, options.cells()] = None,
    channels: Annotated[int | None, options.channels()] = None,
    batch_size: Annotated[int, options.batch_size()] = FitnessSettings.batch_size,
    reference: Annotated[str, options.reference()] = FitnessSettings.reference,
    taps: Annotated[str | None, options.taps()] = None,
    precision: Annotated[str, options.precision()] = FitnessSettings.precision,
    engine: Annotated[str, options.engine()] = FitnessSettings.engine,
    output: Annotated[
        Path | None, option("The table's .json.", "-o", "--output", default="where searches find it")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score every unique architecture of a space, so that searches look scores up. Hours on a CPU; stopped, it goes on.

    Example: edgenas tabulate --dataset digits --seeds 1 --epochs 1,2 --size cells=1,channels=4 --batch-size 8
    """
    from edgenas.cli.progress import follow
    from edgenas.files import read_file
    from edgenas.fitness.tabulate import tabulate as prepare
    from edgenas.text import MAX_JSON_BYTES, parse_json

    steps = options.numbers("--epochs", epochs, int, "steps", "10,25,50")
    settings = FitnessSettings(
        epochs=steps[-1],
        eval_steps=tuple(steps[:-1]),
        size=options.parse_size(size, cells=cells, channels=channels),
        batch_size=batch_size,
        reference=reference,
        taps=options.parse_taps(taps),
        precision=precision,
        engine=engine,
    )
    job = prepare(space, dataset, settings, seeds, output)
    with interrupted(lambda: f"interrupted at {job.state}; nothing is lost, run the same command to go on"):
        follow(job)
    description = parse_json(read_file(job.path, MAX_JSON_BYTES))
    made = f"{len(job.archs)} architectures, {description['made']['failed']} trainings failed"
    show({**description, "path": str(job.path)}, as_json, lambda: f"{job.path}: {description['source']}, {made}")

"""`edgenas train`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from edgenas.errors import InterruptedRunError

_WHAT = "What is trained"
_HOW = "How it is trained"


def train(
    run: Annotated[str | None, typer.Argument(help="A run's name under ./runs, or its folder.")] = None,
    arch: Annotated[
        str | None,
        typer.Option(help="Instead of a run: an architecture as its space writes it.", rich_help_panel=_WHAT),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="cifar10, cifar100, imagenet16-120, digits, or a folder of images.  [the run's]", rich_help_panel=_WHAT
        ),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="The space of --arch.  [nasbench201]", rich_help_panel=_WHAT)
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--run", "-o", help="Name or folder for what is trained.  [runs/trained-DATASET]", rich_help_panel=_WHAT
        ),
    ] = None,
    distill: Annotated[
        bool, typer.Option("--distill", help="Learn from the reference network too.", rich_help_panel=_HOW)
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(help="Times each image is seen.  [by the data set]", rich_help_panel=_HOW)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.  [64]", rich_help_panel=_HOW)] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="At the start; a cosine brings it to 0.  [0.1]", rich_help_panel=_HOW)
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="[0.0005]", rich_help_panel=_HOW)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same weights on a CPU.  [0]", rich_help_panel=_HOW)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Hold a fifth of the training images out; stop after so many epochs without a gain on them.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Remove what was trained, and start over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Train a run's winner at full size.

    Example: edgenas train digits --epochs 2
    """
    # Here, not above: `edgenas --help` answers without loading torch.
    from edgenas.cli.progress import follow
    from edgenas.search.training import train as prepare

    job = prepare(
        run,
        arch=arch,
        dataset=dataset,
        space=space,
        folder=folder,
        distill=distill or None,
        resume=resume,
        restart=restart,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        patience=patience,
    )
    try:
        follow(job)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; go on from the last epoch with: edgenas train {job.folder.parent} --resume"
        ) from None
    from edgenas.text import printable

    result = job.result()
    untested = ", ".join(result.get("untested_classes", [])[:10])
    but = f" (none is of {untested})" if untested else ""
    if as_json:
        print(json.dumps(result))
    else:
        print(
            f"{result['arch_str']}\n{result['test_accuracy']:.2f} % of {result['test_images']} test images of"
            f" {printable(result['dataset'])} are right{but}, after {result['epochs']} epochs,"
            f" {result['seconds']:.0f} s;"
            f" weights in {job.folder / 'model.pt'}"
        )

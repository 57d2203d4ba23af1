"""`edgenas train`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgenas import spaces
from edgenas.cli import options
from edgenas.cli.options import Json, option
from edgenas.cli.results import interrupted, show
from edgenas.train.settings import FINE_TUNING, MAX_IMBALANCE, TrainSettings

_WHAT = "What is trained"
_HOW = "How it is trained"


def _default(name: str) -> str:
    """What `name` is for random and for inherited weights, in words."""
    return f"{getattr(TrainSettings, name):g}; {FINE_TUNING[name]:g} with inherited weights"


def train(
    run: Annotated[str | None, typer.Argument(help="A run's name under ./runs, or its folder.")] = None,
    arch: Annotated[
        str | None, option("Instead of a run: an architecture as its space writes it.", panel=_WHAT)
    ] = None,
    dataset: Annotated[str | None, options.dataset("the run's", _WHAT)] = None,
    space: Annotated[str | None, option("The space of --arch.", default=spaces.DEFAULT, panel=_WHAT)] = None,
    folder: Annotated[
        str | None,
        option("Name or folder for what is trained.", "--run", "-o", default="runs/trained-DATASET", panel=_WHAT),
    ] = None,
    distill: Annotated[bool, option("Learn from the reference network too.", "--distill", panel=_HOW)] = False,
    epochs: Annotated[
        int | None,
        option(
            "Times each image is seen.",
            default=f"by the data set; {FINE_TUNING['epochs']} with inherited weights",
            panel=_HOW,
        ),
    ] = None,
    init: Annotated[str | None, options.init(_HOW)] = None,
    batch_size: Annotated[int | None, option("Images in a step.", default=_default("batch_size"), panel=_HOW)] = None,
    learning_rate: Annotated[
        float | None,
        option("At the start; a cosine brings it to 0.", default=_default("learning_rate"), panel=_HOW),
    ] = None,
    weight_decay: Annotated[
        float | None, option("Pulls the weights towards 0.", default=_default("weight_decay"), panel=_HOW)
    ] = None,
    warmup_epochs: Annotated[
        int | None, option("Epochs in which the rate rises.", default=_default("warmup_epochs"), panel=_HOW)
    ] = None,
    classifier_rate: Annotated[
        float | None,
        option(
            "The classifier's learning rate, in those of the other weights.",
            default=_default("classifier_rate"),
            panel=_HOW,
        ),
    ] = None,
    min_crop: Annotated[
        float | None,
        option(
            "Below 1: train on random crops of at least this share of an image's area; at 1, images are shifted a bit.",
            default=_default("min_crop"),
            panel=_HOW,
        ),
    ] = None,
    no_flip: Annotated[
        bool, option("Show no mirror images: for text, or left and right.", "--no-flip", panel=_HOW)
    ] = False,
    colour: Annotated[
        float | None,
        option(
            "Brightness, contrast and saturation of an image change by up to this share, like 0.2.",
            default=TrainSettings.colour,
            panel=_HOW,
        ),
    ] = None,
    balance: Annotated[
        str | None,
        option(
            "How rare classes count as much as frequent ones: none (they do not), weights (of the loss) or sampling"
            " (their images are seen more often).",
            default=f"weights where the largest has more than {MAX_IMBALANCE:g} times the images of the smallest",
            panel=_HOW,
        ),
    ] = None,
    seed: Annotated[int | None, options.seed("weights on a CPU", _HOW)] = None,
    patience: Annotated[
        int | None,
        option(
            "Hold a fifth of the training images out; stop after this many epochs without a gain on them.", panel=_HOW
        ),
    ] = None,
    resume: Annotated[bool, option("Go on from the last checkpoint.", "--resume")] = False,
    restart: Annotated[bool, option("Remove what was trained, and start over.", "--restart")] = False,
    as_json: Json = False,
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
        init=init,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_epochs=warmup_epochs,
        classifier_rate=classifier_rate,
        min_crop=min_crop,
        flip=False if no_flip else None,
        colour=colour,
        balance=balance,
        seed=seed,
        patience=patience,
    )
    with interrupted(
        lambda: f"interrupted; go on from the last epoch with: edgenas train {job.folder.parent} --resume"
    ):
        follow(job)
    from edgenas.report.runs import trained_text

    result = job.result()
    show(result, as_json, lambda: trained_text(result, job.folder))

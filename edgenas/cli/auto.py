"""`edgenas auto`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgenas.cli import options
from edgenas.cli.options import option
from edgenas.cli.results import interrupted, show
from edgenas.units import parse, parse_limit, parse_seconds

_LIMITS = "Limits (give at least one, with its unit)"
_WHAT = "What it is for"
_RUN = "Run and output"


def auto(
    context: typer.Context,
    photos: Annotated[
        str | None, typer.Argument(help="A folder with one sub-folder of photos a class, or a list of photos.")
    ] = None,
    device: Annotated[str | None, option("A device's name, or the path of your own profile.", panel=_WHAT)] = None,
    latency: Annotated[str | None, options.limit("latency", _LIMITS)] = None,
    energy: Annotated[str | None, options.limit("energy", _LIMITS)] = None,
    macs: Annotated[str | None, options.limit("macs", _LIMITS)] = None,
    params: Annotated[str | None, options.limit("params", _LIMITS)] = None,
    board: Annotated[
        str | None, option("The board that measures.", default="the device's, where you have one", panel=_WHAT)
    ] = None,
    form: Annotated[
        str | None,
        option("Of the file that is deployed, like tflite-int8.", "--format", default="the device's", panel=_WHAT),
    ] = None,
    space: Annotated[str | None, option("Search space.", default="efficientnet-lite0", panel=_WHAT)] = None,
    time: Annotated[str | None, option("What all of it may take, like 30min.", default="60min", panel=_WHAT)] = None,
    baseline: Annotated[
        bool | None,
        option(
            "Also train the stock network as long, and take the better of the two.",
            "--baseline/--no-baseline",
            default="from 20min on",
            panel=_WHAT,
        ),
    ] = None,
    distill: Annotated[
        bool,
        option(
            "Train a teacher, the space's largest network, first: the others learn from it too.",
            "--distill",
            panel=_WHAT,
        ),
    ] = False,
    no_flip: Annotated[
        bool, option("Train on no mirror images: for text, or left and right.", "--no-flip", panel=_WHAT)
    ] = False,
    seed: Annotated[int | None, options.seed("plan and photos", _WHAT)] = None,
    output: Annotated[
        str | None,
        option("The archive to write, FILE.tar.gz.", "-o", "--output", default="auto-PHOTOS.tar.gz", panel=_RUN),
    ] = None,
    run: Annotated[str | None, option("Name or folder of the new job.", default="runs/auto-PHOTOS", panel=_RUN)] = None,
    resume: Annotated[str | None, option("Go on with this job; it has every setting.", panel=_RUN)] = None,
    dry_run: Annotated[bool, option("Show the plan, and do nothing.", "--dry-run", panel=_RUN)] = False,
    as_json: Annotated[bool, options.json_output(_RUN)] = False,
) -> None:
    """From photos and a limit to a checked package: search, train, compare with the stock network, export, package.

    Example: edgenas auto photos --device host --macs 40M --time 1min --run whole -o whole.tar.gz
    """
    # Here, not above: `edgenas --help` answers without loading torch.
    from edgenas.auto.start import auto as prepare
    from edgenas.cli.progress import follow
    from edgenas.report.auto import answer_text, plan_text
    from edgenas.search.request import PRESETS

    asked: dict[str, Any] = {
        "photos": photos,
        "device": device,
        "latency_ms": latency and parse_limit(latency, "latency"),
        "energy_mj": energy and parse_limit(energy, "energy"),
        "macs_m": macs and parse(macs, "macs"),
        "params_m": params and parse(params, "params"),
        "board": board,
        "format": form,
        "space": space,
        "time_s": time and parse_seconds(time, "time"),
        "baseline": baseline,
        "distill": distill or None,
        "flip": False if no_flip else None,
        "seed": seed,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    job = prepare(run, output, resume, dry_run, context.obj or PRESETS, **asked)
    plan = job.plan()
    if dry_run:
        show(plan, as_json, lambda: plan_text(plan))
        return
    typer.echo(plan_text(plan), err=True)
    with interrupted(lambda: f"interrupted; nothing is lost, go on with: edgenas auto --resume {job.path}"):
        follow(job)
    result = job.result()
    show(result, as_json, lambda: answer_text(result), job.problem())

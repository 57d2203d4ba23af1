"""`edgenas search`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from edgenas.errors import InterruptedRunError
from edgenas.units import parse, parse_share

_LIMITS = "Limits (give at least one, with its unit, or --pareto)"
_WHAT = "What is searched"
_HOW = "How it is searched"
_RUN = "Run and output"


def search(
    device: Annotated[
        str | None, typer.Option(help="A device's name, or the path of your own profile.", rich_help_panel=_WHAT)
    ] = None,
    latency: Annotated[str | None, typer.Option(help="At most this long, like 5ms.", rich_help_panel=_LIMITS)] = None,
    energy: Annotated[str | None, typer.Option(help="At most this much, like 12mJ.", rich_help_panel=_LIMITS)] = None,
    macs: Annotated[
        str | None, typer.Option(help="At most so many multiply-accumulates, like 60M.", rich_help_panel=_LIMITS)
    ] = None,
    params: Annotated[
        str | None, typer.Option(help="At most so many parameters, like 0.5M.", rich_help_panel=_LIMITS)
    ] = None,
    pareto: Annotated[
        str | None,
        typer.Option(
            help="Instead of one winner the front of score against latency, energy, macs or params; answers any limit"
            " by `edgenas runs pick`.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    space: Annotated[str | None, typer.Option(help="Search space.  [nasbench201]", rich_help_panel=_WHAT)] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="cifar10, cifar100, imagenet16-120, digits, or a folder of images.  [cifar10]", rich_help_panel=_WHAT
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Reference network: resnet20, resnet56, or weights.  [resnet20]", rich_help_panel=_WHAT),
    ] = None,
    fitness: Annotated[
        str | None,
        typer.Option(
            help="table: scores measured earlier; live: train each candidate; loss, naswot, synflow, macs, params:"
            " zero-cost proxies; several joined by +, with weights, like '2*table+macs': the mean of their ranks."
            "  [2*table+macs where a table fits, else 2*live+macs; phi alone by --preset paper]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    cost: Annotated[
        str | None,
        typer.Option(
            help="table: HW-NAS-Bench, its noise averaged out; table-raw: as it stands there; predictor: the profile's"
            " own; live: measured on your boards; hybrid: predicted, and the best measured; analytic: counted."
            "  [table where it covers the device]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            help="Keep the limits with this probability, like 95%, by what is known of the errors of predicted costs."
            "  [the predicted cost itself]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    board: Annotated[
        str | None,
        typer.Option(
            help="With --cost live or hybrid: these boards, comma-separated.  [all of the device]", rich_help_panel=_HOW
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="default, or paper: the paper's settings.  [default]", rich_help_panel=_HOW)
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="penalty (Eq. 5), or rejection of what misses a limit.  [penalty]", rich_help_panel=_HOW),
    ] = None,
    generations: Annotated[
        int | None, typer.Option(help="Generations.  [100; 40 with --pareto]", rich_help_panel=_HOW)
    ] = None,
    population: Annotated[
        int | None, typer.Option(help="Cells in a generation.  [20; 100 with --pareto, 40 live]", rich_help_panel=_HOW)
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            help="End when so many classes are scored."
            "  [80; with --pareto 150 where scores or costs are live, else no end]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    pool: Annotated[
        int | None,
        typer.Option(
            help="Breed so many cells a generation, and judge those that look best to a surrogate, fitted to what was"
            " judged so far. 0: judge all that is bred.  [500 live; else 200, with --pareto 0]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Training steps on the one batch.  [10, which suits mixtures; phi alone ranks better after 50]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the similarity in Eq. 3.  [0.8]", rich_help_panel=_HOW)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in the batch.  [32]", rich_help_panel=_HOW)] = None,
    cells: Annotated[
        int | None, typer.Option(help="Cells a stage of the scored network (N).  [5]", rich_help_panel=_HOW)
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Channels of its first stage (C).  [8]", rich_help_panel=_HOW)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of feature maps in live scores: float32, bfloat16, or auto: the latter where it is fast.  [auto]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    halving: Annotated[
        bool | None,
        typer.Option(
            "--halving", help="Stop live trainings that look hopeless after 1/4 and 1/2.", rich_help_panel=_HOW
        ),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Live scores are means over so many batches and initial weights.  [1]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    refine: Annotated[
        int | None,
        typer.Option(
            help="Then train so many of the best classes briefly on real images, the better half ever longer, and take"
            " the winner of these; with --pareto, so many points of the front. 0: none.  [8 after live scores]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Where live candidates are trained: local, ray, ray:HOST:PORT or ray://HOST:PORT.  [local]",
            rich_help_panel=_HOW,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same search.  [0]", rich_help_panel=_HOW)] = None,
    run: Annotated[
        str | None, typer.Option(help="Name or folder of the new run.  [runs/DEVICE-LIMITS]", rich_help_panel=_RUN)
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with this run; it has every setting.", rich_help_panel=_RUN)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Find the best network within the limits.

    Example: edgenas search --device raspi4 --latency 5ms
    """
    limits = {
        "latency_ms": latency and parse(latency, "latency"),
        "energy_mj": energy and parse(energy, "energy"),
        "macs_m": macs and parse(macs, "macs"),
        "params_m": params and parse(params, "params"),
    }
    asked: dict[str, Any] = {
        **limits,
        "pareto": pareto,
        "device": device,
        "space": space,
        "dataset": dataset,
        "reference": reference,
        "fitness": fitness,
        "cost": cost,
        "confidence": confidence and parse_share(confidence, "confidence"),
        "board": board,
        "preset": preset,
        "method": method,
        "generations": generations,
        "population": population,
        "budget": budget,
        "pool": pool,
        "epochs": epochs,
        "beta": beta,
        "batch_size": batch_size,
        "cells": cells,
        "channels": channels,
        "precision": precision,
        "halving": halving,
        "draws": draws,
        "refine": refine,
        "engine": engine,
        "seed": seed,
    }
    # Here, not above: `edgenas --help` answers without loading what only a search needs.
    from edgenas.cli.progress import follow
    from edgenas.report.text import result_text
    from edgenas.search import search as prepare

    job = prepare(run=run, resume=resume, **{name: value for name, value in asked.items() if value is not None})
    try:
        follow(job)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; nothing is lost, go on with: edgenas search --resume {job.run.path}"
        ) from None
    result = job.result()
    if as_json:
        print(json.dumps(result))
    elif result["feasible"]:
        print(result_text(result, job.run.header))
    problem = job.problem()
    if problem is not None:
        raise problem

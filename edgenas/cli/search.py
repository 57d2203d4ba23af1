"""`edgenas search`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgenas.architecture import SearchRequest
from edgenas.cli import options
from edgenas.cli.options import option
from edgenas.cli.results import interrupted, show
from edgenas.fitness import FitnessSettings
from edgenas.units import parse, parse_limit, parse_seconds, parse_share

_LIMITS = "Limits (give at least one, with its unit, or --pareto)"
_WHAT = "What is searched"
_HOW = "How it is searched"
_RUN = "Run and output"


def search(
    context: typer.Context,
    device: Annotated[
        str | None,
        option(
            "A device's name, or the path of your own profile; of several, with commas, one network keeps all limits.",
            panel=_WHAT,
        ),
    ] = None,
    latency: Annotated[str | None, options.limit("latency", _LIMITS)] = None,
    energy: Annotated[str | None, options.limit("energy", _LIMITS)] = None,
    macs: Annotated[str | None, options.limit("macs", _LIMITS)] = None,
    params: Annotated[str | None, options.limit("params", _LIMITS)] = None,
    pareto: Annotated[
        str | None,
        option(
            "Instead of one winner, the front of score against latency, energy, macs or params. `edgenas runs pick`"
            " answers any limit from it.",
            panel=_WHAT,
        ),
    ] = None,
    space: Annotated[str | None, options.space(_WHAT)] = None,
    dataset: Annotated[str | None, options.dataset(panel=_WHAT)] = None,
    reference: Annotated[str | None, options.reference(_WHAT)] = None,
    taps: Annotated[str | None, options.taps(_WHAT)] = None,
    fitness: Annotated[
        str | None,
        option(
            "table: scores measured earlier; live: train each candidate; loss, naswot, synflow, macs, params:"
            " zero-cost proxies; several joined by +, with weights, like '2*table+macs': the mean of their ranks.",
            default="2*table+macs where a table fits, else 2*live+macs; phi alone by --preset paper and with inherited"
            " weights",
            panel=_HOW,
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        option(
            "An architecture, as its space writes it, that is a candidate in any case; may be given several times. The"
            " best within the limits is measured and refined with the others.",
            panel=_WHAT,
        ),
    ] = None,
    cost: Annotated[
        str | None,
        option(
            "table: HW-NAS-Bench, its noise averaged out; table-raw: as it stands there; predictor: the profile's"
            " own; live: measured on your boards; hybrid: predicted, and the best measured; analytic: counted.",
            default="table where it covers the device",
            panel=_HOW,
        ),
    ] = None,
    confidence: Annotated[
        str | None,
        option(
            "Keep the limits with this probability, like 95%, by the known errors of predicted costs.",
            default="the predicted cost itself",
            panel=_HOW,
        ),
    ] = None,
    board: Annotated[
        str | None,
        option("With --cost live or hybrid: these boards, comma-separated.", default="all of the device", panel=_HOW),
    ] = None,
    form: Annotated[
        str | None,
        option(
            "Of the file that is deployed, like tflite-int8: what boards time, and what the refined are compared by.",
            "--format",
            default="the device's",
            panel=_HOW,
        ),
    ] = None,
    preset: Annotated[
        str | None, option("default, or paper: the paper's settings.", default=SearchRequest.preset, panel=_HOW)
    ] = None,
    method: Annotated[
        str | None,
        option("penalty (Eq. 5), or rejection of what misses a limit.", default=SearchRequest.method, panel=_HOW),
    ] = None,
    generations: Annotated[int | None, option("Generations.", default="100; 40 with --pareto", panel=_HOW)] = None,
    population: Annotated[
        int | None, option("Architectures in a generation.", default="20; 100 with --pareto, 40 live", panel=_HOW)
    ] = None,
    budget: Annotated[
        int | None,
        option(
            "End when this many unique architectures are scored.",
            default="80, or 400 where none is trained; with --pareto 150 where scores or costs are live, else no end",
            panel=_HOW,
        ),
    ] = None,
    time: Annotated[
        str | None,
        option(
            "What all of it may take, like 30min: then it ends as if its budget were spent. Half is for refining.",
            panel=_HOW,
        ),
    ] = None,
    pool: Annotated[
        int | None,
        option(
            "Candidates proposed for a generation. Those that a surrogate, fitted to earlier evaluations, predicts"
            " to be the best are evaluated. 0: no surrogate.",
            default="500 live; else 200, with --pareto 0",
            panel=_HOW,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        option(
            "Training steps on the one batch.",
            default=f"{FitnessSettings.epochs}, which suits mixtures; phi alone ranks better after 50; none with"
            " inherited weights",
            panel=_HOW,
        ),
    ] = None,
    init: Annotated[str | None, options.init(_HOW)] = None,
    beta: Annotated[
        float | None, option("Weight of the similarity in Eq. 3.", default=FitnessSettings.beta, panel=_HOW)
    ] = None,
    batch_size: Annotated[int | None, options.batch_size(_HOW)] = None,
    size: Annotated[str | None, options.size(_HOW)] = None,
    cells: Annotated[int | None, options.cells(_HOW)] = None,
    channels: Annotated[int | None, options.channels(_HOW)] = None,
    precision: Annotated[str | None, options.precision(_HOW)] = None,
    halving: Annotated[
        bool | None,
        option(
            "Stop the worse half of live trainings after 1/4, and again after 1/2, of the steps.",
            "--halving",
            panel=_HOW,
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        option(
            "A live score is the mean over this many batches and initial weights.",
            default=FitnessSettings.repeats,
            panel=_HOW,
        ),
    ] = None,
    draws: Annotated[int | None, options.former("--draws")] = None,
    refine: Annotated[
        int | None,
        option(
            "Then train this many of the best architectures briefly on real images, the better half ever longer; the"
            " winner is one of these. With --pareto, this many points of the front. 0: none.",
            default="8 after live scores",
            panel=_HOW,
        ),
    ] = None,
    no_flip: Annotated[
        bool, option("Show these no mirror images: for text, or left and right.", "--no-flip", panel=_HOW)
    ] = False,
    engine: Annotated[str | None, options.engine(_HOW)] = None,
    seed: Annotated[int | None, options.seed("search", _HOW)] = None,
    run: Annotated[
        str | None, option("Name or folder of the new run.", default="runs/DEVICE-LIMITS", panel=_RUN)
    ] = None,
    resume: Annotated[str | None, option("Go on with this run; it has every setting.", panel=_RUN)] = None,
    as_json: Annotated[bool, options.json_output(_RUN)] = False,
) -> None:
    """Find the best network within the limits.

    Example: edgenas search --device raspi4 --latency 5ms
    """
    limits = {
        "latency_ms": latency and parse_limit(latency, "latency"),
        "energy_mj": energy and parse_limit(energy, "energy"),
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
        "taps": options.parse_taps(taps) or None,
        "include": tuple(include or ()) or None,
        "fitness": fitness,
        "cost": cost,
        "confidence": confidence and parse_share(confidence, "confidence"),
        "board": board,
        "format": form,
        "preset": preset,
        "method": method,
        "generations": generations,
        "population": population,
        "budget": budget,
        "time_s": time and parse_seconds(time, "time"),
        "pool": pool,
        "epochs": epochs,
        "init": init,
        "beta": beta,
        "batch_size": batch_size,
        "size": options.parse_size(size, cells=cells, channels=channels) or None,
        "precision": precision,
        "halving": halving,
        "repeats": draws if repeats is None else repeats,
        "refine": refine,
        "flip": False if no_flip else None,
        "engine": engine,
        "seed": seed,
    }
    # Here, not above: `edgenas --help` answers without loading what only a search needs.
    from edgenas.cli.progress import follow
    from edgenas.report.text import result_text
    from edgenas.search import search as prepare
    from edgenas.search.request import PRESETS

    given = {name: value for name, value in asked.items() if value is not None}
    job = prepare(run, resume, context.obj or PRESETS, **given)
    with interrupted(lambda: f"interrupted; nothing is lost, go on with: edgenas search --resume {job.run.path}"):
        follow(job)
    result = job.result()
    text = (lambda: result_text(result, job.run.header)) if result["feasible"] else None
    show(result, as_json, text, job.problem())

"""`edgenas board` and `edgenas measure`."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgenas import spaces
from edgenas.cli import options
from edgenas.cli.options import BoardName, Json, OnBoard, Runtime, option
from edgenas.cli.results import interrupted, show
from edgenas.errors import UsageError
from edgenas.text import printable
from edgenas.units import parse

app = typer.Typer(no_args_is_help=True, help="Keep, check and use your boards. Example: edgenas board list")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What you call it.")],
    device: Annotated[str, option("What it is: a device's name, or the path of your own profile.")],
    ssh: Annotated[
        str | None,
        option("Reached by SSH: [USER@]HOST[:PORT], [USER@][V6]:PORT, or a name of ~/.ssh/config."),
    ] = None,
    adb: Annotated[str | None, option("Reached by adb: its serial, as `adb devices` lists it.")] = None,
    local: Annotated[bool, option("It is this computer.", "--local")] = False,
    transport: Annotated[
        str | None, option("Reached by this plug-in; null: a board that makes its latencies up and runs nothing.")
    ] = None,
    options: Annotated[
        list[str] | None,
        option("An option of that plug-in; may be given several times.", "--option", metavar="NAME=VALUE"),
    ] = None,
    key: Annotated[Path | None, option("The private key to log in with.", default="as ssh does")] = None,
    jump: Annotated[
        str | None, option("Through this host, or several with commas between: [USER@]HOST[:PORT].")
    ] = None,
    python: Annotated[str, option("Python 3.6 or newer there.")] = "python3",
    threads: Annotated[int, option("Threads a model may use there.")] = 1,
    cores: Annotated[str, option("Cores it may use, like 4-7.", default="as the device's profile says")] = "",
    benchmark_model: Annotated[
        Path | None, option("TFLite's benchmark_model, brought to a phone.", default="the one that is there")
    ] = None,
    runtime: Annotated[
        str, option("What executes models there, like onnxruntime.", default="as the device's profile says")
    ] = "",
) -> None:
    """Add a board: --ssh, --adb, --local or --transport.

    Example: edgenas board add here --device host --local
    """
    from edgenas.board import commands

    commands.add(
        name,
        device,
        ssh=ssh,
        adb=adb,
        local=local,
        transport=transport,
        options=_options(options or []),
        key=key,
        jump=jump,
        python=python,
        threads=threads,
        cores=cores,
        benchmark_model=benchmark_model,
        runtime=runtime,
    )
    print(f"{name} is a board of {device}; look at it by: edgenas board check {name}")


@app.command("list")
def list_boards(as_json: Json = False) -> None:
    """List your boards.

    Example: edgenas board list
    """
    from dataclasses import asdict

    from edgenas.board import registry
    from edgenas.report.boards import boards_text

    found = [asdict(each) for each in registry.boards().values()]
    print(json.dumps(found) if as_json else boards_text(found))


@app.command()
def check(name: BoardName, as_json: Json = False) -> None:
    """Say what would spoil a timing on a board, and how to cure it.

    Example: edgenas board check here
    """
    from edgenas.board import commands
    from edgenas.report.boards import check_text

    report = commands.check(name)
    show(report, as_json, lambda: check_text(report))


@app.command()
def remove(name: BoardName) -> None:
    """Forget a board; what was measured on it is kept.

    Example: edgenas board remove here
    """
    from edgenas.board import registry

    registry.remove(name)
    print(f"{name} is forgotten")


@app.command()
def bench(name: BoardName, as_json: Json = False) -> None:
    """Time a small fixed network on a board, and how fast the board answers.

    Example: edgenas board bench here
    """
    from edgenas.board import commands
    from edgenas.report.boards import bench_text

    found = commands.bench(name)
    show(found.report, as_json, None if found.problem else lambda: bench_text(found.report), found.problem)


@app.command()
def profile(
    name: BoardName,
    samples: Annotated[int, option("Architectures to measure.")] = 30,
    seed: Annotated[int, options.seed("first architectures")] = 0,
    output: Annotated[Path | None, option("The device's file.", "-o", "--output", default="NAME.toml")] = None,
    runtime: Runtime = "",
    space: Annotated[str, options.space()] = spaces.DEFAULT,
    blocks: Annotated[
        bool,
        option("Measure the blocks that networks consist of as well, one by one; some hundred.", "--blocks"),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a device of a board: measure some architectures on it and fit a predictor.

    Run it again after an interruption, and what was measured is not measured again.

    Example: edgenas board profile here --samples 30
    """
    from edgenas.cli.progress import follow
    from edgenas.cost.profiling import profile_board
    from edgenas.report.text import device_fact, device_text

    job = profile_board(name, samples, seed, output, runtime, space, blocks)
    with interrupted(lambda: f"interrupted, {job.state}; nothing measured is lost, run the same command to go on"):
        follow(job)
    assert job.device is not None
    fact = {**device_fact(job.device), "samples": job.ran, "failed": len(job.found) - job.ran}
    within = f" --space {space}" if space != spaces.DEFAULT else ""
    then = f"search for it by: edgenas search --device {job.path}{within} --latency 5ms"
    show(fact, as_json, lambda: f"{device_text(fact)}\n\n{then}")


def measure(
    model: Annotated[Path, typer.Argument(help="An .onnx or .tflite file.")],
    board: OnBoard,
    latency: Annotated[str | None, option("Say whether it keeps this limit, like 5ms.")] = None,
    tier: Annotated[
        str,
        option("final: a minute at most, of processes of their own; screen: a few seconds at most."),
    ] = "final",
    input_shape: Annotated[
        list[str] | None,
        option(
            "The shape of an input whose sides the file leaves open; may be given several times.",
            default="batch 1",
            metavar="NAME=1,3,224,224",
        ),
    ] = None,
    runtime: Runtime = "",
    as_json: Json = False,
) -> None:
    """Time a model file on a board, with made-up input of the model's own types and shapes.

    With --latency, until it is known whether the limit is kept: PASS, FAIL (exit code 3), or UNSTABLE (5) where the
    time is used up and it still may be either, or the board disturbed the timing. Without, until the median is known
    well; a wide interval is a warning.

    Example: edgenas measure model.onnx --board here --latency 5ms --tier screen
    """
    from edgenas.board import commands
    from edgenas.report.boards import measured_text

    limit_ms, shapes = parse(latency, "latency") if latency else None, _shapes(input_shape or [])
    with interrupted(lambda: f"interrupted; {model} was not timed to the end, run the command again"):
        found = commands.measure(model, board, limit_ms, tier, shapes, runtime)
    show(found.report, as_json, lambda: measured_text(found.report), found.problem)


def _options(asked: Sequence[str]) -> dict[str, Any]:
    """Options of a transport by their names: numbers, true and false as such, all else as texts."""
    found: dict[str, Any] = {}
    for each in asked:
        name, equals, text = each.partition("=")
        if not (equals and name.isidentifier()) or name in found:
            raise UsageError(f"--option {printable(each, 80)} is no option; write it like NAME=VALUE, once for a name")
        found[name] = text
        with contextlib.suppress(ValueError):
            value = json.loads(text)
            found[name] = value if isinstance(value, bool | int | float) else text
    return found


def _shapes(asked: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by the names of inputs, "" where none is named; raises UsageError for what is no shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for each in asked:
        name, _, sides = each.rpartition("=")
        if not re.fullmatch(r"[1-9][0-9]{0,8}([,x][1-9][0-9]{0,8})*", sides) or name in shapes:
            raise UsageError(
                f"--input-shape {printable(each, 80)} is no shape; write it like NAME=1,3,224,224, once for an input"
            )
        shapes[name] = tuple(int(side) for side in re.split("[,x]", sides))
    return shapes

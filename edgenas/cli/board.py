"""`edgenas board` and `edgenas measure`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgenas.errors import (
    BoardError,
    ExportError,
    InfeasibleError,
    InterruptedRunError,
    UnstableError,
    UsageError,
)
from edgenas.text import printable
from edgenas.units import parse, show

app = typer.Typer(no_args_is_help=True, help="Keep, check and use your boards. Example: edgenas board list")

_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Name = Annotated[str, typer.Argument(help="The board's name.")]
_Runtime = Annotated[str, typer.Option(help="What executes models there.  [as the board's entry or device says]")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What you call it.")],
    device: Annotated[str, typer.Option(help="What it is: a device's name, or the path of your own profile.")],
    ssh: Annotated[
        str | None,
        typer.Option(help="Reached by SSH: [USER@]HOST[:PORT], [USER@][V6]:PORT, or a name of ~/.ssh/config."),
    ] = None,
    adb: Annotated[str | None, typer.Option(help="Reached by adb: its serial, as `adb devices` lists it.")] = None,
    local: Annotated[bool, typer.Option("--local", help="It is this computer.")] = False,
    key: Annotated[Path | None, typer.Option(help="The private key to log in with.  [as ssh does]")] = None,
    jump: Annotated[
        str | None, typer.Option(help="Through this host, or several with commas between: [USER@]HOST[:PORT].")
    ] = None,
    python: Annotated[str, typer.Option(help="Python 3.6 or newer there.")] = "python3",
    threads: Annotated[int, typer.Option(help="Threads a model may use there.")] = 1,
    cores: Annotated[str, typer.Option(help="Cores it may use, like 4-7.  [as the device's profile says]")] = "",
    benchmark_model: Annotated[
        Path | None, typer.Option(help="TFLite's benchmark_model, brought to a phone.  [the one that is there]")
    ] = None,
    runtime: Annotated[
        str, typer.Option(help="What executes models there, like onnxruntime.  [as the device's profile says]")
    ] = "",
) -> None:
    """Add a board: --ssh, --adb or --local.

    Example: edgenas board add here --device host --local
    """
    from dataclasses import replace

    from edgenas.board import registry

    if (ssh is not None) + (adb is not None) + local != 1:
        raise UsageError("say how the board is reached, by one of --ssh USER@HOST, --adb SERIAL and --local")
    if ssh is None and (key is not None or jump is not None):
        raise UsageError("--key and --jump belong to --ssh; leave them out")
    if benchmark_model is not None and (adb is None or not benchmark_model.is_file()):
        problem = "is no file" if adb is not None else "is for phones"
        raise UsageError(f"--benchmark-model {benchmark_model} {problem}; give the tool's path, beside --adb SERIAL")
    if local:
        entry = registry.local(name, device, threads)
    elif ssh is not None:
        from edgenas.board.ssh_address import read_address, read_addresses

        address = read_address(ssh, "--ssh")
        if jump is not None:
            read_addresses(jump, "--jump")
        options: dict[str, Any] = {"host": address.host, "user": address.user, "port": address.port}
        options |= {"key": str(key.expanduser().absolute()) if key else None, "jump": jump}
        set_options = {option: value for option, value in options.items() if value is not None}
        entry = registry.Board(name, device, "ssh", set_options, python, threads)
    else:
        entry = registry.Board(name, device, "adb", {"serial": adb}, python, threads)
    tool = str(benchmark_model.resolve()) if benchmark_model else ""
    registry.add(replace(entry, cores=cores, benchmark_model=tool, runtime=runtime))
    print(f"{name} is a board of {device}; look at it by: edgenas board check {name}")


@app.command("list")
def list_boards(as_json: _Json = False) -> None:
    """List your boards.

    Example: edgenas board list
    """
    from dataclasses import asdict

    from edgenas.board import registry
    from edgenas.report.boards import boards_text

    found = [asdict(each) for each in registry.boards().values()]
    print(json.dumps(found) if as_json else boards_text(found))


@app.command()
def check(name: _Name, as_json: _Json = False) -> None:
    """Say what would spoil a timing on a board, and how to cure it.

    Example: edgenas board check here
    """
    from dataclasses import asdict

    from edgenas import device as devices
    from edgenas.board import registry
    from edgenas.board.check import check as examine
    from edgenas.board.pool import connect
    from edgenas.report.boards import findings_text

    entry = registry.board(name)
    session = connect(entry)
    try:
        findings = examine(session, devices.load(entry.device), entry.runtime)
        if as_json:
            facts = dict(session.facts)
            print(json.dumps({"board": name, "facts": facts, "findings": [asdict(each) for each in findings]}))
        else:
            print(findings_text(name, session.facts, findings))
    finally:
        session.close()


@app.command()
def remove(name: _Name) -> None:
    """Forget a board; what was measured on it is kept.

    Example: edgenas board remove here
    """
    from edgenas.board import registry

    registry.remove(name)
    print(f"{name} is forgotten")


@app.command()
def bench(name: _Name, as_json: _Json = False) -> None:
    """Time a small fixed network on a board, and how fast the board answers.

    Example: edgenas board bench here
    """
    from edgenas import device as devices
    from edgenas.board import registry
    from edgenas.board.check import bench as time_reference
    from edgenas.board.measure import Bench
    from edgenas.board.pool import connect
    from edgenas.board.store import Store
    from edgenas.report.boards import measured_text

    entry = registry.board(name)
    session = connect(entry)
    try:
        device = devices.load(entry.device)
        how: dict[str, Any] = {"affinity": entry.affinity, "runtime": entry.runtime}
        fact = time_reference(Bench(session, device, name, entry.threads, Store(), **how))
    finally:
        session.close()
    if as_json:
        print(json.dumps(fact))
    elif "error" not in fact:
        print(f"{name} answers within {fact['round_trip_ms']:.2g} ms; the reference model:\n")
        print(measured_text(fact))
    if "error" in fact:
        raise BoardError(f"{fact['error']}; see: edgenas board check {name}")


@app.command()
def profile(
    name: _Name,
    samples: Annotated[int, typer.Option(help="Cells to measure.")] = 30,
    seed: Annotated[int, typer.Option(help="Same seed, same first cells.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The device's file.  [NAME.toml]")] = None,
    runtime: _Runtime = "",
    as_json: _Json = False,
) -> None:
    """Make a device of a board: measure some cells on it and fit a predictor.

    Example: edgenas board profile here --samples 30
    """
    from edgenas.cli.progress import follow
    from edgenas.cost.profiling import profile_board
    from edgenas.report.text import device_fact, device_text

    job = profile_board(name, samples, seed, output, runtime)
    try:
        follow(job)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted, {job.state}; nothing measured is lost, run the same command to go on"
        ) from None
    assert job.device is not None
    fact = {**device_fact(job.device), "samples": job.ran, "failed": len(job.found) - job.ran}
    if as_json:
        print(json.dumps(fact))
    else:
        print(device_text(fact))
        print(f"\nsearch for it by: edgenas search --device {job.path} --latency 5ms")


def measure(
    model: Annotated[Path, typer.Argument(help="An .onnx or .tflite file.")],
    board: Annotated[str, typer.Option(help="The board's name.")],
    latency: Annotated[str | None, typer.Option(help="Say whether it keeps this limit, like 5ms.")] = None,
    tier: Annotated[
        str,
        typer.Option(help="final: a minute at most, of processes of their own; screen: a few seconds at most."),
    ] = "final",
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=1,3,224,224",
            help="The shape of an input whose sides the file leaves open; may be given several times.  [batch 1]",
        ),
    ] = None,
    runtime: _Runtime = "",
    as_json: _Json = False,
) -> None:
    """Time a model file on a board, with made-up input of the model's own types and shapes.

    With --latency, until it is known whether the limit is kept: PASS, FAIL (exit code 3), or UNSTABLE (5) where the
    time is used up and it still may be either, or the board disturbed the timing. Without, until the median is known
    well; a wide interval is a warning.

    Example: edgenas measure model.onnx --board here --latency 5ms --tier screen
    """
    from edgenas import device as devices
    from edgenas.board.check import doubt, measured_fact, word
    from edgenas.board.measure import Failed, Tier
    from edgenas.board.model import read
    from edgenas.board.pool import Pool
    from edgenas.board.registry import board as board_called
    from edgenas.board.runtimes import for_device
    from edgenas.report.boards import measured_text

    if tier not in ("screen", "final"):
        raise UsageError(f"no tier '{tier}'; --tier is screen or final")
    limit_ms = parse(latency, "latency") if latency else None
    entry = board_called(board, runtime)
    device = devices.load(entry.device)
    content = for_device(read(model, _shapes(input_shape or [])), device, entry.runtime)
    assert device.measurement is not None  # else it would be no board
    try:
        with Pool([entry], device) as pool:
            outcome = pool.one(content, (Tier.final if tier == "final" else Tier.screen)(device.measurement, limit_ms))
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted; {model} was not timed to the end, run the command again") from None
    if isinstance(outcome, Failed):
        raise ExportError(f"{printable(model)} was not timed: {outcome.error}")
    summary = outcome.summary
    verdict = word(outcome, limit_ms)
    fact = {"model": str(model), "board": board, "verdict": verdict, "limit_ms": limit_ms, **measured_fact(outcome)}
    fact |= content.facts()
    print(json.dumps(fact) if as_json else measured_text(fact))
    if verdict == "UNSTABLE":
        raise UnstableError(
            f"the measurement does not settle ({doubt(outcome, limit_ms)}); cure what `edgenas board check {board}`"
            " names"
        )
    if verdict == "FAIL":
        assert limit_ms is not None
        raise InfeasibleError(
            f"{printable(model)} takes up to {show(summary.high_ms, 'latency')}, more than {show(limit_ms, 'latency')};"
            f" search a smaller one: edgenas search --latency {limit_ms:g}ms --cost live"
        )


def _shapes(options: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by the names of inputs, "" where none is named; raises UsageError for what is no shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for option in options:
        name, _, sides = option.rpartition("=")
        if not re.fullmatch(r"[1-9][0-9]{0,8}([,x][1-9][0-9]{0,8})*", sides) or name in shapes:
            raise UsageError(
                f"--input-shape {printable(option, 80)} is no shape; write it like NAME=1,3,224,224, once for an input"
            )
        shapes[name] = tuple(int(side) for side in re.split("[,x]", sides))
    return shapes

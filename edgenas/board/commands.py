"""What `edgenas board add`, `check` and `bench` and `edgenas measure` do, as functions of these names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgenas import device as devices
from edgenas.board import pool, registry
from edgenas.board.check import examine, time_reference
from edgenas.board.measure import Bench, Tier
from edgenas.board.model import read
from edgenas.board.registry import Board
from edgenas.board.runtimes import for_device
from edgenas.board.ssh_address import read_address, read_addresses
from edgenas.board.store import Store
from edgenas.board.verdict import latency_fact, latency_problem
from edgenas.errors import BoardError, CommandResult, UnknownNameError, UsageError

TIERS = {"final": Tier.final, "screen": Tier.screen}


def add(
    name: str,
    device: str,
    *,
    ssh: str | None = None,
    adb: str | None = None,
    local: bool = False,
    transport: str | None = None,
    options: Mapping[str, Any] | None = None,
    key: Path | None = None,
    jump: str | None = None,
    python: str = Board.python,
    threads: int = Board.threads,
    cores: str = Board.cores,
    benchmark_model: Path | None = None,
    runtime: str = Board.runtime,
) -> Board:
    """Keep a board of `device`, reached by one of `ssh` ([USER@]HOST[:PORT], with the private `key`, through the hosts
    `jump`), `adb` (its serial), `local`, and any other plug-in `transport` with its own `options`; the rest as in
    registry.Board.

    Raises UsageError for what cannot be a board.
    """
    if (ssh is not None) + (adb is not None) + local + (transport is not None) != 1:
        raise UsageError(
            "say how the board is reached, by one of --ssh USER@HOST, --adb SERIAL, --local and --transport NAME"
        )
    if options and transport is None:
        raise UsageError("--option belongs to --transport; leave it out")
    if ssh is None and (key is not None or jump is not None):
        raise UsageError("--key and --jump belong to --ssh; leave them out")
    if benchmark_model is not None and (adb is None or not benchmark_model.is_file()):
        problem = "is no file" if adb is not None else "is for phones"
        raise UsageError(f"--benchmark-model {benchmark_model} {problem}; give the tool's path, beside --adb SERIAL")
    if local:
        entry = registry.local(name, device)
    elif ssh is not None:
        entry = Board(name, device, "ssh", _ssh_options(ssh, key, jump), python)
    elif adb is not None:
        entry = Board(name, device, "adb", {"serial": adb}, python)
    else:
        entry = Board(name, device, str(transport), dict(options or {}), python)
    tool = str(benchmark_model.resolve()) if benchmark_model else ""
    entry = replace(entry, threads=threads, cores=cores, benchmark_model=tool, runtime=runtime)
    registry.add(entry)
    return entry


def check(name: str) -> dict[str, Any]:
    """What the board called `name` says of itself (`facts`), and what of that would spoil a timing (`findings`, with
    the fields of edgenas.board.check.Finding).

    Raises UnknownNameError for no such board, BoardError where it does not answer.
    """
    entry = registry.board(name)
    with contextlib.closing(pool.connect(entry)) as session:
        findings = examine(session, devices.load(entry.device), entry.runtime)
        return {"board": name, "facts": dict(session.facts), "findings": [asdict(each) for each in findings]}


def bench(name: str) -> CommandResult:
    """How fast the board called `name` answers, and the reference model's latency there. Raises as `check`."""
    entry = registry.board(name)
    with contextlib.closing(pool.connect(entry)) as session:
        device = devices.load(entry.device)
        fact = time_reference(
            Bench(session, device, name, entry.threads, Store(), affinity=entry.affinity, runtime=entry.runtime)
        )
    problem = BoardError(f"{fact['error']}; see: edgenas board check {name}") if "error" in fact else None
    return CommandResult(fact, problem)


def measure(
    model: Path,
    board: str,
    latency_ms: float | None = None,
    tier: str = "final",
    input_shape: Mapping[str, tuple[int, ...]] | None = None,
    runtime: str = "",
) -> CommandResult:
    """Time the .onnx or .tflite file `model` on the board called `board`, by `runtime` if given, with made-up input.

    `latency_ms`: the limit that is to be kept; `tier`: one of TIERS; `input_shape`: shapes of inputs by their names, ""
    for the only one, where the file leaves sides open. Raises UsageError for what cannot be asked, DataError for a file
    that is no model, BoardError where the board fails and ExportError where the model cannot be timed there.
    """
    if tier not in TIERS:
        raise UnknownNameError("tier", tier, TIERS, "--tier is screen or final")
    entry = registry.board(board, runtime)
    device = devices.load(entry.device)
    content = for_device(read(model, dict(input_shape or {})), device, entry.runtime)
    assert device.measurement is not None  # else it would be no board
    with pool.BoardPool([entry], device) as boards:
        outcome = boards.one(content, TIERS[tier](device.measurement, latency_ms))
    fact = latency_fact(outcome, latency_ms)
    problem = latency_problem(fact, str(model), board)
    if problem is not None and fact["error"] is not None:
        raise problem
    return CommandResult({"model": str(model), "board": board, **fact, **content.facts()}, problem)


def _ssh_options(ssh: str, key: Path | None, jump: str | None) -> dict[str, Any]:
    address = read_address(ssh, "--ssh")
    if jump is not None:
        read_addresses(jump, "--jump")
    where = str(key.expanduser().absolute()) if key else None
    options = {"host": address.host, "user": address.user, "port": address.port, "key": where, "jump": jump}
    return {option: value for option, value in options.items() if value is not None}

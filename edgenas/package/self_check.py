"""A package on a board: unpacked there file by file, and what the runner says there of each of its models."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgenas.board import replies
from edgenas.board.registry import Board
from edgenas.board.session import WORK, AgentSession
from edgenas.board.transport import SILENCE_S, Completed, Transport, output
from edgenas.errors import BoardError
from edgenas.package.build import run_py
from edgenas.text import printable

LEASE_S = 3600.0
# Below the 120 s of silence after which an agent ends, and the lease with it.
_STEP_TIMEOUT_S = 100.0
# What of a folder is there already: one line a file. Python 3.6, as boards have.
_HASHES = (
    "import hashlib,os,sys\n"
    "for at,_,names in os.walk(sys.argv[1]):\n"
    "  for name in names:\n"
    "    path=os.path.join(at,name)\n"
    "    print(hashlib.sha256(open(path,'rb').read()).hexdigest(),os.path.relpath(path,sys.argv[1]))\n"
)


def self_check(
    entry: Board, session: AgentSession, content: Mapping[str, bytes], sha256: str, files: Sequence[str]
) -> dict[str, Any]:
    """Of every model in `files`: {"file", "passed" (None: no runtime there runs it), "detail"}, a process each.

    `content` are the files of the archive with hash `sha256`; its run.py is replaced by this EdgeNAS's own. `session`
    keeps the board leased meanwhile, for this loads it. Raises BoardError where the board cannot run the runner.
    """
    folder = f"{WORK}/deployed/{sha256[:16]}"
    command = [entry.python, f"{folder}/run.py"]
    transport = entry.connect()
    try:
        _bring(transport, session, entry.python, folder, {**content, "run.py": run_py()})
        usable = output(transport, [*command, "--help"], _STEP_TIMEOUT_S)
        if usable.exit_code:
            raise BoardError(
                f"board {entry.name} cannot run the self-check ({_last_words(usable)}); it needs Python 3.6 or newer"
                f" with numpy: install it there, then run: edgenas board check {entry.name}"
            )
        models = []
        for file in files:
            session.lease(LEASE_S)
            done = output(transport, [*command, "--self-check", "--json", "--model", file], _STEP_TIMEOUT_S)
            models.append(_finding(file, done))
    finally:
        transport.close()
    ran = [each["passed"] for each in models if each["passed"] is not None]
    note = "" if ran else "no runtime there runs any of the files from Python"
    return {"passed": all(ran) if ran else None, "note": note, "models": models}


def _finding(file: str, done: Completed) -> dict[str, Any]:
    """A runner that ends without an answer was ended by the model: it started before."""
    try:
        printed = replies.json_value(done.stdout)
        only = printed[0] if isinstance(printed, list) and len(printed) == 1 else None
        found = replies.result("self-check", only, file)
    except BoardError:
        found = {"passed": False, "detail": _last_words(done)}
    return {"file": file, "passed": found["passed"], "detail": found["detail"]}


def _last_words(done: Completed) -> str:
    said = [line for line in done.stderr.splitlines() if line.strip()]
    how = f"signal {-done.exit_code}" if done.exit_code < 0 else f"exit code {done.exit_code}"
    return f"ended with {how}" + (f": {printable(said[-1])[:160]}" if said else "")


def _bring(transport: Transport, session: AgentSession, python: str, folder: str, wanted: Mapping[str, bytes]) -> None:
    """Every file of `wanted` into `folder` on the board, but for those that are there already."""
    listed = output(transport, [python, "-c", _HASHES, folder], _STEP_TIMEOUT_S)
    there = {tuple(line.split(" ", 1)) for line in listed.stdout.decode("utf-8", "replace").splitlines()}
    with tempfile.TemporaryDirectory(prefix="edgenas-") as local:
        source = Path(local) / "file"
        for name, each in wanted.items():
            if (hashlib.sha256(each).hexdigest(), name) not in there:
                session.lease(LEASE_S)
                source.write_bytes(each)
                transport.push(source, f"{folder}/{name}", SILENCE_S, session.keep_alive)

"""Every error EdgeNAS raises on purpose; the command line catches exactly these.

    EdgeNASError                  1   any expected error that has no code of its own
    ├── UsageError                2   the command asks for something that cannot be asked
    │   └── UnknownNameError      2   no device, space, data set, ... of that name
    ├── InfeasibleError           3   nothing seen meets the limits
    ├── BoardError                4   a board is not there or does not answer
    ├── UnstableError             5   a measurement does not settle
    ├── ExportError               6   a model file cannot be written
    │   └── DisagreementError     6   a model file does not compute what its source does
    ├── DataError                 7   a file that is needed is missing, damaged or not to be trusted
    └── InterruptedRunError     130   stopped by the user; the run can be resumed

A message is one sentence: what is wrong, and the command or the change that repairs it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory is short: torch, the runtimes and the loader of libraries have no class for it,
    but words."""
    words = ("allocate memory", "bad_alloc", "bad allocation", "failed to map segment", "out of memory")
    return isinstance(error, MemoryError) or any(each in str(error).lower() for each in words)


class EdgeNASError(Exception):
    """Base of all expected errors; `exit_code` is what the command line exits with."""

    exit_code = 1


class UsageError(EdgeNASError):
    exit_code = 2


class UnknownNameError(UsageError):
    """No `kind` is called `name`; suggests the nearest of `known` and says how to list them."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str) -> None:
        near = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.5)
        guess = f"did you mean {near[0]}? " if near else ""
        super().__init__(f"no {kind} '{name}'; {guess}{hint}")


class InfeasibleError(EdgeNASError):
    exit_code = 3


class BoardError(EdgeNASError):
    exit_code = 4


class UnstableError(EdgeNASError):
    exit_code = 5


class ExportError(EdgeNASError):
    exit_code = 6


class DisagreementError(ExportError):
    pass


class DataError(EdgeNASError):
    exit_code = 7


class InterruptedRunError(EdgeNASError):
    exit_code = 130


@dataclass(frozen=True)
class CommandResult:
    """What a command found: `report`, as its --json prints it, and the `problem` that ends the program by an error
    and an exit code, None where all is well."""

    report: dict[str, Any]
    problem: EdgeNASError | None = None

"""What the files of a run may hold: the types and bounds of every value, checked once, where a file is read.

A run folder may come from anybody, be damaged, or be of another version. What these functions give is of known shape,
plain dicts and lists; for anything else they raise ValueError, which says in a few words what is wrong and where.
A request keeps settings that are not known, for its reader to refuse. The types are in edgenas.schema.types.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from edgenas import plugins
from edgenas.architecture import LIMITS, SearchRequest, constraints_of, renamed
from edgenas.errors import EdgeNASError
from edgenas.schema import versions
from edgenas.schema.types import (
    CLOSED,
    OPEN,
    Header,
    MeasuredRecord,
    RefinedRecord,
    Result,
    TrialRecord,
    Word,
    Words,
)
from edgenas.text import is_name, printable
from edgenas.units import METRICS, cost_name

MAX_DIGITS = 18  # of a whole number
_WORDS = 160  # characters of what pydantic says is wrong
# Settings that came later than the first runs, and what these had.
_LATER: dict[str, Any] = {
    **dict.fromkeys(
        (
            *("board", "pareto", "precision", "halving", "repeats", "engine", "pool", "confidence", "size", "init"),
            *("taps", "include", "flip", "format", "time_s"),
        )
    ),
    "refine": 0,
}
_Kind = TypeVar("_Kind")


def parse(content: bytes) -> Any:
    """The JSON in `content`; no number is infinite or NaN, and no whole number has more than MAX_DIGITS."""
    return _parsed(content, parse_float=_finite, parse_int=_integer)


def _parsed(content: bytes, **bounds: Any) -> Any:
    try:
        return json.loads(content, parse_constant=_refused, **bounds)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def checked(kind: Any, value: Any) -> Any:
    """`value`, if it is of `kind`, a type of edgenas.schema.types, or a list of one."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(_reason(error)) from error


def settings(kind: type[_Kind], record: Any, base: _Kind | None = None) -> _Kind:
    """The dataclass `kind` with the values of `record`, each of the type that `kind` declares for it; what `record`
    lacks is as in `base`, or by default."""
    if isinstance(record, dict):  # JSON has no tuples
        record = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
    if isinstance(record, dict) and "size" in _types(kind):  # its entries stand beside the others
        known = {name: value for name, value in record.items() if name in _types(kind)}
        record = {**known, "size": {name: value for name, value in record.items() if name not in known}}
    values = checked(_record_of(kind), record)  # type: ignore[arg-type]
    try:
        return kind(**values) if base is None else replace(base, **values)  # type: ignore[type-var]
    except (TypeError, EdgeNASError) as error:
        raise ValueError(str(error)) from error


def header(value: Any) -> dict[str, Any]:
    """What a run.json holds, by today's names. Settings of `request` that came later than the run are as they were
    before."""
    found: dict[str, Any] = checked(Header, value)
    datetime.datetime.fromisoformat(found["created"])
    request = found["request"] = checked(_request(), {**_LATER, **versions.request(found["request"])})
    for name in ("fitness_settings", "refine_settings"):
        if found.get(name) is not None:
            found[name] = renamed(found[name])
    if request["space"] is None:
        raise ValueError("request.space names no space")
    for each in constraints_of(request):
        if not 0 < each.limit <= METRICS[each.metric].maximum:
            field = next(name for name, metric in LIMITS.items() if metric == each.metric)
            raise ValueError(f"request.{field}: {each.limit} is no limit")
        if each.device is not None and not is_name(each.device):
            raise ValueError("request limits what is no device")
    if request["pareto"] is not None and request["pareto"] not in METRICS:
        raise ValueError("request.pareto names no metric")
    return found


def lines(name: str, content: bytes, request: Mapping[str, Any], today: Callable[[Any], Any] | None) -> list[Any]:
    """The records in the whole lines of `content`, that of the file `name` of a run with this `request`, each as
    `today` says it, which sees it unchecked; None: as it is. Raises LineError for a line that is none.
    """
    kind, check = _LINES[name]
    records = _typed(kind, content.split(b"\n")[:-1], today)  # what follows the last newline was torn by a kill
    check_genes(request["space"], records)
    check(records, request)
    return records


def _typed(kind: Any, rows: Sequence[bytes], today: Callable[[Any], Any] | None) -> list[Any]:
    # All together take half the time, and so does leaving the bounds of numbers to their types; pydantic's own parser
    # takes a third of that. What it refuses, as the halves of surrogates that Python takes, is looked at line by line.
    whole = b"[" + b",".join(rows) + b"]"
    with contextlib.suppress(ValueError):
        adapter = _adapter(list[kind])
        found: list[Any] = (
            adapter.validate_json(whole)
            if today is None
            else adapter.validate_python([today(each) for each in _parsed(whole)])
        )
        if len(found) == len(rows):
            return found
    found = []
    for row in rows:
        try:
            found.append(checked(kind, _parsed(row) if today is None else today(_parsed(row))))
        except ValueError as error:
            raise LineError(len(found) + 1, str(error)) from error
    return found


class LineError(ValueError):
    """The line `number`, from 1, is damaged."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def result(value: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the result.json of a run with this `request` holds."""
    defaults: dict[str, Any] = {"pareto": None, "front": None, "confirmations": [], "refinement": None}
    found: dict[str, Any] = checked(Result, {**defaults, **value} if isinstance(value, dict) else value)
    points = [*([found["winner"]] if found["winner"] else []), *(found["front"] or [])]
    limited = {cost_name(each["metric"], each.get("device")) for each in found["constraints"]}
    limited |= {found["pareto"]} if found["pareto"] else set()
    if found["feasible"] != bool(points) or (found["front"] is None) != (found["pareto"] is None):
        raise ValueError("winner and front do not fit each other")
    if (found["space"], found["dataset"]) != (request["space"], request["dataset"]):
        raise ValueError("it is of another run")
    check_genes(found["space"], points)
    if not all(limited <= set(point["costs"]) for point in points):
        raise ValueError("a network lacks a cost that is limited")
    return found


def _check_trials(records: Sequence[Mapping[str, Any]], request: Mapping[str, Any]) -> None:
    """Raise LineError for one of the records of a run with this `request` that does not fit itself or its place."""
    needed = {each.cost for each in constraints_of(request)}
    needed |= {request["pareto"]} if request["pareto"] else set()
    for number, each in enumerate(records, 1):
        has_costs = each["cost_error"] is None
        if each["trial"] != number - 1:
            raise LineError(number, f"it says trial {each['trial']}")
        if has_costs and not needed <= each["costs"].keys():
            raise LineError(number, "it lacks a cost that is limited")
        if (each["fitness"] is not None) != (has_costs and each["score"] is not None):
            raise LineError(number, "its fitness does not fit its score and costs")
        if each["feasible"] and each["fitness"] is None:
            raise LineError(number, "it cannot be feasible")


def _check_measured(records: Sequence[Mapping[str, Any]], request: Mapping[str, Any]) -> None:
    """As `_check_trials`, of what boards measured."""
    for number, each in enumerate(records, 1):
        if each["cost_error"] is None and not all(cost["value"] > 0 for cost in each["costs"].values()):
            raise LineError(number, "it holds a cost of 0")


def _check_refined(records: Sequence[Mapping[str, Any]], request: Mapping[str, Any]) -> None:
    """As `_check_trials`, of what brief trainings came to."""
    for number, each in enumerate(records, 1):
        images, loss, error = each["val_images"], each["val_loss"], each["error"]
        padding = -images % 8  # bits at the end that are none of an image
        try:
            right = base64.b64decode(each["right"], validate=True)
        except ValueError as problem:
            raise LineError(number, "its answers are not base64") from problem
        whole = not right if error is not None else 8 * len(right) == images + padding
        if (loss is None) != (error is not None) or not whole or int.from_bytes(right) % (1 << padding):
            raise LineError(number, "it does not say what became of its images")
        if images != records[0]["val_images"]:
            raise LineError(number, "it counts other images than the first")


def check_genes(space: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError where one of `records` is of another space, or its genes are none of it. Those of a space that
    is not installed are taken as they are: whoever builds from them loads it first."""
    choices = plugins.load("spaces", space)().choices if space in plugins.names("spaces") else None
    for number, each in enumerate(records, 1):
        genes = each["genes"]
        if each.get("space", space) != space:
            raise LineError(number, f"it is of the space {printable(each['space'], 64)}, not {space}")
        if choices is not None and (
            len(genes) != len(choices) or any(gene >= count for gene, count in zip(genes, choices, strict=True))
        ):
            raise LineError(number, f"its genes are none of {space}")


_LINES: dict[str, tuple[Any, Callable[[Sequence[Mapping[str, Any]], Mapping[str, Any]], None]]] = {
    "trials.jsonl": (TrialRecord, _check_trials),
    "measured.jsonl": (MeasuredRecord, _check_measured),
    "refined.jsonl": (RefinedRecord, _check_refined),
}


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0.0:
        raise ValueError(f"the number {text[:20]} is out of bounds")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"the number {text[:20]}... is out of bounds")
    return int(text)


def _refused(text: str) -> None:
    raise ValueError(f"{text} is no number")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _record_of(kind: Any) -> Any:
    """A TypedDict of the fields of the dataclass `kind`, none of them required."""
    return _configured(TypedDict(kind.__name__, _types(kind), total=False), CLOSED)  # type: ignore[operator]


@cache
def _request() -> Any:
    """As `_record_of` SearchRequest, all of them required; more are let through, for a reader to refuse."""
    return _configured(TypedDict("request", _types(SearchRequest)), OPEN)  # type: ignore[operator]


def _configured(record: Any, config: ConfigDict) -> Any:
    record.__pydantic_config__ = config
    return record


def _types(kind: Any) -> dict[str, Any]:
    words: dict[Any, Any] = {str: Word, str | None: Word | None}
    words |= {tuple[str, ...]: Words, tuple[str, ...] | None: Words | None}
    return {name: words.get(hint, hint) for name, hint in get_type_hints(kind).items()}


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "it"
    says = {"missing": "is missing", "extra_forbidden": "is not known"}.get(first["type"], first["msg"])
    return printable(f"{where} {says.removeprefix('Input ')}", _WORDS)

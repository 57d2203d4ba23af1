"""A run as logs have it: settings, numbers by steps, and tables."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from edgenas.errors import UsageError
from edgenas.report.fields import at, count, items, number, table, words
from edgenas.report.page.costs import in_order, metric_of
from edgenas.report.page.networks import described
from edgenas.report.subjects import Subject
from edgenas.text import as_name
from edgenas.units import METRICS

Rows = list[list[Any]]
Table = tuple[list[str], Rows]


@dataclass(frozen=True)
class Step:
    """Numbers by their tags, like "search/score", at a `step`, `seconds` after the start."""

    step: int
    values: Mapping[str, float]
    seconds: float = 0.0


@dataclass(frozen=True)
class Record:
    """`name`: a part of a path; `identity`: 32 hexadecimal digits, the same for the same run; `started_s`: since 1970,
    0 where that is not known; `tables`: by their names, each its header and rows, with None where nothing is known."""

    name: str
    kind: str
    identity: str
    started_s: float
    seconds: float
    ended: bool
    settings: Mapping[str, str]
    tags: Mapping[str, str]
    steps: Sequence[Step]
    tables: Mapping[str, Table] = field(default_factory=dict)


def record(subject: Subject, name: str) -> Record:
    """What `subject` holds, called `name`. Raises UsageError for a comparison, which is a table already."""
    if subject.kind == "comparison":
        raise UsageError(f"{subject.name} is a comparison, whose regrets.csv is a table already; leave it out")
    settings, tags, steps, tables = _board(subject) if subject.fact else _run(subject)
    steps = [each for each in steps if each.values]
    made_of = [subject.kind, name, subject.fact or subject.header]
    identity = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]
    seconds = (number(subject.result, "seconds") or 0.0) + (number(subject.training, "seconds") or 0.0)
    ended = subject.kind != "search" or subject.result is not None
    ended = ended and bool(subject.fact or subject.training or not subject.epochs)
    tags = {"kind": subject.kind, **tags}
    return Record(name, subject.kind, identity, _started_s(subject), seconds, ended, settings, tags, steps, tables)


def _started_s(subject: Subject) -> float:
    said = words(subject.header, "created") or words(subject.fact, "measured_at") or words(subject.fact, "deployed_at")
    try:
        if said is not None:
            return datetime.fromisoformat(said).timestamp()
        took = number(subject.training, "seconds") or 0.0
        return max(0.0, os.path.getmtime(Path(subject.name) / "train" / "metrics.jsonl") - took)
    except (OSError, ValueError, OverflowError):
        return 0.0


def tag_of(cost: str) -> str:
    """Of a cost by its name: latency@raspi4 -> latency_ms/raspi4."""
    metric, _, device = cost.partition("@")
    named = f"{metric}_{METRICS[metric_of(cost)].unit.lower()}"
    return f"{named}/{as_name(device)}" if device else named


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """What was set, by names with dots between."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        if value:
            yield name, ",".join(map(str, value))
    elif value is not None:
        yield name, str(value)


Parts = tuple[dict[str, str], dict[str, str], list[Step], dict[str, Table]]  # settings, tags, steps, tables


def _run(subject: Subject) -> Parts:
    header, training = subject.header, subject.training
    settings = dict(_flat(table(header, "request")))
    for key in ("search_settings", "fitness_settings", "refine_settings"):
        settings |= _flat(table(header, key), key)
    settings |= _flat(table(training, "settings"), "training")
    for key in ("space", "dataset", "arch_str"):
        said = words(training, key)
        settings |= {f"training.{key}": said} if said is not None else {}
    space = words(header, "request", "space") or ""
    tags = {f"versions.{key}": str(each) for key, each in table(header, "versions").items()}
    for key in ("fitness_source", "fitness_fingerprint", "cost_fingerprint", "device_profile_sha256"):
        tags |= {key: said} if (said := words(header, key)) is not None else {}
    winner = at(subject.result, "winner")
    if winner is not None:
        tags["architecture"] = described(space, winner["genes"]) or winner["arch_str"]
    refined = {described(space, arch.genes) or str(arch.genes): rungs for arch, rungs in subject.refined.items()}
    tags |= {f"refinement.architecture_{place}": name for place, name in enumerate(refined, 1)}
    titles, generations = _generations(subject)
    steps = [
        *_candidates(subject),
        *(Step(row[0], _known(zip(titles[1:], row[1:], strict=True), "generation")) for row in generations),
        *_refinement(refined),
        *_epochs(subject),
        Step(0, _results(subject)),
    ]  # fmt: skip
    tables = {
        "candidates": _candidate_rows(subject, space),
        "generations": (titles, generations),
        "measured": _measured_rows(subject, space),
        "refined": _refined_rows(refined),
        "epochs": _epoch_rows(subject),
    }
    return settings, tags, steps, {name: each for name, each in tables.items() if each[1]}


def _known(pairs: Any, under: str) -> dict[str, float]:
    return {f"{under}/{tag}": float(value) for tag, value in pairs if value is not None}


def _values(costs: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(tag_of(cost), costs[cost]["value"]) for cost in in_order(costs)]


def _candidates(subject: Subject) -> Iterator[Step]:
    best = None
    for each in subject.trials:
        found = [("score", each["score"]), ("phi", each["phi"]), *_values(each["costs"])]
        if each["score"] is not None and each["feasible"] and (best is None or each["score"] > best):
            best = each["score"]
        yield Step(each["trial"], _known([*found, ("best_score", best)], "search"))


def _generations(subject: Subject) -> Table:
    costs = in_order({cost for each in subject.trials for cost in each["costs"]})
    header = ["generation", "candidates", "share_within_limits", "best_score", "mean_score"]
    rows: Rows = []
    best = None
    for generation, found in groupby(subject.trials, lambda each: each["generation"]):
        trials = list(found)
        scores = [each["score"] for each in trials if each["score"] is not None]
        within = [each["score"] for each in trials if each["feasible"] and each["score"] is not None]
        best = max(within, default=best) if best is None else max([best, *within])
        medians = []
        for cost in costs:
            values = [each["costs"][cost]["value"] for each in trials if cost in each["costs"]]
            medians.append(statistics.median(values) if values else None)
        share = sum(each["feasible"] for each in trials) / len(trials)
        mean = statistics.fmean(scores) if scores else None
        rows.append([generation, len(trials), share, best, mean, *medians])
    return [*header, *(f"median_{tag_of(cost)}" for cost in costs)], rows


def _refinement(refined: Mapping[str, Sequence[Any]]) -> Iterator[Step]:
    for place, rungs in enumerate(refined.values(), 1):
        for each in rungs:
            if each.error is None:
                found = [("val_accuracy", each.val_accuracy), ("val_loss", each.val_loss)]
                yield Step(each.images_seen, _known(found, f"refinement/architecture_{place}"))


def _epochs(subject: Subject) -> Iterator[Step]:
    passed = number(subject.result, "seconds") or 0.0
    for place, each in enumerate(subject.epochs, 1):
        passed += number(each, "seconds") or 0.0
        found = [(tag, number(each, tag)) for tag in ("train_loss", "val_accuracy", "learning_rate")]
        yield Step(count(each, "epoch") or place, _known(found, "training"), passed)


def _results(subject: Subject) -> dict[str, float]:
    """What came of it in the end."""
    found: list[tuple[str, float | None]] = []
    winner = at(subject.result, "winner")
    if winner is not None:
        found += [("score", winner["score"]), *_values(winner["costs"])]
        found += [("benchmark_accuracy", winner["test_accuracy"])]
        found += [("refined_val_accuracy", number(winner, "refined", "val_accuracy"))]
    front = at(subject.result, "front")
    found += [("front", float(len(front)))] if front else []
    found += [(key, number(subject.result, "evaluations", key)) for key in ("distinct", "scored")]
    found += [(key, number(subject.training, key)) for key in ("test_accuracy", "val_accuracy", "epochs")]
    for model in items(subject.export, "models"):
        under = as_name(words(model, "format") or "model")
        accuracy = number(model, "checked", "accuracy")
        found += [(f"{under}/test_accuracy", None if accuracy is None else 100 * accuracy)]
        found += [(f"{under}/bytes", number(model, "bytes"))]
    return _known(found, "result")


def _board(subject: Subject) -> Parts:
    """Of a measurement or a deployment."""
    fact = subject.fact
    latency = table(fact, "latency") if subject.kind == "deployment" else fact
    board = at(fact, "board")
    settings = dict(_flat({"board": board, "model": at(fact, "model"), "package": at(fact, "package")}))
    settings |= _flat(table(latency, "fingerprint"), "fingerprint")
    tags = {"verdict": said} if (said := words(latency, "verdict")) is not None else {}
    keys = ("median_ms", "limit_ms", "mean_ms", "energy_mj", "samples")
    found = [(key, number(latency, key)) for key in keys]
    found += [
        (f"interval_{end}_ms", number(latency, "interval_ms", place)) for place, end in enumerate(("low", "high"))
    ]
    found += [("accuracy", number(fact, "accuracy", "percent")), ("images", number(fact, "accuracy", "images"))]
    samples = [
        [attempt, repeat, place, value / 1e6]
        for attempt, each in enumerate(items(subject.samples, "attempts"))
        for repeat, values in enumerate(items(each, "samples_ns"))
        for place, sample in enumerate(values if isinstance(values, list) else [])
        if (value := number(sample)) is not None
    ]
    steps = [Step(step, {"samples/latency_ms": row[-1]}) for step, row in enumerate(samples)]
    steps.append(Step(0, _known(found, "result")))
    return (
        settings,
        tags,
        steps,
        {"samples": (["attempt", "repeat", "sample", "latency_ms"], samples)} if samples else {},
    )


def _candidate_rows(subject: Subject, space: str) -> Table:
    costs = in_order({cost for each in subject.trials for cost in each["costs"]})
    header = ["candidate", "generation", "architecture", "score", "phi", "loss", "fitness", "within_limits", "scored"]
    rows = [
        [each["trial"], each["generation"], described(space, each["genes"]) or _genes(each["genes"]),
         each["score"], each["phi"], each["loss"], each["fitness"], int(each["feasible"]), int(each["scored"]),
         *(at(each["costs"], cost, "value") for cost in costs), each["score_error"] or each["cost_error"]]
        for each in subject.trials
    ]  # fmt: skip
    return [*header, *map(tag_of, costs), "error"], rows


def _genes(genes: Sequence[int]) -> str:
    return " ".join(map(str, genes))


def _measured_rows(subject: Subject, space: str) -> Table:
    costs = in_order({cost for each in subject.measured for cost in each["costs"]})
    rows = [
        [described(space, each["genes"]) or _genes(each["genes"]),
         *(at(each["costs"], cost, key) for cost in costs for key in ("value", "source")), each["cost_error"]]
        for each in subject.measured
    ]  # fmt: skip
    titles = [title for cost in costs for title in (tag_of(cost), f"{tag_of(cost)}_source")]
    return ["architecture", *titles, "error"], rows


def _refined_rows(refined: Mapping[str, Sequence[Any]]) -> Table:
    rows = [
        [arch_str, each.images_seen, each.val_images, each.val_loss,
         *((None, None) if each.error else (each.val_accuracy, each.standard_error)), each.seconds, each.error]
        for arch_str, rungs in refined.items()
        for each in rungs
    ]  # fmt: skip
    header = ["images_seen", "val_images", "val_loss", "val_accuracy", "standard_error", "seconds", "error"]
    return ["architecture", *header], rows


def _epoch_rows(subject: Subject) -> Table:
    keys = ("epoch", "train_loss", "val_accuracy", "learning_rate", "seconds")
    return list(keys), [
        [number(each, key) if key != "epoch" else count(each, key) for key in keys] for each in subject.epochs
    ]

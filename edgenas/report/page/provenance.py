"""What a result rests on, and how to get it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgenas.report.fields import at, table, words
from edgenas.report.page import commands
from edgenas.report.page.costs import example
from edgenas.report.page.markup import Content, Markup, command, details, element, facts, section, shown
from edgenas.report.subjects import Subject

MAX_FACTS = 200


def section_of(subject: Subject) -> Markup:
    parts: list[Content] = []
    again = _commands(subject)
    if again:
        said = "The same seed gives the same search." if subject.kind == "search" else "Run this to get it again."
        parts += [element("p", said), command("\n".join(again))]
    for title, values in _facts(subject).items():
        rows = list(_flat(values))[:MAX_FACTS]
        if rows:
            parts.append(details(title, facts(rows)))
    return section("How to do it again, and what it rests on", *parts)


def _commands(subject: Subject) -> list[str]:
    name = subject.name.removeprefix("runs/")
    if subject.kind in ("search", "training"):
        found = []
        if subject.header:
            picked = words(subject.header, "picked_from")
            found = (
                [f"# picked from {picked}"]
                if picked
                else [f"{commands.search(subject.header)} --run {commands.quoted(name)}"]
            )
        if subject.training or subject.epochs:
            found.append(commands.trained(name, subject.training, bool(subject.header)))
        elif subject.result is not None and subject.result["feasible"]:
            found += _to_train(name, subject)
        return found + (commands.after(name, subject.export) if subject.export else [])
    if subject.kind == "measurement":
        model, board = words(subject.fact, "model"), words(subject.fact, "board")
        limit = at(subject.fact, "limit_ms")
        tier = words(subject.fact, "fingerprint", "tier", "name")
        if model is None or board is None:
            return []
        given = [
            *(["--latency", f"{limit:g}ms"] if isinstance(limit, int | float) else []),
            *(["--tier", tier] if tier else []),
        ]
        return [commands.words_of("measure", model, "--board", board, *given)]
    if subject.kind == "deployment":
        file, board = words(subject.fact, "package", "file"), words(subject.fact, "board", "name")
        return [] if file is None or board is None else [commands.words_of("deploy", file, "--board", board)]
    methods = ",".join(dict.fromkeys(row.method for row in subject.regrets))
    devices = [part for name_ in dict.fromkeys(row.device for row in subject.regrets) for part in ("--device", name_)]
    limits = ",".join(f"{each:g}" for each in dict.fromkeys(row.percentile for row in subject.regrets))
    seeds = max((row.seed for row in subject.regrets if row.seed is not None), default=0) + 1
    given = ["--limits", limits, "--seeds", str(seeds), "--methods", methods, "-o", subject.name]
    return [commands.words_of("compare", *devices, *given)]


def _to_train(name: str, subject: Subject) -> list[str]:
    """What trains the winner, or, of a front, a network that is picked first."""
    metric = subject.header["request"].get("pareto")
    if not metric:
        return [commands.words_of("train", name)]
    kept = f"{name}-picked"
    pick = commands.words_of("runs", "pick", name, *example(metric), "--keep", kept)
    return [pick, commands.words_of("train", kept)]


def _facts(subject: Subject) -> dict[str, Mapping[str, Any]]:
    """Title -> facts, in the order in which they are shown."""
    header = subject.header
    prints = {key: header[key] for key in header if key.endswith(("_fingerprint", "_sha256", "_source"))}
    key = table(subject.fact, "fingerprint") or table(subject.fact, "latency", "fingerprint")
    record = {name: each for name, each in subject.fact.items() if not isinstance(each, dict | list)}
    return {
        "Environment": {
            "where": subject.name,
            **table(header, "versions"),
            **table(subject.export, "versions"),
            "created": header.get("created"),
        },
        "Fingerprints": {
            **prints,
            "training images": subject.training.get("dataset_fingerprint"),
            "weights": subject.export.get("weights_sha256"),
            "package": at(subject.fact, "package", "sha256"),
            "model": at(subject.fact, "model", "sha256"),
        },
        "What was asked": table(header, "request"),
        "Settings of the search": table(header, "search_settings"),
        "Settings of the scores": table(header, "fitness_settings"),
        "Settings of the refinement": table(header, "refine_settings"),
        "Settings of the training": table(subject.training, "settings"),
        "The measurement": {**record, **key},
        "What the comparison rests on": subject.made_from,
    }


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Content]]:
    """Name and value, of tables in it too; what is None is left out."""
    found: list[tuple[str, Content]] = []
    for name, value in values.items():
        path = f"{before}{name}".replace("_", " ")
        if isinstance(value, dict):
            found += _flat(value, f"{path}: ")
        elif isinstance(value, list):
            found.append((path, ", ".join(shown(each) for each in value[:MAX_FACTS])))
        elif value is not None:
            found.append((path, value))
    return found

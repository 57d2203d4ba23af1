"""All that a search evaluated: its score against its cost, each with its command."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from edgenas.report.fields import number, words
from edgenas.report.page import commands, networks
from edgenas.report.page.charts import Drawings, rounded, thinned
from edgenas.report.page.costs import amount, called, in_order, limits_of, titled
from edgenas.report.page.markup import Markup, element, section
from edgenas.report.page.verdict import baselines
from edgenas.report.subjects import Subject
from edgenas.report.text import score_label

MAX_DETAILED = 5000  # candidates that are shown one by one
MAX_BYTES = 1_000_000  # of what is said of these
SHORTLIST = 10  # the best candidates, where none was refined
MAX_CLOUD = 100_000  # others that are drawn
_CLOUD_BITS = 16


class Candidates:
    """The unique rows among the trials of a search: of each architecture the last."""

    def __init__(self, subject: Subject) -> None:
        request = subject.header["request"]
        self.space = request["space"]
        self.metric = request.get("pareto") or next(iter(limits_of(request)), "macs")
        last = {tuple(each["genes"]): each for each in subject.trials if each["score"] is not None}
        self.records = [each for each in last.values() if each["cost_error"] is None]
        self.failed = sum(each["score"] is None or each["cost_error"] is not None for each in subject.trials)
        metrics = in_order({metric for each in self.records[:1000] for metric in each["costs"]})
        self.metrics = sorted(metrics, key=lambda metric: metric != self.metric)
        result = subject.result or {}
        self.winner = tuple(result["winner"]["genes"]) if result.get("winner") else None
        self.front = [tuple(point["genes"]) for point in result.get("front") or []]
        done = result.get("refinement") or {}
        self.shortlist = [tuple(each["genes"]) for each in done.get("architectures", [])]
        if not self.shortlist:
            keeps = sorted((each for each in self.records if each["feasible"]), key=lambda each: -each["score"])
            self.shortlist = [tuple(each["genes"]) for each in keeps[:SHORTLIST]]

    def detailed(self) -> list[Mapping[str, Any]]:
        """Those that are shown one by one: all, or, of very many, what was chosen and the best of each small area."""
        length = len(networks.described(self.space, self.records[0]["genes"]) or "") if self.records else 0
        most = min(MAX_DETAILED, MAX_BYTES // (length + 60))
        if len(self.records) <= most:
            return self.records
        chosen = {*self.front, *self.shortlist} | ({self.winner} if self.winner else set())
        kept = [each for each in self.records if tuple(each["genes"]) in chosen]
        xs = [each["costs"].get(self.metric, {}).get("value", 0.0) for each in self.records]
        ys = [each["score"] for each in self.records]
        side = max(8, int(math.sqrt(most)))
        areas: dict[tuple[int, int], Mapping[str, Any]] = {}
        for each, column, row in zip(self.records, _scaled(xs, side - 1), _scaled(ys, side - 1), strict=True):
            best = areas.get((column, row))
            if best is None or each["score"] > best["score"]:
                areas[column, row] = each
        kept += [each for each in areas.values() if tuple(each["genes"]) not in chosen]
        return sorted(kept[: max(most, len(chosen))], key=lambda each: each["trial"])


def _scaled(values: Sequence[float], most: int) -> list[int]:
    """Whole numbers from 0 to `most`, in proportion."""
    low, high = min(values), max(values)
    width = (high - low) or 1.0
    return [round((value - low) / width * most) for value in values]


def candidates(subject: Subject, found: Candidates, drawings: Drawings) -> Markup:
    if not found.records or not found.metrics:
        return section("Candidates", element("p", "No candidate was scored yet.", class_="note"))
    request, detailed = subject.header["request"], found.detailed()
    label = score_label([request])
    rows = [tuple(each["genes"]) for each in detailed]
    notes = _notes(found, rows)
    stock = [each for each in baselines(subject) if number(each, "score") is not None]
    described = [networks.described(found.space, genes) for genes in rows]
    shown = [text or str(list(genes)) for text, genes in zip(described, rows, strict=True)]
    columns: list[dict[str, Any]] = [{"title": "number", "numeric": True}, {"title": label, "numeric": True}]
    data: list[list[Any]] = [[each["trial"] for each in detailed], [rounded(each["score"]) for each in detailed]]
    data[0] += [None] * len(stock)
    data[1] += [number(each, "score") for each in stock]
    for metric in found.metrics:
        columns.append({"title": titled(metric), "numeric": True})
        values = [rounded(each["costs"].get(metric, {}).get("value")) for each in detailed]
        data.append(values + [number(each, "costs", metric, "value") for each in stock])
    columns += [{"title": "within limits", "numeric": False}, {"title": "what", "numeric": False}]
    columns.append({"title": "architecture", "numeric": False})
    data.append(["yes" if each["feasible"] else "no" for each in detailed] + [""] * len(stock))
    data.append([notes.get(genes, "") for genes in rows] + ["stock baseline"] * len(stock))
    data.append(shown + [words(each, "arch_str") or words(each, "name") or "stock network" for each in stock])
    extra: dict[str, Any] = {"stock": len(stock)}
    if all(described) and networks.parsed(found.space, shown[0]) is not None:
        extra["command"] = commands.train(found.space, request["dataset"], "").removesuffix("''")
    name = drawings.table(columns, data, extra)
    chart = _scatter(subject, found, rows, name, label, len(stock))
    total = len(found.records)
    alternative = _told(subject, found, label)
    many = ""
    if len(rows) < total:
        drawn = "All" if total - len(rows) <= MAX_CLOUD else f"{MAX_CLOUD:,}"
        many = f" {drawn} are drawn; {len(rows):,} can be pointed at: the chosen ones, and the best of each small area."
    failed = f" {found.failed:,} could not be evaluated." if found.failed else ""
    figure = drawings.figure(
        f"{total:,} candidates: {label} against {called(found.metric)}",
        f"{alternative}{failed}{many} Point at a candidate, or use the arrow keys, to see its command.",
        chart,
        drawings.listed(name, "Candidates"),
    )
    return section("Candidates", figure)


def _notes(found: Candidates, rows: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], str]:
    notes: dict[tuple[int, ...], str] = dict.fromkeys(found.shortlist, "shortlist")
    notes.update(dict.fromkeys(found.front, "front"))
    if found.winner is not None:
        notes[found.winner] = "winner"
    return notes


def _told(subject: Subject, found: Candidates, label: str) -> str:
    """What is on the scatter, in words."""
    within = sum(each["feasible"] for each in found.records)
    values = [each["costs"][found.metric]["value"] for each in found.records if found.metric in each["costs"]]
    sentence = f"{within:,} of {len(found.records):,} unique candidates keep the limits."
    if values:
        low, high = amount(min(values), found.metric), amount(max(values), found.metric)
        sentence += f" In {called(found.metric)} they range from {low} to {high}."
    winner = (subject.result or {}).get("winner")
    if winner is not None and not found.front and found.metric in winner["costs"]:
        value = amount(winner["costs"][found.metric]["value"], found.metric)
        sentence += f" The winner has {value} and the {label} {winner['score']:.4g}."
    if found.front:
        sentence += f" {len(found.front)} are on the front."
    return sentence


def _scatter(
    subject: Subject, found: Candidates, rows: Sequence[tuple[int, ...]], name: str, label: str, stock: int
) -> dict[str, Any]:
    place = {genes: i for i, genes in enumerate(rows)}
    chosen = {*found.front, *([found.winner] if found.winner and not found.front else [])}
    feasible = {tuple(each["genes"]) for each in found.records if each["feasible"]}
    others = [genes for genes in rows if genes not in chosen]
    drawn: list[dict[str, Any]] = [
        {
            "name": "over a limit",
            "role": "over",
            "kind": "dots",
            "rows": [place[g] for g in others if g not in feasible],
        },
        {
            "name": "within the limits",
            "role": "within",
            "kind": "dots",
            "rows": [place[g] for g in others if g in feasible],
        },
    ]
    if found.front:
        on = [place[genes] for genes in found.front if genes in place]
        drawn.append({"name": "front", "role": "front", "kind": "steps", "signs": True, "rows": on})
    elif found.winner in place:
        drawn.append({"name": "winner", "role": "winner", "kind": "dots", "rows": [place[found.winner]]})
    if stock:
        drawn.append(
            {
                "name": "stock baseline",
                "role": "baseline",
                "kind": "dots",
                "rows": list(range(len(rows), len(rows) + stock)),
            }
        )
    request = subject.header["request"]
    limits = [
        {"column": 2 + found.metrics.index(metric), "at": limit, "label": f"limit {amount(limit, metric)}"}
        for metric, limit in limits_of(request).items()
        if metric in found.metrics
    ]
    chart: dict[str, Any] = {
        "table": name,
        "xs": [{"column": 2 + i, "label": titled(m)} for i, m in enumerate(found.metrics)],
        "y": {"column": 1, "label": label},
        "series": [each for each in drawn if each["rows"]],
        "limits": limits,
    }
    if len(rows) < len(found.records):
        chart["cloud"] = _cloud(found, place)
    return chart


def _cloud(found: Candidates, place: Mapping[tuple[int, ...], int]) -> dict[str, Any]:
    """Where those are that are not shown one by one, MAX_CLOUD of them at most: for each column of the table that is
    an axis, 16 bits a candidate, in base64."""
    rest = [each for each in found.records if tuple(each["genes"]) not in place]
    rest = [each for each in rest if all(metric in each["costs"] for metric in found.metrics)]
    rest = [rest[i] for i in thinned(len(rest), MAX_CLOUD)]
    if not rest:
        return {}
    axes = {1: [each["score"] for each in rest]}
    axes |= {2 + i: [each["costs"][m]["value"] for each in rest] for i, m in enumerate(found.metrics)}
    return {str(column): _packed(values) for column, values in axes.items()}


def _packed(values: Sequence[float]) -> dict[str, Any]:
    packed = base64.b64encode(struct.pack(f"<{len(values)}H", *_scaled(values, (1 << _CLOUD_BITS) - 1))).decode()
    return {"low": rounded(min(values)), "high": rounded(max(values)), "values": packed}

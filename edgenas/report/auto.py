"""What `edgenas auto` will do, and what came of it on one page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgenas import plugins
from edgenas.architecture import LIMITS, Architecture, Drawable
from edgenas.report.package import searched_words
from edgenas.report.text import table_text, time_words
from edgenas.search.compromise import typed_limit
from edgenas.text import printables
from edgenas.units import show

_INCLUDED = re.compile(r"--include (?:'[^']*'|\S+)")
_PARTS = {"train": "photos to train on", "validation": "for validation", "test": "to test on"}


def plan_text(plan: Mapping[str, Any]) -> str:
    """What there is, and of each step the time it may take and the command that does it by itself."""
    plan = printables(dict(plan))
    request = plan["request"]
    lines = [
        *_photos_lines(plan["photos"]),
        f"{_target(request)}; about {_duration(request['time_s'])}, the package is written to {plan['output']}",
        "",
    ]
    for number, step in enumerate(plan["steps"], 1):
        time = "done" if step["name"] in plan["done"] else _duration(step["seconds"])
        lines += [f"  {number}  {step['name']:<10}{time:<9}{step['what']}", f"{'':24}{_shortened(step['command'])}"]
    return "\n".join(lines)


def answer_text(result: Mapping[str, Any]) -> str:
    """The answer on one page: the network, how well it does and what it costs, and what the search was worth."""
    result = printables(dict(result))
    request, chosen = result["request"], result["chosen"]
    winner, trained = result[chosen]["winner"], result["trained"][chosen]
    space = plugins.load("spaces", request["space"])()
    lines = [f"{_target(request)}: {result['photos']['source']}", ""]
    if isinstance(space, Drawable):
        drawing = space.draw(Architecture(request["space"], tuple(winner["genes"])))
        lines += [f"  {line}" for line in drawing.splitlines()] + [""]
    lines += [f"  {winner['arch_str']}", ""]
    rows = [[f"  {name}", show(cost["value"], name), cost["source"]] for name, cost in winner["costs"].items()]
    again = winner.get("measured_again")
    if again is not None:
        rows += [
            [f"  {name}", show(value, name), f"again: {again['source']}"] for name, value in again["values"].items()
        ]
    for report in result["done"]["package"].get("deployed", []):
        found = report["latency"]
        if found["median_ms"] is not None:
            on = f"the package on board {report['board']['name']}, measured anew: {found['verdict']}"
            if report.get("searched"):
                on += f"; {searched_words(report['searched'])}"
            rows.append(["  latency", show(found["median_ms"], "latency"), on])
    images = f"of {trained['test_images']:,} test photos, after {trained['epochs']} epochs"
    rows.append(["  accuracy", f"{trained['test_accuracy']:.2f} %", images])
    for model in result["models"]:
        of = f"of {model['checked']['images']:,}, {model['file']}, {model['bytes'] / 1024:.0f} KiB"
        rows.append([f"  {model['format']}", f"{100 * model['checked']['accuracy']:.2f} %", of])
    lines += [table_text(rows[0], rows[1:]), "", f"  {_worth(result)}"]
    ended = time_words(result["search"])
    lines += [f"  note: {note}" for note in [*result["notes"], *([f"search: {ended}"] if ended else [])]]
    return "\n".join(
        [
            *lines,
            f"  {_duration(result['seconds'])}; what the search says: edgenas runs show {result['run']}/{chosen}",
            f"  package {result['output']}; bring it to a board: edgenas deploy {result['output']} --board BOARD",
        ]
    )


def _photos_lines(photos: Mapping[str, Any]) -> list[str]:
    counts, size = photos["images"], photos["size"]
    smallest, largest = (" x ".join(map(str, size[name])) for name in ("smallest", "largest"))
    parts = ", ".join(f"{counts[name]:,} {word}" for name, word in _PARTS.items() if counts[name])
    lines = [f"{len(photos['classes'])} classes, {parts}; {smallest} to {largest} pixels"]
    lines += [
        f"not used: {each['why']}: {', '.join(each['names'][:5]) or each['count']}" for each in photos["not_used"]
    ]
    return [*lines, *photos["notes"]]


def _shortened(command: str) -> str:
    """`command` with the first only of many architectures that it includes."""
    others = _INCLUDED.findall(command)[1:]
    return command.replace(" ".join(others), f"... ({len(others)} more)") if others else command


def _worth(result: Mapping[str, Any]) -> str:
    """What the search was worth."""
    stock, search = result["done"]["stock"], result["done"]["search"]
    if not stock["is_stock"]:
        return "no stock network keeps the limits, at any resolution"
    side = stock["arch_str"].partition("|")[0].removeprefix("r")
    if stock["arch_str"] == search["arch_str"]:
        return f"the search found nothing better than the stock network at {side} pixels, which is packaged"
    if not result["done"].get("baseline", {}).get("epochs"):
        return f"not compared with the stock network, at {side} pixels, trained as long; --baseline does that"
    ours, theirs = (result["trained"][name]["test_accuracy"] for name in ("search", "stock"))
    costs = ", ".join(show(cost["value"], name) for name, cost in result["stock"]["winner"]["costs"].items())
    packaged = {"search": "the winner of the search", "stock": "the stock network"}[result["chosen"]]
    return (
        f"the stock network at {side} pixels ({costs}), trained as long: {theirs:.2f} %, so the search was worth"
        f" {ours - theirs:+.2f} points; {packaged} is packaged, by the photos held out for validation"
    )


def _target(request: Mapping[str, Any]) -> str:
    limits = [f"{LIMITS[name]} <= {typed_limit(request[name], LIMITS[name])}" for name in LIMITS if request[name]]
    return f"{request['device']}, {', '.join(limits)}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

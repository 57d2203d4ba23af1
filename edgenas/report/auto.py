"""What `edgenas auto` will do, and what came of it on one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgenas import plugins
from edgenas.architecture import LIMITS, Architecture, Drawable
from edgenas.report.text import table_text
from edgenas.text import printables
from edgenas.units import show

_FORMATS = {"onnx": "ONNX", "tflite": "TFLite", "tflite-f16": "float16", "tflite-int8": "int8"}


def plan_text(plan: Mapping[str, Any]) -> str:
    """What there is, and a line a step with the time it may take and the command that does it by itself."""
    plan = printables(dict(plan))
    request, data = plan["request"], plan["data"]
    total = sum(each["seconds"] for each in plan["steps"])
    lines = [
        f"{data['classes']} classes: {data['train']:,} photos to train on, {data['test']:,} to test on",
        f"{request['device']}, {_limits(request)}; about {_minutes(total)}, the package in {plan['output']}",
        "",
    ]
    for number, step in enumerate(plan["steps"], 1):
        done = "done" if step["name"] in plan["done"] else _minutes(step["seconds"])
        lines += [
            f"  {number}  {step['name']:<10}{done:>8}  {step['what']}",
            f"                        {step['command']}",
        ]
    return "\n".join(lines)


def answer_text(result: Mapping[str, Any]) -> str:
    """The answer on one page."""
    result = printables(dict(result))
    chosen, request = result["chosen"], result["request"]
    winner = result[chosen]["winner"]
    trained = result["trained"][chosen]
    space = plugins.load("spaces", request["space"])()
    lines = [f"{request['device']}, {_limits(request)}: {trained['dataset']}", ""]
    if isinstance(space, Drawable):
        drawing = space.draw(Architecture(request["space"], tuple(winner["genes"])))
        lines += [f"  {line}" for line in drawing.splitlines()] + [""]
    lines += [f"  {winner['arch_str']}", ""]
    rows = []
    for metric, cost in winner["costs"].items():
        rows.append([f"  {metric}", show(cost["value"], metric), cost["source"]])
    again = winner.get("measured_again")
    if again is not None:
        rows += [
            [f"  {name}", show(value, name), f"{again['verdict']}, {again['source']}"]
            for name, value in again["values"].items()
        ]
    rows.append(
        [
            "  accuracy",
            f"{trained['test_accuracy']:.2f} %",
            f"of {trained['test_images']:,} test photos, after {trained['epochs']} epochs",
        ]
    )
    for model in result["models"]:
        checked = model["checked"]
        of = f"{model['file']}, {model['bytes'] / 1024:.0f} KiB"
        rows.append([f"  {_FORMATS.get(model['format'], model['format'])}", f"{100 * checked['accuracy']:.2f} %", of])
    lines += [table_text(rows[0], rows[1:]), "", *_worth(result)]
    lines += [f"  note: {note}" for note in result["notes"]]
    lines += [
        f"  {_minutes(result['seconds'])}; job {result['run']}",
        f"  package {result['output']}; bring it to a board: edgenas deploy {result['output']} --board BOARD",
    ]
    return "\n".join(lines)


def _worth(result: Mapping[str, Any]) -> list[str]:
    """What the search was worth."""
    stock, search = result["done"]["stock"], result["done"]["search"]
    if not stock["is_stock"]:
        return ["  no stock network keeps the limits"]
    if stock["arch_str"] == search["arch_str"]:
        return ["  the search came to the stock network: nothing better was found within the limits"]
    if not result["done"].get("baseline", {}).get("epochs"):
        return ["  not compared with the stock network trained as long; --baseline does that"]
    ours, theirs = (result["trained"][name] for name in ("search", "stock"))
    gained = ours["test_accuracy"] - theirs["test_accuracy"]
    costs = ", ".join(show(cost["value"], metric) for metric, cost in result["stock"]["winner"]["costs"].items())
    which_stock = f"stock network {stock['arch_str'].partition('|')[0]} ({costs})"
    line = f"  {which_stock}: {theirs['test_accuracy']:.2f} %, trained as long"
    which = "the winner of the search" if result["chosen"] == "search" else "the stock network"
    return [f"{line}; the search was worth {gained:+.2f} points, and {which} is packaged, by the photos held out"]


def _limits(request: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{LIMITS[name]} <= {show(request[name], LIMITS[name])}" for name in LIMITS if request[name] is not None
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

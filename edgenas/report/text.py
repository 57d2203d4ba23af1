"""Results and devices as a person reads them. Everything shown comes from the JSON that a program would read."""

from __future__ import annotations

from typing import Any

from edgenas import device as devices
from edgenas import plugins
from edgenas.device import Device
from edgenas.units import show

_PHI = ("table", "live")  # fitnesses whose scores are phi of Eq. 2


def table_text(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned left, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def constraints_text(result: dict[str, Any]) -> str:
    """Like "latency <= 5 ms, macs <= 60 M"."""
    return ", ".join(f"{each['metric']} <= {show(each['limit'], each['metric'])}" for each in result["constraints"])


def score_label(requests: list[dict[str, Any]]) -> str:
    """What the scores of runs so requested are called: "phi" (Eq. 2) where they all are that, else "score"."""
    return "phi" if all(each.get("fitness") in _PHI for each in requests) else "score"


def result_text(result: dict[str, Any], header: dict[str, Any]) -> str:
    """A feasible search's `result` (its --json object), with what `header`, the run's, says of its sources."""
    winner = result["winner"]
    space = plugins.load("spaces", result["space"])()
    limits = {each["metric"]: each["limit"] for each in result["constraints"]}
    lines = [f"{result['device']}, {result['dataset']}: {constraints_text(result)}", ""]
    if hasattr(space, "draw"):
        from edgenas.architecture import Architecture

        drawing = space.draw(Architecture(result["space"], tuple(winner["genes"])))
        lines += [f"  {line}" for line in drawing.splitlines()] + [""]
    number = "" if winner["arch_idx"] is None else f"   (number {winner['arch_idx']})"
    lines += [f"  {winner['arch_str']}{number}", ""]

    rows = []
    for metric, price in winner["costs"].items():
        value = show(price["value"], metric)
        limit = f"of {show(limits[metric], metric)}" if metric in limits else ""
        rows.append([f"  {metric}", value, limit, price["source"]])
    rows.append([f"  {score_label([header['request']])}", f"{winner['phi']:.4f}", "", header["fitness_source"]])
    again = winner.get("measured_again")
    if again is not None:
        for metric, value in again["values"].items():
            rows.append([f"  {metric}", show(value, metric), again["verdict"], f"again: {again['source']}"])
    if winner["test_accuracy"] is not None:
        best = result["best_possible_accuracy"]
        of, which = ("", "") if best is None else (f"of {best:.2f} %", "; the best possible at these costs")
        rows.append(["  accuracy", f"{winner['test_accuracy']:.2f} %", of, f"NAS-Bench-201, test{which}"])
    body = table_text(rows[0], rows[1:])
    counts = result["evaluations"]
    lines += [
        body,
        *(
            []
            if winner["test_accuracy"] is not None
            else ["  accuracy is not known here: edgenas data import nasbench201 FILE"]
        ),
        "",
        f"  {counts['distinct']} cells judged, {counts['trained']} classes scored, {result['seconds']:.2f} s;"
        f" run {result['run']}",
    ]
    return "\n".join(lines)


def device_facts() -> list[dict[str, Any]]:
    return [device_fact(devices.load(name)) for name in devices.names()]


def device_fact(device: Device) -> dict[str, Any]:
    """What `devices show --json` prints."""
    return {
        "name": device.name,
        "title": device.title,
        "description": device.description,
        "kind": device.kind,
        "runtime": device.runtime,
        "model_format": device.model_format,
        "identity": {key: getattr(device.identity, key) for key in ("soc", "compute", "memory", "software")},
        "metrics": sorted(device.metrics | {"macs", "params"}),
        "predictor": {
            metric: {
                "fitted_on": predictor.fitted_on,
                "held_out_spearman": predictor.held_out_spearman,
                "held_out_within_10_percent": predictor.held_out_within_10_percent,
            }
            for metric, predictor in device.predictor.items()
        },
        "profile": str(device.path),
        "profile_sha256": device.sha256,
    }


def devices_text(facts: list[dict[str, Any]]) -> str:
    rows = [
        [fact["name"], fact["title"], fact["kind"], ", ".join(fact["metrics"]), fact["model_format"]] for fact in facts
    ]
    return table_text(["NAME", "DEVICE", "KIND", "LIMITS", "MODEL"], rows)


def device_text(fact: dict[str, Any]) -> str:
    rows = [
        ["name", fact["name"]],
        ["device", fact["title"]],
        ["kind", fact["kind"]],
        *[[key, value] for key, value in fact["identity"].items()],
        ["runtime", fact["runtime"]],
        ["model", fact["model_format"]],
        ["limits", ", ".join(fact["metrics"])],
    ]
    for metric, predictor in fact["predictor"].items():
        share = predictor["held_out_within_10_percent"]
        rows.append(
            [
                f"{metric} predictor",
                f"fitted on {predictor['fitted_on']}; on cells held out: Spearman"
                f" {predictor['held_out_spearman']:.3f}, {share:.0%} within 10 %",
            ]
        )
    rows += [["profile", fact["profile"]]]
    return table_text(rows[0], rows[1:]) + f"\n\n{fact['description']}"

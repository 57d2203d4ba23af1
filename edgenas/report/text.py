"""Results and devices as a person reads them. Everything shown comes from the JSON that a program would read, its texts
made printable first: they may be from another's run or profile."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from edgenas import device as devices
from edgenas import plugins
from edgenas.architecture import Drawable, TabularBenchmark
from edgenas.device import Device
from edgenas.run import PHI
from edgenas.text import printable, printables
from edgenas.units import COUNTED, METRICS, cost_name, device_of, show, words

MAX_POINTS = 20  # of a front that a person is shown


def csv_content(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as CSV; what is None is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def table_text(header: list[str], rows: list[list[str]]) -> str:
    """Columns aligned left, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def constraints_text(result: dict[str, Any]) -> str:
    """Like "latency <= 5 ms, macs <= 60 M"."""
    return ", ".join(
        limit_text(cost_name(each["metric"], each.get("device")), each["limit"]) for each in result["constraints"]
    )


def limit_text(cost: str, limit: float) -> str:
    """Like "latency on raspi4 <= 5 ms"."""
    return f"{words(cost)} <= {show(limit, cost)}"


def score_label(requests: list[dict[str, Any]]) -> str:
    """What the scores of runs so requested are called: "phi" (Eq. 2) where they all are that, else "score"."""
    return "phi" if all(each.get("fitness") in PHI for each in requests) else "score"


def result_text(result: dict[str, Any], header: dict[str, Any]) -> str:
    """A feasible search's `result` (its --json object), with what `header`, the run's, says of its sources."""
    result, header = printables(result), printables(header)
    if result.get("front"):
        return _front_text(result, header)
    winner = result["winner"]
    space, benchmark = plugins.load("spaces", result["space"])(), plugins.benchmark_of(result["space"])
    limits = {cost_name(each["metric"], each.get("device")): each["limit"] for each in result["constraints"]}
    lines = [f"{result['device']}, {printable(result['dataset'])}: {constraints_text(result)}", ""]
    if isinstance(space, Drawable):
        from edgenas.architecture import Architecture

        drawing = space.draw(Architecture(result["space"], tuple(winner["genes"])))
        lines += [f"  {line}" for line in drawing.splitlines()] + [""]
    number = "" if winner["arch_idx"] is None else f"   (number {winner['arch_idx']})"
    lines += [f"  {winner['arch_str']}{number}", ""]

    rows = []
    for metric, cost in winner["costs"].items():
        value = show(cost["value"], metric)
        limit = f"of {show(limits[metric], metric)}" if metric in limits else ""
        rows.append([f"  {words(metric)}", value, limit, cost["source"] + _uncertainty_text(metric, cost)])
    label = score_label([header["request"]])
    rows.append([f"  {label}", f"{winner['score']:.4f}", "", header["fitness_source"]])
    if label != "phi" and winner["phi"] is not None:
        steps = header["fitness_settings"]["epochs"]
        rows.append(["  phi", f"{winner['phi']:.4f}", "", f"Eq. 2 alone, after {steps} steps"])
    again = winner.get("measured_again")
    if again is not None:
        for place, (metric, value) in enumerate(again["values"].items()):
            source = f"again: {again['source']}" if place == 0 or device_of(metric) is None else "again"
            rows.append([f"  {words(metric)}", show(value, metric), again["verdict"], source])
    refined = winner.get("refined")
    if refined is not None:
        images = f"{refined['val_images']:,} images held out, after {refined['images_seen']:,} images of training"
        images = f"as {refined['deployed']}, {images}" if "deployed" in refined else images
        rows.append(["  validation", accuracy_text(refined), "", images + _ahead(refined["runner_up"])])
    if winner["test_accuracy"] is not None:
        best = result["best_possible_accuracy"]
        of, which = ("", "") if best is None else (f"of {best:.2f} %", "; the best possible at these costs")
        source = "" if benchmark is None else f"{benchmark.title}, "
        rows.append(["  accuracy", f"{winner['test_accuracy']:.2f} %", of, f"{source}test{which}"])
    body = table_text(rows[0], rows[1:])
    counts = result["evaluations"]
    lines += [
        body,
        *_unknown_accuracy_lines(benchmark, winner, result["dataset"]),
        "",
        *_refinement_lines(result),
        *_compromise_lines(result, label),
        *_time_lines(result),
        f"  {counts['distinct']} architectures evaluated, {counts['scored']} unique ones scored,"
        f" {result['seconds']:.2f} s; run {result['run']}",
    ]
    return "\n".join(lines)


def _compromise_lines(result: dict[str, Any], label: str) -> list[str]:
    """What one network for several devices comes to beside one for each, or the commands that tell."""
    found = result.get("compromise")
    if found is None:
        return []
    searched = [each for each in found["alone"] if each["searched"]]
    lines = []
    if searched:
        unrefined = "" if result["refinement"] is None else ", before any is refined"
        known = [name for name in _KNOWN_OF_ALONE if found[name] is not None]
        rows = [["all", _score(found), *_percents(found, known), ""]]
        rows += [
            [f"{each['device']} alone", _score(each), *_percents(each, known), _gain(each, found)] for each in searched
        ]
        table = table_text(["FOR", label.upper(), *(_KNOWN_OF_ALONE[name] for name in known), ""], rows)
        lines += [f"  one network for all devices, beside one for each{unrefined}:"]
        lines += [f"    {line}" for line in table.splitlines()]
    if len(searched) < len(found["alone"]):
        lines += ["  what one network for each would come to:"]
        lines += [f"    {each['command']}" for each in found["alone"] if not each["searched"]]
    return [*lines, ""]


_KNOWN_OF_ALONE = {"test_accuracy": "ACCURACY", "best_possible_accuracy": "BEST POSSIBLE"}  # where a benchmark has them


def _score(found: dict[str, Any]) -> str:
    return "-" if found["score"] is None else f"{found['score']:.4f}"


def _percents(found: dict[str, Any], names: list[str]) -> list[str]:
    return ["-" if found[name] is None else f"{found[name]:.2f} %" for name in names]


def _gain(alone: dict[str, Any], everywhere: dict[str, Any]) -> str:
    """What the network for one device has ahead of that for all of them, which keeps the limits of that one too."""
    if alone["score"] is None or alone["score"] < everywhere["score"]:
        return "found nothing better"
    if None in (alone["test_accuracy"], everywhere["test_accuracy"]):
        return f"{alone['score'] - everywhere['score']:+.4f}"
    return f"{alone['test_accuracy'] - everywhere['test_accuracy']:+.2f} points"


def _unknown_accuracy_lines(benchmark: TabularBenchmark | None, winner: dict[str, Any], dataset: str) -> list[str]:
    """What to import for the winner's accuracy, where that would tell it."""
    if winner["test_accuracy"] is not None or benchmark is None or dataset not in benchmark.datasets:
        return []
    return [f"  accuracy is not known here: edgenas data import {benchmark.accuracy_file} FILE"]


def _uncertainty_text(metric: str, cost: dict[str, Any]) -> str:
    """What is known of how far the cost may be off, like "; 4.2 to 5.3 ms with 95 %, 11 % chance to be over"."""
    said = f"; the table's own value is {show(cost['raw'], metric)}" if "raw" in cost else ""
    if "interval" not in cost:
        return said
    low, high = cost["interval"]
    said += f"; {show(low, metric)} to {show(high, metric)} with 95 % probability"
    chance = cost["chance_over_limit"]
    if chance is None:
        return said
    shown = "under 1 %" if chance < 0.01 else f"{chance:.0%}".replace("%", " %")
    return f"{said}, {shown} chance to be over the limit"


def accuracy_text(refined: dict[str, Any]) -> str:
    """The validation accuracy of what was refined, like "84.10 ± 0.58 %"."""
    return f"{refined['val_accuracy']:.2f} ± {refined['standard_error']:.2f} %"


def _ahead(runner_up: dict[str, Any] | None) -> str:
    if runner_up is None:
        return ""
    ahead, error = runner_up["ahead"], runner_up["ahead_standard_error"]
    where = "ahead of" if ahead >= 0 else "behind"
    return f"; {abs(ahead):.2f} ± {error:.2f} points {where} the runner-up"


def _refinement_lines(result: dict[str, Any]) -> list[str]:
    """What was done to refine a shortlist, where that was asked for."""
    done = result.get("refinement")
    if done is None:
        return []
    if done["skipped"] is not None:
        return [f"  not refined: {done['skipped']}"]
    failed = sum(each["error"] is not None for each in done["architectures"])
    but = f", {failed} of which failed" if failed else ""
    return [
        f"  refined: {len(done['architectures'])} architectures{but}, {done['images_seen']:,} images in"
        f" {done['seconds']:.0f} s of training by {done['hardware']}; {done['source']}"
    ]


def _time_lines(result: dict[str, Any]) -> list[str]:
    said = time_words(result)
    return [] if said is None else [f"  {said}"]


def time_words(result: dict[str, Any]) -> str | None:
    """What the time that a search had cut short, where it did; None where it did not."""
    time = result.get("time")
    if time is None or not time["cut"]:
        return None
    what = {"search": "the search, as if its budget were spent", "refinement": "the refinement, with fewer or less"}
    ended = " and ".join(what[each] for each in time["cut"])
    return f"time: {time['limit_s'] / 60:.3g} min were given, {time['spent_s'] / 60:.3g} are spent; they ended {ended}"


def _front_text(result: dict[str, Any], header: dict[str, Any]) -> str:
    """As `result_text`, of a search for a front; of a long one MAX_POINTS points, from end to end,
    and those that were refined."""
    metric, front = result["pareto"], result["front"]
    label = score_label([header["request"]])
    within = f", {constraints_text(result)}" if result["constraints"] else ""
    last = len(front) - 1
    evenly = {round(i * last / (MAX_POINTS - 1)) for i in range(MAX_POINTS)}
    shown = sorted(evenly | {i for i in range(last) if front[i].get("refined")}) if last >= MAX_POINTS else None
    points = front if shown is None else [front[i] for i in shown]
    limited = (cost_name(each["metric"], each.get("device")) for each in result["constraints"])
    metrics = [metric, *(each for each in limited if each != metric)]
    known = front[0]["test_accuracy"] is not None
    refined = any(point.get("refined") for point in points)
    rows = [
        [
            *(show(point["costs"][name]["value"], name) for name in metrics),
            f"{point['score']:.4f}",
            *([accuracy_text(point["refined"]) if point.get("refined") else "-"] if refined else []),
            *([f"{point['test_accuracy']:.2f} %"] if known else []),
            point["arch_str"],
        ]
        for point in points
    ]
    titles = [f"  {metric.upper()}", *(words(name).upper() for name in metrics[1:]), label.upper()]
    titles += [*(["VALIDATION"] if refined else []), *(["ACCURACY"] if known else []), "ARCHITECTURE"]
    table = table_text(titles, [[f"  {row[0]}", *row[1:]] for row in rows])
    dataset = printable(result["dataset"])
    lines = [f"{result['device']}, {dataset}: front of {label} against {metric}{within}", "", table]
    if shown is not None:
        lines += [
            f"  and {len(front) - len(points)} more between these; all {len(front)}: edgenas runs show"
            f" {result['run']} --json"
        ]
    counts = result["evaluations"]
    lines += [
        "",
        f"  {metric}: {front[0]['costs'][metric]['source']}",
        f"  {label}: {header['fitness_source']}",
        "",
        *_refinement_lines(result),
        *_time_lines(result),
        f"  {counts['distinct']} architectures evaluated, {counts['scored']} unique ones scored,"
        f" {result['seconds']:.2f} s; run {result['run']}",
        f"  the best within a limit: edgenas runs pick {result['run']} --{metric} {METRICS[metric].example}",
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
        "metrics": sorted(device.metrics | COUNTED),
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
        [fact["name"], fact["title"], fact["kind"], ", ".join(fact["metrics"]), fact["model_format"]]
        for fact in printables(facts)
    ]
    return table_text(["NAME", "DEVICE", "KIND", "LIMITS", "MODEL"], rows)


def device_text(fact: dict[str, Any]) -> str:
    fact = printables(fact)
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
                f"fitted on {predictor['fitted_on']}; on architectures held out: Spearman"
                f" {predictor['held_out_spearman']:.3f}, {share:.0%} within 10 %",
            ]
        )
    rows += [["profile", fact["profile"]]]
    return table_text(rows[0], rows[1:]) + f"\n\n{fact['description']}"

"""What runs were asked and what they found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenas.architecture import LIMITS, constraints_of
from edgenas.errors import EdgeNASError
from edgenas.report.classes import weakest_text
from edgenas.report.text import constraints_text, limit_text, result_text, score_label, table_text
from edgenas.run import Run, folders, open_run
from edgenas.text import printable, printables
from edgenas.units import METRICS, show, words


@dataclass(frozen=True)
class RunReport:
    """What there is to say of one run: its `summary`, and what its run.json holds."""

    facts: dict[str, Any]
    header: dict[str, Any]


def run_report(name: str) -> RunReport:
    """Of the run called `name`, or in the folder `name`. Raises as edgenas.run.open_run does."""
    run = open_run(name)
    return RunReport(summary(run), run.header)


def summary(run: Run) -> dict[str, Any]:
    """A run as JSON: `state` is "finished", "infeasible", or "unfinished" (then `result` is None)."""
    result = run.result()
    state = "unfinished" if result is None else "finished" if result["feasible"] else "infeasible"
    return {
        "run": str(run.path),
        "state": state,
        "created": run.header["created"],
        "request": run.header["request"],
        "trials": len(run.trials()),
        "result": result,
    }


def summaries() -> list[dict[str, Any]]:
    """Every run in ./runs, oldest first; at the end those that cannot be read, in the state "damaged", each with the
    `problem` in a sentence."""
    found: list[dict[str, Any]] = []
    damaged: list[dict[str, Any]] = []
    for path in folders():
        try:
            found.append(summary(open_run(str(path))))
        except EdgeNASError as error:
            nothing = dict.fromkeys(("created", "request", "trials", "result"))
            damaged.append({"run": str(path), "state": "damaged", **nothing, "problem": str(error)})
    return sorted(found, key=lambda each: (each["created"], each["run"])) + damaged


def comparison(names: list[str]) -> dict[str, Any]:
    """The runs' summaries, and under `differences` the settings in which they are not all alike."""
    compared = [summary(open_run(name)) for name in names]
    differences = {
        key: [each["request"].get(key) for each in compared]
        for key in compared[0]["request"]
        if len({repr(each["request"].get(key)) for each in compared}) > 1
    }
    return {"runs": compared, "differences": differences}


def runs_text(found: list[dict[str, Any]]) -> str:
    """A line a run, those that cannot be read last, with the reason."""
    found = printables(found)
    if not found:
        return "no runs in ./runs yet; start one: edgenas search --device raspi4 --latency 5ms"
    whole = [each for each in found if "problem" not in each]
    label = score_label([each["request"] for each in whole])
    header = ["RUN", "STATE", "LIMITS", label.upper(), "ACCURACY", "TRIALS"]
    table = [table_text(header, [_row(each) for each in whole])] if whole else []
    return "\n".join([*table, *(f"{each['run']}  damaged: {each['problem']}" for each in found if "problem" in each)])


def compare_text(compared: dict[str, Any]) -> str:
    """Runs side by side, one a column."""
    compared = printables(compared)
    columns = compared["runs"]
    rows = [[_label(key), *map(_setting(key), values)] for key, values in compared["differences"].items()]
    rows.append(["state", *(each["state"] for each in columns)])
    winners = [(each["result"] or {}).get("winner") for each in columns]
    rows.append(["architecture", *(winner["arch_str"] if winner else "-" for winner in winners)])
    for metric in dict.fromkeys([*METRICS, *(name for winner in winners if winner for name in winner["costs"])]):
        costs = [(winner or {}).get("costs", {}).get(metric) for winner in winners]
        if any(costs):
            rows.append([words(metric), *(show(cost["value"], metric) if cost else "-" for cost in costs)])
    label = score_label([each["request"] for each in columns])
    for name, key in {label: "score", "phi": "phi"}.items():
        values = [winner and winner[key] for winner in winners]
        if any(value is not None for value in values):
            rows.append([name, *("-" if value is None else f"{value:.4f}" for value in values)])
    accuracies = [winner and winner["test_accuracy"] for winner in winners]
    rows.append(["accuracy", *(f"{accuracy:.2f} %" if accuracy else "-" for accuracy in accuracies)])
    rows.append(
        [
            "architectures scored",
            *(str((each["result"] or {}).get("evaluations", {}).get("scored", "-")) for each in columns),
        ]
    )
    return table_text(["", *(each["run"] for each in columns)], rows)


def run_text(report: RunReport) -> str:
    facts = printables(report.facts)
    result, path = facts["result"], facts["run"]
    if result is not None and result["feasible"]:
        return result_text(result, report.header)
    if result is not None:
        return f"{path}: {result['device']}, {constraints_text(result)}: infeasible"
    return f"{path}: unfinished after {facts['trials']} trials; go on with: edgenas search --resume {path}"


def _row(each: dict[str, Any]) -> list[str]:
    result = each["result"]
    request = each["request"]
    limits = ", ".join(
        [
            *([f"front against {request['pareto']}"] if request.get("pareto") else []),
            *(limit_text(each.cost, each.limit) for each in constraints_of(request)),
        ]
    )
    winner = result and result["winner"]
    accuracy = winner and winner["test_accuracy"]
    return [
        each["run"],
        each["state"],
        f"{request['device']}, {limits}",
        f"{winner['score']:.4f}" if winner else "-",
        f"{accuracy:.2f} %" if accuracy else "-",
        str(each["trials"]),
    ]


def _label(key: str) -> str:
    return LIMITS.get(key, key).replace("_", " ")


def _setting(key: str) -> Any:
    def text(value: Any) -> str:
        if value is None:
            return "-"
        if isinstance(value, dict) and key in LIMITS:
            return ", ".join(f"{device} {show(each, LIMITS[key])}" for device, each in value.items())
        return show(value, LIMITS[key]) if key in LIMITS else printable(value)

    return text


def trained_text(result: Mapping[str, Any], folder: Path) -> str:
    """What `edgenas train` prints, from its --json object; `folder` has the weights."""
    result = printables(dict(result))
    untested = ", ".join(result.get("untested_classes", [])[:10])
    but = f" (none is of {untested})" if untested else ""
    weakest = weakest_text(result)
    return (
        f"{result['arch_str']}\n{result['test_accuracy']:.2f} % of {result['test_images']} test images of"
        f" {result['dataset']} are right{but}, after {result['epochs']} epochs, {result['seconds']:.0f} s;"
        f" weights in {folder / 'model.pt'}{weakest and chr(10)}{weakest}"
    )

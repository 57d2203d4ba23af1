"""A compact view of what is watched, for a terminal: where the search stands, the best so far, what boards say."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edgenas.report.fields import count, number
from edgenas.report.live.watched import Look, Watched
from edgenas.report.page.costs import called, limits_of
from edgenas.report.page.networks import described
from edgenas.report.subjects import Subject
from edgenas.report.text import limit_text, score_label, table_text
from edgenas.text import printable, printable_lines
from edgenas.units import show

REFRESH_S = 1.0
MAX_SHOWN = 100_000  # characters
MAX_LINES = 6  # of candidates, of measurements
_MAX_ARCH = 72  # characters of an architecture


def follow(watched: Watched, until_end: bool) -> None:
    """Show `watched` until Ctrl-C or, where `until_end`, its end: in place where this is a terminal, else anew where it
    has changed."""
    if not sys.stdout.isatty():
        shown = -1
        while True:
            look = watched.look()
            if look.number != shown:
                print(view(look), flush=True)
                shown = look.number
            if until_end and look.ended:
                return
            time.sleep(REFRESH_S)
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    own: Any = {"redirect_stdout": False, "redirect_stderr": False}
    with Live(console=Console(file=sys.stdout), auto_refresh=False, vertical_overflow="crop", **own) as live:
        while True:
            look = watched.look()
            live.update(Text(view(look), no_wrap=True, overflow="ellipsis"), refresh=True)
            if until_end and look.ended:
                return
            time.sleep(REFRESH_S)


def view(look: Look) -> str:
    """All of it as text."""
    blocks = ["\n".join(_lines(subject)) for subject in look.subjects]
    if look.problem:
        blocks.append(f"as of {look.at}, not to be read: {look.problem}")
    else:
        blocks.append(f"{'ended' if look.ended else 'going on'}, as of {look.at}")
    return printable_lines("\n\n".join(blocks), MAX_SHOWN)


def _lines(subject: Subject) -> list[str]:
    if subject.kind == "search":
        return [*_search_lines(subject), *_training_lines(subject)]
    return [subject.name, *_training_lines(subject)]


def _search_lines(subject: Subject) -> list[str]:
    request = subject.header["request"]
    asked = [limit_text(cost, limit) for cost, limit in limits_of(request).items()]
    asked += [f"front against {request['pareto']}"] if request.get("pareto") else []
    scored = [each for each in subject.trials if each["score"] is not None and each["cost_error"] is None]
    within = [each for each in scored if each["feasible"]]
    state = "unfinished" if subject.result is None else "ended"
    lines = [
        f"{subject.name}: {request['device']}, {request['dataset']}: {', '.join(asked)}",
        f"  {state}: {len(subject.trials):,} candidates, {len(within):,} of {len(scored):,} within the limits"
        + (f", generation {subject.trials[-1]['generation'] + 1}" if subject.trials else ""),
    ]
    failed = [each for each in subject.trials if each["score_error"] or each["cost_error"]]
    if failed:
        last = failed[-1]["score_error"] or failed[-1]["cost_error"]
        lines.append(f"  {len(failed):,} could not be evaluated, the last: {printable(last, 100)}")
    best = front(within, request["pareto"]) if request.get("pareto") else leaders(within)
    if best:
        label = score_label([request])
        metrics = list(best[0]["costs"])
        rows = [
            [
                f"  {each['score']:.4f}",
                *(show(each["costs"][name]["value"], name) if name in each["costs"] else "-" for name in metrics),
                printable(described(request["space"], each["genes"]) or list(each["genes"]), _MAX_ARCH),
            ]
            for each in best
        ]
        kind = "front" if request.get("pareto") else "best"
        lines += ["", *table_text([f"  {label}, {kind}", *map(called, metrics), "architecture"], rows).splitlines()]
    return [*lines, *_board_lines(subject), *_refined_lines(subject)]


def leaders(within: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The best candidates, best first, each architecture once."""
    last = {tuple(each["genes"]): each for each in within}
    return sorted(last.values(), key=lambda each: (-each["score"], each["trial"]))[:MAX_LINES]


def front(within: Sequence[Mapping[str, Any]], metric: str) -> list[Mapping[str, Any]]:
    """Those that no other beats in both score and `metric`, from end to end, thinned to MAX_LINES."""
    known = [each for each in within if metric in each["costs"]]
    found: list[Mapping[str, Any]] = []
    for each in sorted(known, key=lambda each: (each["costs"][metric]["value"], -each["score"])):
        if not found or each["score"] > found[-1]["score"]:
            found.append(each)
    if len(found) <= MAX_LINES:
        return found
    return [found[round(place * (len(found) - 1) / (MAX_LINES - 1))] for place in range(MAX_LINES)]


def _board_lines(subject: Subject) -> list[str]:
    """What boards said last, of searches that ask them."""
    if not subject.measured:
        return []
    wrong = [each for each in subject.measured if each["cost_error"]]
    lines = ["", f"  boards: {len(subject.measured):,} architectures measured, {len(wrong):,} failed"]
    for each in subject.measured[-MAX_LINES // 2 :]:
        if each["cost_error"]:
            lines.append(f"    {printable(each['cost_error'], 100)}")
        lines += [
            f"    {show(cost['value'], name)}, {printable(cost['source'], 100)}" for name, cost in each["costs"].items()
        ]
    return lines


def _refined_lines(subject: Subject) -> list[str]:
    rungs = [rung for trained in subject.refined.values() for rung in trained]
    if not rungs:
        return []
    valid = [each.val_accuracy for each in rungs if each.error is None]
    best = f", best validation accuracy {max(valid):.2f} %" if valid else ""
    return ["", f"  refinement: {len(subject.refined)} architectures, {len(rungs)} brief trainings{best}"]


def _training_lines(subject: Subject) -> list[str]:
    accuracy = number(subject.training, "test_accuracy")
    if accuracy is not None:
        return [f"  trained: {accuracy:.2f} % of {count(subject.training, 'test_images') or '?'} test images"]
    if not subject.epochs:
        return []
    last = subject.epochs[-1]
    val = number(last, "val_accuracy")
    found = f", validation accuracy {val:.2f} %" if val is not None else ""
    return [f"  training: epoch {count(last, 'epoch') or len(subject.epochs)}{found}"]

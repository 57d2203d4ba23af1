"""What a search saw: its candidates, how it came to the winner, what networks are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgenas.report.page import networks
from edgenas.report.page.candidates import Candidates, candidates
from edgenas.report.page.charts import Drawings, axis, series, thinned
from edgenas.report.page.costs import in_order, titled
from edgenas.report.page.markup import Markup, element, joined, section
from edgenas.report.page.markup import table as html_table
from edgenas.report.subjects import Subject
from edgenas.report.text import score_label

MAX_COUNTED = 20_000  # candidates whose operations are counted
MAX_FRONT = 15  # networks of a front that are listed below its chart
_CHECKPOINTS = 200


def sections(subject: Subject, drawings: Drawings) -> list[Markup]:
    found = Candidates(subject)
    made = [
        _network(subject),
        candidates(subject, found, drawings),
        _front(subject),
        _convergence(subject, drawings),
        _operations(found),
    ]
    return [each for each in made if each is not None]


def _network(subject: Subject) -> Markup | None:
    winner = (subject.result or {}).get("winner")
    if winner is None:
        return None
    space = subject.header["request"]["space"]
    arch_str = networks.described(space, winner["genes"]) or winner["arch_str"]
    parts: list[Any] = [element("p", element("code", arch_str, class_="arch"))]
    drawing = networks.drawn(space, winner["genes"])
    if drawing is not None:
        parts.append(element("pre", drawing, class_="drawing", tabindex="0", aria_label="the network drawn as text"))
    else:
        parts.append(element("p", f"The space {space} does not draw its networks here.", class_="note"))
    return section("Network", *parts)


def _front(subject: Subject) -> Markup | None:
    """The networks of a front, from end to end."""
    front = (subject.result or {}).get("front")
    if not front:
        return None
    request = subject.header["request"]
    metrics = in_order(front[0]["costs"])
    metrics.sort(key=lambda metric: metric != request["pareto"])
    refined = any(point.get("refined") for point in front)
    known = any(point["test_accuracy"] is not None for point in front)
    rows = []
    for index in thinned(len(front), MAX_FRONT):
        point = front[index]
        arch_str = networks.described(request["space"], point["genes"]) or point["arch_str"]
        accuracy = point["refined"]["val_accuracy"] if point.get("refined") else None
        values = [point["costs"].get(metric, {}).get("value") for metric in metrics]
        more = [*([accuracy] if refined else []), *([point["test_accuracy"]] if known else [])]
        rows.append([*values, point["score"], *more, element("code", arch_str)])
    header = [titled(metric) for metric in metrics] + [score_label([request])]
    header += ["validation accuracy (%)"] * refined + ["test accuracy (%)"] * known + ["architecture"]
    shown = f"{len(rows)} of its {len(front)} networks" if len(rows) < len(front) else f"All {len(front)} networks"
    return section("Front", element("p", f"{shown}, from end to end."), html_table(header, rows, "The front"))


def _convergence(subject: Subject, drawings: Drawings) -> Markup | None:
    trials = [each for each in subject.trials if each["score"] is not None and each["cost_error"] is None]
    if len(trials) < 2:
        return None
    request = subject.header["request"]
    label = score_label([request])
    if request.get("pareto"):
        xs, ys = _areas(trials, request["pareto"])
        title, name = "Convergence: area under the front", "area, of the last one"
        sentence = "How much of the area under the final front was reached after so many candidates."
    else:
        xs, ys = _best(trials)
        title, name = f"Convergence: the best {label} within the limits", f"best {label}"
        sentence = "The best candidate so far that keeps the limits, by the number of candidates seen."
    if not xs:
        return section("Convergence", element("p", "No candidate keeps the limits yet.", class_="note"))
    xs, ys = [*xs, float(trials[-1]["trial"] + 1)], [*ys, ys[-1]]
    sentence += f" It last rose at candidate {xs[-2]:,.0f} of {xs[-1]:,.0f}."
    rows = [[int(x), y] for x, y in zip(xs, ys, strict=True)]
    chart = {
        "xs": [axis("candidates seen", zero=True)],
        "y": axis(name),
        "series": [series(name, "first", xs, ys, "steps")],
    }
    figure = drawings.figure(title, sentence, chart, html_table(["candidates seen", name], rows, title))
    return section("Convergence", figure)


def _best(trials: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    """Where the best score within the limits rose, and to what."""
    xs: list[float] = []
    ys: list[float] = []
    for each in trials:
        if each["feasible"] and (not ys or each["score"] > ys[-1]):
            xs.append(float(each["trial"] + 1))
            ys.append(each["score"])
    return xs, ys


def _areas(trials: Sequence[Mapping[str, Any]], metric: str) -> tuple[list[float], list[float]]:
    """The area that candidates within the limits dominate, from the worst score and the highest cost on, as a share of
    the last one; where it rose, of _CHECKPOINTS looks."""
    points = [
        (each["trial"], each["costs"][metric]["value"], each["score"])
        for each in trials
        if each["feasible"] and metric in each["costs"]
    ]
    if not points:
        return [], []
    most, least = max(cost for _, cost, _ in points), min(score for _, _, score in points)
    looks = set(thinned(len(points), _CHECKPOINTS))
    front: list[tuple[float, float]] = []
    xs: list[float] = []
    areas: list[float] = []
    for index, (number_, cost, score) in enumerate(points):
        if not any(c <= cost and s >= score for c, s in front):
            front = [(c, s) for c, s in front if not (cost <= c and score >= s)] + [(cost, score)]
        if index in looks:
            area, top = 0.0, least
            for c, s in sorted(front):
                area += (most - c) * (s - top)
                top = s
            if not areas or area > areas[-1]:
                xs.append(float(number_ + 1))
                areas.append(area)
    whole = areas[-1] or 1.0
    return xs, [area / whole for area in areas]


def _operations(found: Candidates) -> Markup | None:
    """What the winner, the shortlist and all candidates are made of, by shares."""
    space = found.space
    total = len(found.records)
    everyone = [tuple(found.records[i]["genes"]) for i in thinned(total, MAX_COUNTED)]
    groups: dict[str, Counter[str]] = {}
    if found.winner is not None:
        groups["winner"] = networks.operations(space, [found.winner])
    short = "front" if found.front else "shortlist"
    chosen = found.front or found.shortlist
    groups[f"{short} ({len(chosen)})"] = networks.operations(space, chosen)
    groups[f"all ({total:,})"] = networks.operations(space, everyone)
    groups = {name: each for name, each in groups.items() if each}
    if not groups:
        return None
    names = sorted(Counter(name for each in groups.values() for name in each))
    rows = [[name, *(_bar(each[name] / each.total()) for each in groups.values())] for name in names]
    *_, last = groups.values()
    apart = [
        f"{name} and all candidates differ by {networks.distance(each, last):.2f}"
        for name, each in list(groups.items())[:-1]
    ]
    sentence = (
        f"Shares of operations; {'; '.join(apart)} (half the sum of the differences: 0 alike, 1 nothing in common)."
    )
    sentence += f" Of all candidates {len(everyone):,} were counted, evenly." if len(everyone) < total else ""
    made = html_table(["operation", *groups], rows, "Operations, by share")
    return section("Operations", element("p", sentence), made)


def _bar(share: float) -> Markup:
    bar = element("span", class_="bar", style=f"--share:{100 * share:.1f}%", aria_hidden="true")
    return joined([element("span", f"{100 * share:.1f} %", class_="share"), " ", bar])


def refinement(subject: Subject, drawings: Drawings) -> Markup | None:
    """Validation accuracy against training images, an architecture a line."""
    curves = [rungs for rungs in subject.refined.values() if any(each.error is None for each in rungs)]
    if not curves:
        return None
    space = subject.header["request"]["space"]
    ranked = sorted(curves, key=lambda rungs: -max(each.val_accuracy for each in rungs if each.error is None))
    drawn, rows = [], []
    winner = (subject.result or {}).get("winner")
    for place, rungs in enumerate(ranked):
        valid = [each for each in rungs if each.error is None]
        arch_str = networks.described(space, rungs[0].arch.genes) or str(list(rungs[0].arch.genes))
        won = winner is not None and list(rungs[0].arch.genes) == winner["genes"]
        xs, ys = [float(each.images_seen) for each in valid], [each.val_accuracy for each in valid]
        role = "winner" if won else "within"
        drawn.append({**series(f"winner: {arch_str}" if won else arch_str, role, xs, ys, "line"), "signs": True})
        rows += [
            [
                place + 1,
                each.images_seen,
                each.val_accuracy,
                each.standard_error,
                each.seconds,
                "winner" if won else "",
                arch_str,
            ]
            for each in valid
        ]
    drawn.sort(key=lambda each: each["role"] == "winner")
    chart = {
        "xs": [axis("training images seen", zero=True)],
        "y": axis("validation accuracy (%)"),
        "series": drawn,
        "legend": [["winner", "winner"], ["within", "the others of the shortlist"]],
    }
    best = max(valid_.val_accuracy for rungs in curves for valid_ in rungs if valid_.error is None)
    sentence = (
        f"{len(curves)} architectures were trained briefly, the better half ever longer. The best reached {best:.2f} %"
        f" of {ranked[0][0].val_images:,} images held out."
    )
    header = ["rank", "images seen", "validation accuracy (%)", "standard error", "seconds", "what", "architecture"]
    title = "Refinement: validation accuracy against images seen"
    return section("Refinement", drawings.figure(title, sentence, chart, html_table(header, rows, title)))

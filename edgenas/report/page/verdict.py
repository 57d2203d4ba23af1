"""The first thing a page says: does it fit, how sure is that, how accurate is it, how large is it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgenas import plugins
from edgenas.board.statistics import wilson
from edgenas.report.fields import at, count, items, number, words
from edgenas.report.page import commands, comparisons
from edgenas.report.page.costs import amount, called, example, limited, limits_of
from edgenas.report.page.markup import Markup, badge, command, element, facts
from edgenas.report.page.measured import TONES, Card, deployment, measurement
from edgenas.report.subjects import Subject
from edgenas.report.text import accuracy_text, constraints_text

SURE = 0.05  # a chance of missing a limit up to this is called none


def card(subject: Subject, others: Sequence[Subject], identity: str, name: str) -> Markup:
    """The verdict on `subject`, called `name`; `others` are on the same page."""
    head, word, tone, rows = _OF[subject.kind](subject, others)
    return element(
        "article",
        element("h3", element("a", name, href=f"#{identity}")),
        element("p", badge(word, tone), " ", head, class_="headline"),
        facts(rows),
        class_=f"card {tone}",
    )


def _search(subject: Subject, others: Sequence[Subject]) -> Card:
    request, result = subject.header["request"], subject.result
    dataset, device = request["dataset"], request["device"]
    rows: list[tuple[str, Any]] = [("Asked", f"{device}, {dataset}, {request['space']}: {_asked(request, result)}")]
    if result is None:
        again = command(f"edgenas search --resume {subject.name}")
        sentence = f"The search has not ended: {len(subject.trials):,} candidates so far. Go on by:"
        return [sentence, again], "UNFINISHED", "neutral", rows
    if not result["feasible"]:
        return f"No candidate keeps {constraints_text(dict(result))}.", "NOTHING FITS", "bad", rows
    winner, front = result["winner"], result["front"]
    if front:
        metric = result["pareto"]
        low, high = (amount(point["costs"][metric]["value"], metric) for point in (front[0], front[-1]))
        head: Any = f"{len(front)} networks, each the best at its {called(metric)}: {low} to {high}."
        word, tone = "FRONT", "neutral"
        rows.append((f"{called(metric)} known from", front[0]["costs"][metric]["source"]))
        pick = commands.words_of("runs", "pick", subject.name, *example(metric))
        rows.append(("best within a limit", element("code", pick)))
    else:
        head, word, tone = _fits(subject, winner)
        rows += _costs(subject, winner)
        again = winner.get("measured_again")
        if again is not None:
            rows.append(("measured again", [badge(again["verdict"], TONES[again["verdict"]]), " ", again["source"]]))
        rows += _deployments(winner, others)
    rows += _accuracies(subject, winner)
    return head, word, tone, [*rows, *_files(subject.export)]


def _asked(request: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    limits = [f"{called(cost)} <= {amount(limit, cost)}" for cost, limit in limits_of(request).items()]
    front = [f"the front against {called(request['pareto'])}"] if request.get("pareto") else []
    return ", ".join([*front, *limits]) or "no limit"


def _fits(subject: Subject, winner: Mapping[str, Any]) -> tuple[str, str, str]:
    """The headline on a winner within limits, the word for it and its tone."""
    assert subject.result is not None
    again = winner.get("measured_again")
    limits = {limited(each): each["limit"] for each in subject.result["constraints"]}
    if again is not None and again["verdict"] != "PASS":
        word = again["verdict"]
        head = "A careful measurement is over the limit." if word == "FAIL" else "A careful measurement did not settle."
        return head, word, TONES[word]
    costs = winner["costs"]
    how = {cost: _how(subject, winner, cost) for cost in limits}
    sentence = "; ".join(
        f"{called(cost)} {amount(costs[cost]['value'], cost)} of {amount(limit, cost)}, {how[cost]}"
        for cost, limit in limits.items()
    )
    chances = [chance for cost in limits if (chance := costs[cost].get("chance_over_limit"))]
    chance = max(chances, default=0.0)
    if again is not None:
        return f"Measured with care, it keeps its limits: {sentence}.", "FITS", "good"
    if chance > SURE:
        missing = f"{100 * chance:.0f} %"
        return (
            f"It probably keeps its limits, and misses them with {missing} probability: {sentence}.",
            "LIKELY",
            "unsure",
        )
    if {"predicted", "looked up"} & set(how.values()):
        return f"It keeps its limits, not yet measured on your board: {sentence}.", "EXPECTED", "good"
    return f"It keeps its limits: {sentence}.", "FITS", "good"


def _how(subject: Subject, winner: Mapping[str, Any], metric: str) -> str:
    """How a cost is known: counted, measured, looked up or predicted."""
    cost = winner["costs"][metric]
    if cost["source"] == "counted":
        return "counted"
    measured = {tuple(each["genes"]) for each in subject.measured}
    if "measured" in cost["source"] or tuple(winner["genes"]) in measured:
        return "measured"
    return "looked up" if subject.header["request"]["cost"].startswith("table") else "predicted"


def _costs(subject: Subject, winner: Mapping[str, Any]) -> list[tuple[str, Any]]:
    assert subject.result is not None
    limits = {limited(each): each["limit"] for each in subject.result["constraints"]}
    found: list[tuple[str, Any]] = []
    for metric, cost in winner["costs"].items():
        said = element("strong", amount(cost["value"], metric))
        of = f" of {amount(limits[metric], metric)}" if metric in limits else ""
        parts: list[Any] = [said, of]
        if "interval" in cost:
            low, high = (amount(each, metric) for each in cost["interval"])
            parts.append(f"; {low} to {high} with 95 % probability")
        chance = cost.get("chance_over_limit")
        if chance is not None and metric in limits:
            parts.append(f"; {'under 1 %' if chance < 0.01 else f'{100 * chance:.0f} %'} chance of missing the limit")
        how = _how(subject, winner, metric)
        parts.append(
            element(
                "span",
                f" {cost['source']}" if cost["source"].startswith(how) else f" {how}: {cost['source']}",
                class_="source",
            )
        )
        found.append((called(metric), parts))
    return found


def _deployments(winner: Mapping[str, Any], others: Sequence[Subject]) -> list[tuple[str, Any]]:
    """What the deployments on this page say of the same network."""
    found: list[tuple[str, Any]] = []
    for each in others:
        if each.kind == "deployment" and words(each.fact, "package", "arch_str") == winner["arch_str"]:
            head, word, tone, _ = deployment(each)
            found.append((f"on board {words(each.fact, 'board', 'name') or '?'}", [badge(word, tone), " ", head]))
    return found


def _accuracies(subject: Subject, winner: Mapping[str, Any] | None) -> list[tuple[str, Any]]:
    found = _trained(subject.training)
    if winner is not None and winner.get("refined"):
        refined = winner["refined"]
        images = f"{refined['val_images']:,} images held out, after {refined['images_seen']:,} images of brief training"
        found.append(("validation accuracy", [element("strong", accuracy_text(refined)), f" on {images}"]))
    if winner is not None and winner["test_accuracy"] is not None and subject.result is not None:
        best = subject.result["best_possible_accuracy"]
        of = "" if best is None else f"; the best possible at these costs is {best:.2f} %"
        benchmark = plugins.benchmark_of(subject.result["space"])
        by = "the benchmark" if benchmark is None else benchmark.title
        found.append(
            ("accuracy", [element("strong", f"{winner['test_accuracy']:.2f} %"), f" test, looked up in {by}{of}"])
        )
    baseline = next(iter(baselines(subject)), None)
    if baseline is not None and number(baseline, "test_accuracy") is not None:
        found.append(("stock baseline", f"{number(baseline, 'test_accuracy'):.2f} % {words(baseline, 'name') or ''}"))
    return found


def baselines(subject: Subject) -> list[dict[str, Any]]:
    """The stock networks that a result has beside its winner, by whichever name it has them."""
    found = [dict(subject.baseline)] if subject.baseline else []
    for source in (subject.result, subject.training):
        each = at(source, "baseline")
        found += [each] if isinstance(each, dict) else []
        found += [one for one in items(source, "baselines") if isinstance(one, dict)]
    return found


def _trained(training: Mapping[str, Any]) -> list[tuple[str, Any]]:
    accuracy, images = number(training, "test_accuracy"), count(training, "test_images")
    if accuracy is None:
        return []
    between = ""
    if images and 0 <= accuracy <= 100:
        low, high = wilson(round(images * accuracy / 100), images)
        between = f"; {100 * low:.1f} to {100 * high:.1f} % with 95 % probability"
    of = f" of {images:,} test images" if images else ""
    dataset = words(training, "dataset") or "its data set"
    return [("test accuracy", [element("strong", f"{accuracy:.2f} %"), f"{of} of {dataset}{between}"])]


def _files(export: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """int8 against float, and the size on disk."""
    models = [each for each in items(export, "models") if isinstance(each, dict)]
    found: list[tuple[str, Any]] = []
    for model in models:
        if words(model, "format") == "tflite-int8":
            int8, full = (number(model, "checked", key) for key in ("accuracy", "torch_accuracy"))
            if int8 is not None and full is not None:
                images = count(model, "checked", "images")
                found.append(
                    (
                        "int8 against float",
                        f"{100 * int8:.2f} % against {100 * full:.2f} %, {100 * (int8 - full):+.2f} points, on"
                        f" {images or 'some'} test images",
                    )
                )
    sizes = [f"{words(each, 'file')} {kib(count(each, 'bytes'))}" for each in models if count(each, "bytes")]
    return [*found, ("size on disk", ", ".join(sizes))]


def kib(size: int | None) -> str:
    return "-" if size is None else f"{size / 1024:.1f} KiB" if size < 1 << 20 else f"{size / (1 << 20):.2f} MiB"


def _training(subject: Subject, others: Sequence[Subject]) -> Card:
    rows: list[tuple[str, Any]] = [("network", words(subject.training, "arch_str"))]
    rows += [*_accuracies(subject, None), *_files(subject.export)]
    if not subject.training:
        done = len(subject.epochs)
        return f"The training has not ended: {done} epochs so far.", "UNFINISHED", "neutral", rows
    return f"Trained for {count(subject.training, 'epochs') or '?'} epochs.", "TRAINED", "neutral", rows


_OF: dict[str, Callable[[Subject, Sequence[Subject]], Card]] = {
    "search": _search,
    "training": _training,
    "measurement": lambda subject, others: measurement(subject),
    "deployment": lambda subject, others: deployment(subject),
    "comparison": lambda subject, others: comparisons.card(subject),
}

"""Fig. 4: what the similarity is worth: networks chosen with it, by the task's loss alone, and by other references, on
photos, each trained alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from edgenas import host
from edgenas.fitness import SUPERNET
from edgenas.paper.energy import energy_text
from edgenas.paper.figure import Asked, Beside, Table, counted, mean_and_std
from edgenas.paper.photo_plan import RECIPE, SIMILARITY, STOCK, TASK_LOSS, WHOLE, Recipe
from edgenas.paper.photo_searches import PhotoSearches, prepared
from edgenas.report.drawing import COLOURS
from edgenas.search.forecast import duration
from edgenas.text import printable


@dataclass(frozen=True)
class Point:
    """What was chosen in one `way` under one limit, None: without one. Accuracies in % of the test photos, None where
    nothing keeps the limit; `error`: the standard error of one, by the count of photos."""

    way: str
    limit_m: float | None
    chosen: int  # by so many seeds
    mean: float | None
    std: float | None
    error: float | None
    photos: int
    macs_m: float | None
    scored: int | None


@dataclass(frozen=True)
class Fig4:
    """See edgenas.paper.figure.Figure."""

    work: PhotoSearches
    name = "fig4"
    title = "Fig. 4: test accuracy (%, photos) of the networks chosen within a limit on MACs, each trained alike"
    size = (7.0, 4.5)

    @property
    def plan(self) -> str:
        job, plan, photos = self.work, self.work.plan, self.work.train_photos
        searches = len(job.ways) * len(plan.limits_m) * plan.seeds
        left = "" if not job.done else f", of which {counted(len(job.done), 'step')} are done"
        return (
            f"fig4: {searches} searches of {plan.space} ({', '.join(job.ways)}) within"
            f" {', '.join(f'{each:g}' for each in plan.limits_m)} M MACs, {plan.budget} architectures scored in each;"
            f" then {counted(plan.epochs, 'epoch')} on {photos:,} photos for each network"
            f" chosen: {duration(plan.estimate_s)} here{left}"
        )

    @cached_property
    def points(self) -> list[Point]:
        plan = self.work.plan
        found = [self._point(way, limit_m) for way in self.work.ways for limit_m in plan.limits_m]
        stock = {limit_m: self.work.space.describe(arch) for limit_m, arch in self.work.stock.items()}
        found += [self._given(STOCK, limit_m, arch_str) for limit_m, arch_str in stock.items()]
        if plan.whole:
            found.append(self._given(WHOLE, None, self.work.space.describe(self.work.whole)))
        return found

    def tables(self) -> dict[str, Table]:
        header = ["way", "limit_m_macs", "chosen", "mean", "std", "standard_error", "photos", "m_macs", "scored"]
        rows = [[each.way, *list(vars(each).values())[1:]] for each in self.points]
        return {"fig4": (header, rows)}

    def beside(self) -> list[Beside]:
        points, plan = self.points, self.work.plan
        phi = [each for each in points if each.way == SIMILARITY]
        whole = next((each for each in points if each.way == WHOLE), None)
        differs = (
            "photos, not CIFAR-10, CIFAR-100 and ImageNet; every network is trained for"
            f" {counted(plan.epochs, 'epoch')} from weights that it inherits"
        )
        rows = []
        if whole is not None and whole.mean is not None:
            ours = ", ".join(f"{_percent(each)} within {each.limit_m:g} M" for each in phi)
            rows.append(
                Beside(
                    "networks chosen and the reference",
                    "similar accuracy (no number)",
                    f"{ours}; the reference {_percent(whole)} at {whole.macs_m:.0f} M",
                    differs,
                )
            )
        steps = counted(self.work.recipe.steps_of(plan.preset), "step")
        how = f"each after {steps}" if plan.preset == "paper" else f"the loss after {steps}, phi of weights as they are"
        rows.append(
            Beside(
                "with the similarity and without",
                "drawn (no number)",
                _gain(points, TASK_LOSS),
                f"{differs}; {how}",
            )
        )
        for name in plan.references:
            rows.append(
                Beside(
                    f"reference {SUPERNET} and {name}",
                    "left for the future",
                    _gain(points, f"{SIMILARITY} to {name}"),
                    differs,
                )
            )
        rows.append(
            Beside(
                "with the similarity, and the reference itself at fewer pixels",
                "not compared",
                _gain(points, STOCK),
                differs,
            )
        )
        return rows

    def settings(self) -> list[str]:
        plan, images = self.work.plan, self.work.images
        seconds, joules = self.work.took()
        cores = host.cores()
        recipe = self.work.recipe
        steps = counted(recipe.steps_of(plan.preset), "step")
        loss = f"the loss with beta 0 after {steps} on {recipe.batch_size} photos"
        phi = "phi after as many" if plan.preset == "paper" else "phi of inherited weights, without a step"
        lines = [
            f"preset {plan.preset}: {plan.budget} unique architectures of {plan.space} scored in each search, by {phi},"
            f" or by {loss}; {counted(plan.seeds, 'seed')}",
            f"{printable(plan.dataset, 80)}: {self.work.train_photos:,} photos to train on,"
            f" {images['test']:,} to test on; {counted(plan.epochs, 'epoch')} for every network, weights inherited",
            f"{seconds:.0f} s of {counted(cores, 'core')} in all: {energy_text(seconds * cores, joules)}",
            "the paper: phi after training each candidate for 100 epochs on a batch, beta 0.8, reference the largest"
            " network",
        ]
        if not plan.whole:
            lines.append("the whole reference was not trained, for want of time; give more --time and another -o")
        return lines

    def draw(self, figure: Any) -> None:
        axis = figure.add_subplot()
        for place, way in enumerate((*self.work.ways, STOCK)):
            known = [each for each in self.points if each.way == way and each.mean is not None]
            beside = 1 + 0.01 * (place - len(self.work.ways) / 2)  # so that equal ones do not hide each other
            xs, ys = [beside * (each.limit_m or 0.0) for each in known], [each.mean for each in known]
            spread = [max(each.std or 0.0, each.error or 0.0) for each in known]
            how = {"fmt": "os^Dv*Px"[place % 8] + "-", "capsize": 3, "color": COLOURS[place % len(COLOURS)]}
            axis.errorbar(xs, ys, spread, label=way, **how)
        whole = next((each for each in self.points if each.way == WHOLE), None)
        if whole is not None and whole.mean is not None:
            axis.axhline(whole.mean, ls="--", color="black", label=f"reference, {whole.macs_m:.0f} M")
        axis.set(xlabel="limit in M MACs", ylabel="test accuracy in %")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)

    def _point(self, way: str, limit_m: float) -> Point:
        won = {seed: self.work.winner(way, limit_m, seed) for seed in range(self.work.plan.seeds)}
        chosen = {seed: each for seed, each in won.items() if each is not None}
        trained = [self.work.trained(each["arch_str"], seed) for seed, each in chosen.items()]
        macs_m = statistics.fmean(each["costs"]["macs"]["value"] for each in chosen.values()) if chosen else None
        return self._found(way, limit_m, trained, macs_m, self.work.plan.budget)

    def _given(self, way: str, limit_m: float | None, arch_str: str) -> Point:
        trained = [self.work.trained(arch_str, seed) for seed in range(self.work.plan.seeds)]
        return self._found(way, limit_m, trained, self.work.macs_m(arch_str), None)

    def _found(
        self,
        way: str,
        limit_m: float | None,
        trained: Sequence[Mapping[str, Any]],
        macs_m: float | None,
        scored: int | None,
    ) -> Point:
        accuracies = [each["test_accuracy"] for each in trained]
        mean, std = mean_and_std(accuracies)
        photos = self.work.images["test"] if not trained else trained[0]["test_images"]
        error = None if mean is None else 100 * math.sqrt(mean / 100 * (1 - mean / 100) / photos)
        return Point(way, limit_m, len(trained), mean, std, error, photos, macs_m, scored)


def fig4(asked: Asked, presets: Mapping[str, Any], recipe: Recipe = RECIPE) -> Fig4:
    """Raises what edgenas.paper.photo_searches.prepared does."""
    return Fig4(prepared(asked, presets, recipe))


def _percent(point: Point) -> str:
    return "-" if point.mean is None else f"{point.mean:.1f}"


def _gain(points: list[Point], other: str) -> str:
    """By how much the similarity is ahead of `other`, on average over the limits."""
    theirs = {each.limit_m: each for each in points if each.way == other}
    pairs = [(each, theirs[each.limit_m]) for each in points if each.way == SIMILARITY and each.limit_m in theirs]
    gains = [(one.mean - two.mean, one, two) for one, two in pairs if one.mean is not None and two.mean is not None]
    if not gains:
        return "no search chose a network"
    errors = [math.hypot(one.error or 0.0, two.error or 0.0) for _, one, two in gains]
    error = math.hypot(*errors) / len(errors)
    each = ", ".join(f"{_percent(one)} and {_percent(two)} within {one.limit_m:g} M" for _, one, two in gains)
    return (
        f"{each}: {statistics.fmean(gain for gain, _, _ in gains):+.1f} points on average (standard error {error:.1f})"
    )

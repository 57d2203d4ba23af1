"""python -m tests.benchmarks.shortlist RUN...: how much alike the architectures are that a search refined.

Of each run: by resolution how many of its candidates keep the limits, and the best score; how far
apart those are that were refined, in genes, and what their training came to; and a shortlist as diverse as the same
number can be, without much loss of score. `--refine IMAGES` trains that one as the run's own was, up to so many
images, and shows it beside.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgenas import plugins, schema
from edgenas import run as runs
from edgenas.architecture import Architecture, Refined, SearchSpace, Trial, resolution_of
from edgenas.fitness import PHOTOS_REFINED, FitnessSettings, RefineSettings
from edgenas.search.genetic import best_of_unique
from edgenas.search.refine import prepare
from edgenas.search.request import stored_request

WITHIN = 4  # times as many of the highest score are looked at as are chosen


def distance(space: SearchSpace, one: Architecture, other: Architecture) -> float:
    """In how many genes they differ, each by the share of its options that lies between: most genes of a MobileNet are
    ordered sizes."""
    genes = zip(one.genes, other.genes, space.choices, strict=True)
    return sum(abs(mine - its) / max(1, options - 1) for mine, its, options in genes)


def diverse(space: SearchSpace, best: Sequence[Architecture], count: int, within: int = WITHIN) -> list[Architecture]:
    """`count` of the unique architectures `best`, which are sorted by score: the first, then each time the one that is
    farthest from all that were taken before it, of equals the first; among the `within` * `count` of highest score."""
    rivals = list(best[: within * count])
    chosen = rivals[:1]
    while len(chosen) < min(count, len(rivals)):
        left = [arch for arch in rivals if arch not in chosen]
        chosen.append(max(left, key=lambda arch: min(distance(space, arch, other) for other in chosen)))
    return [arch for arch in rivals if arch in chosen]


def apart(space: SearchSpace, archs: Sequence[Architecture]) -> str:
    """How far each is from the nearest other."""
    nearest = [min(distance(space, arch, other) for other in archs if other != arch) for arch in archs]
    return ", ".join(f"{each:.1f}" for each in nearest)


def outcome(found: Sequence[Refined]) -> str:
    """Validation loss and accuracy after each rung."""
    return "  ".join(f"{each.images_seen}: {each.val_loss:.3f} {each.val_accuracy:.1f} %" for each in found)


def within_limits(run: runs.Run, space: SearchSpace) -> list[Trial]:
    """The best of each unique architecture that keeps the limits, as far as boards have said."""
    measured, limits = run.measured(), stored_request(run).constraints()
    trials = [replace(each, cost=measured.get(space.canonical(each.arch), each.cost)) for each in run.trials()]
    known = [each for each in trials if each.score.value is not None and each.cost.error is None]
    return best_of_unique(space, [each for each in known if all(limit.penalty(each.cost) == 0 for limit in limits)])


def trained(run: runs.Run, space: SearchSpace, archs: Sequence[Architecture], images: int) -> dict[Architecture, str]:
    """What the training of `archs` up to so many `images` comes to."""
    settings = schema.settings(RefineSettings, run.header["refine_settings"], PHOTOS_REFINED)
    settings = replace(settings, rungs=tuple(each for each in settings.rungs if each <= images))
    scoring = schema.settings(FitnessSettings, run.header["fitness_settings"])
    refinement = prepare(space, stored_request(run).dataset, scoring, settings, len(archs), False, False)
    with tempfile.TemporaryDirectory() as folder:
        made = runs.create(Path(folder, "run"), {**run.header, "created": run.header["created"]})
        with made.appending():
            for _ in refinement(made, archs):
                pass
    return {arch: outcome(refinement.known[arch]) for arch in archs}


def report(path: str, images: int | None) -> None:
    run = runs.open_run(path)
    space: SearchSpace = plugins.load("spaces", run.header["request"]["space"])()
    trials = within_limits(run, space)
    scores = {space.canonical(each.arch): each.score.value or 0.0 for each in trials}
    refined = run.refined()
    print(f"{path}: {len(trials)} unique architectures within the limits, {len(refined)} refined")
    by_side: dict[int, list[float]] = {}
    for arch, score in scores.items():
        by_side.setdefault(resolution_of(space, arch) or 0, []).append(score)
    for side, here in sorted(by_side.items()):
        print(f"  {side:4} pixels: {len(here):3}, scores {max(here):.4f} to {min(here):.4f}")
    print(f"  refined, {apart(space, list(refined))} from the nearest other:")
    for arch in sorted(refined, key=lambda each: -scores.get(each, 0.0)):
        print(f"    {scores.get(arch, 0.0):.4f}  {outcome(refined[arch])}  {space.describe(arch)}")
    chosen = diverse(space, list(scores), len(refined))
    print(f"  as diverse as can be, {apart(space, chosen)}:")
    known = {arch: outcome(refined[arch]) for arch in chosen if arch in refined}
    if images is not None:
        known |= trained(run, space, [arch for arch in chosen if arch not in known], images)
    for arch in chosen:
        print(f"    {scores[arch]:.4f}  {known.get(arch, '')}  {space.describe(arch)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--refine", dest="images", type=int, metavar="IMAGES")
    options = parser.parse_args()
    for each in options.runs:
        report(each, options.images)

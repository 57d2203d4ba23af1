"""Live scores: candidates are trained on this machine, or on a cluster, when their score is asked for."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol

import torch

from edgenas.architecture import Architecture, OwnResolution, Score, SearchSpace, Supernet, network_size, supernet_for
from edgenas.data.images import SCORED_PER_CLASS, ImageSet, batch_indexes, load_images, load_some, one_batch
from edgenas.data.inputs import photos_of
from edgenas.errors import UsageError
from edgenas.fitness import HOW_ONLY, FitnessSettings, identified
from edgenas.fitness.engine import Engine, Hardware, LocalEngine, engine, stacks
from edgenas.fitness.references import Reference, load
from edgenas.fitness.rmi import unit_gram
from edgenas.fitness.store import ScoreStore
from edgenas.fitness.trainer import VERSIONS, Trainer

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TIMED, TIMED_STEPS = 8, 3  # architectures, and steps of each, by which is estimated how long all will take
HALVING_GROUP = 8  # architectures of which the worse half is stopped; a constant: no score depends on the machine


class Scores(Protocol):
    """What a LiveFitness runs on workers: see edgenas.fitness.engine.Trains."""

    @property
    def space(self) -> SearchSpace: ...
    @property
    def settings(self) -> FitnessSettings: ...
    def briefly(self, steps: int) -> Scores:
        """The same with so many training steps, for their time alone."""

    def on(self, device: torch.device) -> Scores: ...
    def __call__(self, archs: Sequence[Architecture]) -> list[Score]: ...


class LiveFitness:
    """Trains each unique architecture once, from weights of its own: a score depends on no neighbour and no order.

    What `store` knows is not trained again, and what was trained is in it at once, even where nobody waits for it any
    more. With `settings.halving`, an architecture that is stopped early gets the score it had then: that depends on the
    group it was in, and so do its score in the store and `grouped`.
    """

    exhaustive = False

    def __init__(
        self,
        trainer: Scores,
        source: str,
        fingerprint: str,
        store: ScoreStore | None = None,
        on: Engine | None = None,
        made_from: Mapping[str, Any] | None = None,
        is_phi: bool = True,
    ) -> None:
        self.made_from = dict(made_from or {})  # all that the fingerprint is of
        self.source = source
        self.fingerprint = fingerprint
        self.trainer = trainer
        self._is_phi = is_phi  # the score itself
        self._store = store
        self._engine = on or LocalEngine()
        self.hardware = self._engine.hardware
        self.grouped = trainer.settings.halving
        self._scores: dict[Architecture, Score] = {}

    def __call__(self, archs: Sequence[Architecture]) -> Generator[Score, None, None]:
        """A score for each of `archs`, in order, as soon as it is there."""
        keys = [self.trainer.space.canonical(arch) for arch in archs]
        unscored = [key for key in dict.fromkeys(keys) if key not in self._scores]
        if self._store is not None:
            found = self._store.find(unscored).items()
            self._scores |= {key: self._stored(each) for key, each in found if self._complete(each)}
            unscored = [key for key in unscored if key not in self._scores]
        groups: list[list[Architecture]] = []
        if self.grouped:
            groups = [unscored[start : start + HALVING_GROUP] for start in range(0, len(unscored), HALVING_GROUP)]
            groups = [group for group in groups if not self._found_group(group)]
            unscored = [key for group in groups for key in group]
        if not unscored:
            yield from (self._scores[key] for key in keys)
            return
        workers = self._engine.start(self.trainer)
        parts = groups or stacks(unscored, workers.stack)
        training: list[tuple[list[Architecture], Future[list[Score]]]] = []
        try:
            training += [(stack, workers.submit(stack)) for stack in parts]
            place = {key: future for stack, future in training for key in stack}
            for key in keys:
                if key not in self._scores:
                    place[key].result()
                    self._collect(training)
                yield self._scores[key]
        finally:
            workers.close()
            self._collect(training)

    def _found_group(self, group: list[Architecture]) -> bool:
        """Whether just this group was trained before; then its scores are known."""
        found = self._store.of_group(group).find(group) if self._store is not None else {}
        if len(found) < len(group):
            return False
        for key, each in found.items():
            self._scores[key] = replace(self._stored(each), early=bool(each.learning_curve))
        return True

    def _stored(self, score: Score) -> Score:
        """What the store knows, which holds no phi apart from the score."""
        return replace(score, phi=score.value) if self._is_phi else score

    def seconds_for(self, archs: Sequence[Architecture]) -> float:
        """About what scoring `archs`, which are canonical, takes here: as many steps of those that are not known as it
        would be, at the pace of a few steps of a few of them."""
        known = {} if self._store is None else self._store.find(archs)
        unscored = [arch for arch in dict.fromkeys(archs) if arch not in known and arch not in self._scores]
        if not unscored:
            return 0.0
        few = unscored[:: -(-len(unscored) // TIMED)]
        total = self.trainer.settings.epochs

        def took_s(steps: int) -> float:
            began_s = time.perf_counter()
            workers = self._engine.start(self.trainer.briefly(steps))
            try:
                for each in [workers.submit(stack) for stack in stacks(few, workers.stack)]:
                    each.result()
            finally:
                workers.close()
            return time.perf_counter() - began_s

        took_s(min(1, total))  # what is slow only once
        each_s = took_s(TIMED_STEPS) / TIMED_STEPS * total if total else took_s(0)
        return each_s / len(few) * len(unscored)

    def _complete(self, score: Score) -> bool:
        """Whether it was evaluated after all the steps that it should be."""
        settings = self.trainer.settings
        wanted = {steps for steps in settings.eval_steps if steps < settings.epochs}
        return score.error is not None or wanted <= {steps for steps, *_ in score.learning_curve}

    def _collect(self, training: list[tuple[list[Architecture], Future[list[Score]]]]) -> None:
        """Takes what has been trained out of `training`."""
        for each in list(training):
            stack, future = each
            if future.done() and not future.cancelled() and future.exception() is None:
                found = dict(zip(stack, future.result(), strict=True))
                self._scores |= found
                if self._store is not None:
                    (self._store.of_group(stack) if self.grouped else self._store).keep(found)
                training.remove(each)


class MeanOfRepeats:
    """The mean score over `repeats`, which train the same architectures from other weights on other batches.

    One repeat says less: by networks of N=1, C=16 with MACs mixed in, the mean of two ranks better after 10 steps than
    one after 50 (docs/figures.md, "What settings rest on").
    """

    exhaustive = False

    def __init__(self, repeats: Sequence[LiveFitness]) -> None:
        self._repeats = repeats
        self.hardware = repeats[0].hardware
        self.grouped = repeats[0].grouped
        self.source = f"mean of {len(repeats)} repeats of {repeats[0].source}"
        content = json.dumps([each.fingerprint for each in repeats])
        # What repeats were first called: a run of an earlier version goes on only by the very same fingerprint.
        self.fingerprint = "mean of draws " + hashlib.sha256(content.encode()).hexdigest()

    def __call__(self, archs: Sequence[Architecture]) -> Generator[Score, None, None]:
        """A score for each of `archs`, in order; none where any repeat has none."""
        *first, last = self._repeats
        known = [list(repeat(archs)) for repeat in first]
        for row, score in enumerate(last(archs)):
            yield _mean([*(scores[row] for scores in known), score])

    def seconds_for(self, archs: Sequence[Architecture]) -> float:
        """As LiveFitness has it."""
        return sum(repeat.seconds_for(archs) for repeat in self._repeats)


def _mean(scores: Sequence[Score]) -> Score:
    values = [each.value for each in scores if each.value is not None]
    losses = [each.loss for each in scores if each.loss is not None]
    if len(values) < len(scores):
        return next(each for each in scores if each.value is None)
    loss = sum(losses) / len(losses) if len(losses) == len(scores) else None
    phi = sum(values) / len(values)
    return Score(phi, loss, early=any(each.early for each in scores), phi=phi)


def create(space: SearchSpace, dataset: str, settings: FitnessSettings) -> LiveFitness | MeanOfRepeats:
    """RMI on one batch of `dataset` (a name or a folder of images), on the GPUs of `settings.engine` where it has any;
    the mean over `settings.repeats`.

    Raises UsageError for settings out of range or an engine that is not there, and DataError for images or reference
    weights that are missing or damaged. Where no pretrained reference exists for the data set, one is trained first
    (edgenas.fitness.references).
    """
    repeats = repeated(space, dataset, settings)
    return repeats[0] if len(repeats) == 1 else MeanOfRepeats(repeats)


def repeated(space: SearchSpace, dataset: str, settings: FitnessSettings) -> list[LiveFitness]:
    """The `settings.repeats` whose mean `create` gives, of one seed each; raises what `create` does."""
    check(settings)
    network_size(space, settings.size, deployed=False)  # before a reference is trained
    on = engine(settings.engine)
    trained = space if settings.epochs else None
    settings = replace(settings, precision=precision_on(on.hardware, settings.precision, trained))
    supernet = supernet_for(space, settings.init)
    seeds = range(settings.seed, settings.seed + settings.repeats)
    if isinstance(space, OwnResolution):
        reference = load(space, dataset, settings)
        side = max(space.resolutions)
        sets = [photos_of(space, load_some(dataset, settings.batch_size, seed, side)) for seed in seeds]
    else:
        image_set = load_images(dataset, limit=SCORED_PER_CLASS)
        batch_indexes(image_set, settings.batch_size, settings.seed)  # one too small is refused before any training
        sets = [image_set] * len(seeds)
        reference = load(space, dataset, settings, image_set)
    drawn = [replace(settings, seed=seed, repeats=1) for seed in seeds]
    return [_repeat(space, supernet, each, on, images, reference) for each, images in zip(drawn, sets, strict=True)]


def _repeat(
    space: SearchSpace,
    supernet: Supernet | None,
    settings: FitnessSettings,
    on: Engine,
    image_set: ImageSet,
    reference: Reference,
) -> LiveFitness:
    """One batch, chosen by `settings.seed` as the weights are."""
    scaled, labels = one_batch(image_set, settings.batch_size, settings.seed, mean=(0, 0, 0), std=(1, 1, 1))
    batch = torch.from_numpy(scaled)  # in [0, 1]: reference and candidate each normalise it in their own way
    mean, std = (batch.new_tensor(each).view(3, 1, 1) for each in (image_set.mean, image_set.std))
    targets = [unit_gram(each, settings.centred) for each in reference.maps(batch)]
    made_from = {
        "settings": identified(space, settings, without=HOW_ONLY | {"halving", "repeats"}),
        "images": image_set.fingerprint,
        "reference": reference.fingerprint(),
        "device": on.hardware.device,
        "version": VERSIONS[on.hardware.device],
        **({} if supernet is None else {"supernet": supernet.fingerprint}),
    }
    begun = f", begun with weights of {supernet.source}" if supernet is not None else ""
    content = json.dumps(made_from, sort_keys=True)
    stored = "live " + hashlib.sha256(content.encode()).hexdigest()
    return LiveFitness(
        Trainer(
            space,
            ((batch - mean) / std).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(labels),
            len(image_set.class_names),
            targets,
            settings,
            PRECISIONS[settings.precision],
            supernet,
        ),
        f"RMI measured on {on.hardware.name} ({settings.precision}): {settings.epochs} steps on"
        f" {settings.batch_size} images of {image_set.source}{begun}, reference {reference.source}",
        stored + (", halving" if settings.halving else ""),
        ScoreStore(stored),
        on,
        made_from,
    )


def precision_on(hardware: Hardware, asked: str, trained: SearchSpace | None) -> str:
    """A key of PRECISIONS: what was `asked` for, or, where that is "auto", what `hardware` is fast at. `trained`: the
    space whose networks are trained, None where they are only looked at."""
    if asked != "auto":
        return asked
    # Networks for photos convolve channel by channel, of which torch's gradients take longer in bfloat16 on a CPU
    # (docs/figures.md, "Networks for real images").
    slow = hardware.device == "cpu" and isinstance(trained, OwnResolution)
    return "bfloat16" if hardware.fast_bfloat16 and not slow else "float32"


def check(settings: FitnessSettings) -> None:
    """Raises UsageError for settings out of range."""
    least = 0 if settings.init == "inherited" else 1  # random weights that are not trained say nothing
    for valid, problem in (
        (settings.epochs >= least, f"--epochs {settings.epochs} trains nothing; give {least} or more"),
        (settings.repeats >= 1, f"--repeats {settings.repeats} scores nothing; give 1 or more"),
        (0 <= settings.beta <= 1, f"--beta {settings.beta} is no weight; give one from 0 to 1, like 0.8"),
        (settings.batch_size >= 2, f"batch size {settings.batch_size} leaves nothing to compare; give 2 or more"),
        (0 < settings.learning_rate < math.inf, f"learning rate {settings.learning_rate} is not positive; give 0.1"),
        (0 <= settings.momentum < 1, f"momentum {settings.momentum} is not from 0 to below 1; give 0.9"),
        (0 <= settings.weight_decay < math.inf, f"weight decay {settings.weight_decay} is negative; give 0.0005"),
        (
            settings.precision in ("auto", *PRECISIONS),
            f"--precision {settings.precision} is unknown; give auto, float32 or bfloat16",
        ),
    ):
        if not valid:
            raise UsageError(problem)

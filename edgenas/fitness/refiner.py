"""Brief training of a shortlist on real images, several architectures side by side, from one count of images seen to
the next; and what the networks are worth on images held out.

The recipe is SGD at a constant rate whose weights are averaged by polynomial decay (Shamir and Zhang, Stochastic
Gradient Descent for Non-smooth Optimization, ICML 2013, section 4), so that a network can be evaluated at any time. Its
weights begin as in live scoring. All architectures see the same crops of the same images in the same order, which
follow from the seed and the number of the step alone: what one has right and another wrong is down to the
architectures.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgenas.architecture import (
    Architecture,
    OwnResolution,
    Refined,
    SearchSpace,
    Supernet,
    resolution_of,
    supernet_for,
)
from edgenas.data.images import DATASETS, SCORED_PER_CLASS, ImageSet, batch_indexes, load_images, load_some, validating
from edgenas.data.inputs import photos_of
from edgenas.data.torch_file import weights
from edgenas.errors import ExportError, UsageError
from edgenas.fitness import FLOAT32, INT8, FitnessSettings, RefineSettings, identified, size_of
from edgenas.fitness.engine import Engine, engine
from edgenas.fitness.live import PRECISIONS, check, precision_on
from edgenas.fitness.network import build
from edgenas.fitness.split import SplitImages
from edgenas.fitness.trainer import as_memory_allows, repeatable, resized, stacked
from edgenas.plugins import lacking
from edgenas.train.batches import NOT_FLIPPED, PADDING, augmented, evaluated_at_once, normalised, parameter_groups
from edgenas.train.files import from_bytes, to_bytes
from edgenas.train.inherited import recalibrate

log = logging.getLogger(__name__)

VERSION = 4  # of how outcomes come about; a change that moves them by more than rounding makes it another
_MAX_PER_CLASS = 5_000  # images a class
_MIN_HELD_OUT = 2  # images a class
_MIN_SIDE = 16  # pixels of images that were shrunk
_INT8_IMAGES = 128  # of training, that set the ranges of int8
_PHOTO_SIDE = 160  # pixels; what an architecture reads at another side is resized


@dataclass(frozen=True)
class RefineJob:
    """To train `arch` until it has seen `until` images: from its beginning, or from the `state` in which another job
    left it after `seen` images."""

    arch: Architecture
    until: int
    seen: int = 0
    state: bytes | None = None


@dataclass(frozen=True)
class RefineOutcome:
    """What a job found, and the state to go on from, None where it failed."""

    refined: Refined
    state: bytes | None


class Stop:
    """Tells trainings in other threads that nobody waits for them. It does not reach other processes, where an engine
    has its own ways."""

    asked = False


@dataclass(frozen=True)
class Refiner:
    """Trains architectures briefly: all that an outcome depends on but the architecture itself. It can be pickled.

    `supernet`: whose weights they begin with; None: with random ones. `mirror`: mirror `images` are of their class too;
    `shrink`: blocks of so many pixels a side become one.
    All chance follows from `seed`; `precision` is that of the feature maps, the rest is float32.
    """

    space: SearchSpace
    images: SplitImages
    mirror: bool
    shrink: int
    seed: int
    settings: RefineSettings
    precision: torch.dtype = torch.float32
    supernet: Supernet | None = None
    stop: Stop = field(default_factory=Stop)

    def on(self, device: torch.device) -> Refiner:
        """The same on another device."""
        return replace(self, images=self.images.on(device))

    def __call__(self, jobs: Sequence[RefineJob]) -> list[RefineOutcome]:
        """An outcome for each of `jobs`, which have all seen the same images and are to see the same. They are trained
        side by side as far as the memory allows: what does not fit is halved. None depends on another.

        Raises ValueError for jobs that are not alike or a state that is not `valid`, UsageError where not even one
        fits, and CancelledError once `stop` is asked for.
        """
        if len({(job.seen, job.until, job.state is None) for job in jobs}) > 1:
            raise ValueError("jobs of one stack begin and end at the same images")
        advice = "on real images; give --refine 0"
        with repeatable(self.images.device):
            return as_memory_allows(self._train, jobs, self.images.device, advice)

    def valid(self, arch: Architecture, seen: int, state: bytes) -> bool:
        """Whether `state` is one of `arch` after `seen` images, from which a job can go on."""
        with torch.device("meta"):
            like = self.space.build(arch, self.images.num_classes, **self._size)
        try:
            _read(state, seen, dict(like.named_parameters()))
        except ValueError:
            return False
        return True

    @property
    def _size(self) -> dict[str, int]:
        return size_of(self.space, self.settings)

    def _train(self, jobs: Sequence[RefineJob]) -> list[RefineOutcome]:
        began_s = time.perf_counter()
        seen, until = jobs[0].seen, jobs[0].until
        networks = [self._network(job.arch) for job in jobs]
        settings = self.settings
        groups = [each for network in networks for each in parameter_groups(network, settings.classifier_rate)]
        parameters = [each for network in networks for each in network.parameters()]
        averages = [each.detach().clone() for each in parameters]
        optimizer = torch.optim.SGD(
            [{"params": each["params"], "lr": settings.learning_rate * each["times"]} for each in groups],
            settings.learning_rate,
            settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=True,
            fused=True,
        )
        averaged = dict(zip(parameters, averages, strict=True))
        for job, network in zip(jobs, networks, strict=True):
            if job.state is not None:
                _restore(network, optimizer, averaged, job.state, seen)
        together = stacked(self.space, networks, [job.arch for job in jobs])
        live = [each.detach() for each in parameters]
        for step in range(seen // settings.batch_size, until // settings.batch_size):
            if self.stop.asked:
                raise CancelledError
            images, labels = self._batch(step)
            with self._autocast():
                _, logits = together.features(images)
            losses = F.cross_entropy(
                logits.float().transpose(1, 2) if self._half else logits.transpose(1, 2),
                labels.expand(len(jobs), -1),
                reduction="none",
            ).mean(1)
            optimizer.zero_grad()
            torch.autograd.backward(losses.sum())  # each network's weights enter its own loss only
            optimizer.step()
            torch._foreach_lerp_(averages, live, (settings.averaging + 1) / (step + 1 + settings.averaging))
        states = [_state(network, optimizer, averaged, until) for network in networks]
        calibration = self._calibration()
        sides = [resolution_of(self.space, job.arch) for job in jobs]
        evaluated = [
            self._evaluate(network, averaged, calibration, side) for network, side in zip(networks, sides, strict=True)
        ]
        faults: list[str | None] = [None] * len(jobs)
        if settings.deployed == INT8 and until == settings.rungs[-1]:
            for number, (network, side) in enumerate(zip(networks, sides, strict=True)):
                if math.isfinite(evaluated[number][0]):
                    try:
                        evaluated[number] = self._evaluate_int8(network, side)
                    except ExportError as error:
                        faults[number] = f"it cannot be deployed as int8: {error}"
        seconds = (time.perf_counter() - began_s) / len(jobs)
        outcomes = []
        for job, state, (loss, right), fault in zip(jobs, states, evaluated, faults, strict=True):
            found = Refined(job.arch, until, len(self.images.validation), loss, right, seconds)
            if math.isfinite(loss) and fault is None:
                outcomes.append(RefineOutcome(found, state))
                continue
            reason = fault or f"the training diverged within {until:,} images"
            outcomes.append(RefineOutcome(replace(found, val_loss=None, right=b"", error=reason), None))
        return outcomes

    def _network(self, arch: Architecture) -> nn.Module:
        """`arch` with the weights that it begins with, which depend on the seed and on `arch` alone."""
        network = build(self.space, arch, self.images.num_classes, self.seed, self.supernet, **self._size)
        return network.to(self.images.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload,no-any-return]

    @property
    def _half(self) -> bool:
        return self.precision != torch.float32

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.images.device.type, self.precision) if self._half else nullcontext()

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images [batch, 3, h, w], cropped at random, mirrored and normalised, and labels [batch] of `step`, from 0.
        Each image is shown once before any is shown again."""
        size, seed, training = self.settings.batch_size, self.seed, self.images.training
        rounds, places = np.divmod(np.arange(step * size, (step + 1) * size), len(training))
        orders = [_order(seed, each, len(training))[places[rounds == each]] for each in np.unique(rounds).tolist()]
        indexes = training[np.concatenate(orders)]
        random = np.random.default_rng([seed, 1, step])
        images = augmented(self.images.pixels, indexes, random, self.mirror, self.settings.min_crop)
        return self._normalised(images), self.images.labels_at(indexes)

    def _normalised(self, pixels: Tensor) -> Tensor:
        scaled = pixels.float() / 255
        if self.shrink > 1:
            scaled = F.avg_pool2d(scaled, self.shrink)
        return normalised(scaled, self.images).contiguous(memory_format=torch.channels_last)

    def _calibration(self) -> Tensor:
        """The first training images of all."""
        steps = range(self.settings.calibration_images // self.settings.batch_size)
        return torch.cat([self._batch(step)[0] for step in steps])

    @torch.no_grad()
    def _evaluate(
        self,
        network: nn.Module,
        averaged: dict[nn.Parameter, Tensor],
        calibration: Tensor,
        side: int | None,
    ) -> tuple[float, bytes]:
        """The loss on the images held out, and which of them are right, packed, of `network` in evaluation mode with
        its averaged weights, which it keeps; it reads images of `side` pixels a side, None: as they are."""

        def seen(images: Tensor) -> Tensor:
            return images if side is None else resized(images, side)

        for parameter in network.parameters():
            parameter.copy_(averaged[parameter])
        validation = self.images.validation
        with self._autocast():
            # Of one size, for each counts as much as another.
            parts = calibration.tensor_split(math.ceil(len(calibration) / self._at_once(side)))
            recalibrate(network, map(seen, parts))
            return self._worth([network(images).float() for images in self._as_they_are(validation, side)])

    @torch.no_grad()
    def _evaluate_int8(self, network: nn.Module, side: int | None) -> tuple[float, bytes]:
        """As `_evaluate`, of the int8 file of `network`, which that left in evaluation mode. Raises ExportError where
        there can be none."""
        from edgenas.lower import lower
        from edgenas.lower.verify import run_model

        try:
            from edgenas.lower.quantize import full_int8
        except ImportError as error:  # on another machine than that which prepared this
            raise UsageError(f"a worker cannot make int8 files, which needs {lacking(error)} there") from error

        training = self.images.training
        few = np.linspace(0, len(training) - 1, min(len(training), _INT8_IMAGES)).astype(int)
        calibration = np.concatenate([each.cpu().numpy() for each in self._as_they_are(training[few], side)])
        graph = lower(network.cpu(), torch.zeros(1, *calibration.shape[1:]))
        model = full_int8(graph, {}, np.ascontiguousarray(calibration))
        parts = self._as_they_are(self.images.validation, side)
        logits = [run_model(model, np.ascontiguousarray(images.cpu().numpy())) for images in parts]
        return self._worth([torch.from_numpy(each).to(self.images.device) for each in logits])

    def _as_they_are(self, indexes: NDArray[np.int64], side: int | None) -> Iterator[Tensor]:
        """The images at `indexes`, at `side` pixels a side, normalised, in batches."""
        at_once = self._at_once(side)
        for start in range(0, len(indexes), at_once):
            images = self._normalised(self.images.pixels_at(indexes[start : start + at_once]))
            yield images if side is None else resized(images, side)

    def _at_once(self, side: int | None) -> int:
        """How many images of `side` pixels a side, None: as they are, are evaluated at once."""
        height, width = self.images.pixels.shape[1:3] if side is None else (side, side)
        return evaluated_at_once(height // self.shrink, width // self.shrink)

    def _worth(self, logits: Sequence[Tensor]) -> tuple[float, bytes]:
        """The loss on the images held out, and which of them are right, packed."""
        labels, found = self.images.labels_at(self.images.validation), torch.cat(list(logits))
        right = np.packbits((found.argmax(1) == labels).cpu().numpy()).tobytes()
        return float(F.cross_entropy(found, labels)), right


@dataclass(frozen=True)
class Ready:
    """A refiner, the engine to start it on, what its outcomes depend on as a `fingerprint`, and in words the images
    and the hardware."""

    refiner: Refiner
    engine: Engine
    fingerprint: str
    source: str
    hardware: str


def create(
    space: SearchSpace,
    dataset: str,
    scoring: FitnessSettings,
    settings: RefineSettings,
    seeds: Sequence[int],
    scored_per_class: int = SCORED_PER_CLASS,
) -> Ready:
    """A refiner on the training part of `dataset` (a name or a folder of images), for `scoring.engine`.

    A fifth of the images, at most `settings.val_images`, is held out, class by class; none of them is in a batch that
    a score is of, which `scoring.batch_size` and one of `seeds` choose, of `scored_per_class` of a user's own images.
    The test part is never read.
    Raises UsageError for a set that is too small and an engine that is not there, DataError for images that are
    missing or damaged.
    """
    check(scoring)
    if scoring.seed < 0:
        raise UsageError(f"--seed {scoring.seed} cannot order images for --refine; give 0 or more")
    on = engine(scoring.engine)
    precision = precision_on(on.hardware, scoring.precision, space)
    supernet = supernet_for(space, settings.init)
    if isinstance(space, OwnResolution):
        side = min(_PHOTO_SIDE, max(space.resolutions))
        images = photos_of(space, load_images(dataset, limit=_MAX_PER_CLASS, side=side))
        drawn = [load_some(dataset, scoring.batch_size, seed, side).images for seed in dict.fromkeys(seeds)]
    else:
        scored = images = load_images(dataset, limit=scored_per_class)
        if dataset not in DATASETS:
            images = load_images(dataset, limit=_MAX_PER_CLASS)
        drawn = [scored.images[batch_indexes(scored, scoring.batch_size, seed)] for seed in dict.fromkeys(seeds)]
    validation = _held_out(images, np.concatenate(drawn), settings.val_images)
    validating = np.zeros(len(images.labels), bool)
    validating[validation] = True
    split = SplitImages.of(images, validating)
    settings = replace(settings.for_images(len(split.training)), deployed=_deployed(settings.deployed))
    refiner = Refiner(
        space,
        split,
        settings.flip and images.name not in NOT_FLIPPED,
        _shrink(images, settings.shrink),
        scoring.seed,
        settings,
        PRECISIONS[precision],
        supernet,
    )
    made_from = {
        "version": VERSION,
        "images": images.fingerprint,
        "validation": hashlib.sha256(validation.astype("<i8").tobytes()).hexdigest(),
        "settings": identified(space, settings),
        "seed": scoring.seed,
        **({} if supernet is None else {"supernet": supernet.fingerprint}),
    }
    fingerprint = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    source = f"trained on {len(split.training):,} and evaluated on {len(validation):,} other images of {images.source}"
    source += ", on the last rung as int8" if settings.deployed == INT8 else ""
    return Ready(refiner, on, fingerprint, source, f"{on.hardware.name} ({precision})")


def _deployed(asked: str) -> str:
    """`asked`, or FLOAT32 where nothing here makes int8 files or runs them; then that is said."""
    if asked == INT8:
        try:
            import edgenas.lower.quantize  # noqa: F401
        except ImportError as error:
            log.warning(
                "the shortlist is compared in float32, though int8 will be deployed: int8 needs %s", lacking(error)
            )
            return FLOAT32
    return asked


def _shrink(images: ImageSet, most: int) -> int:
    """`most`, where that divides the images' sides and leaves _MIN_SIDE of them, else 1."""
    sides = images.images.shape[1:3]
    return most if all(side % most == 0 and side // most >= _MIN_SIDE for side in sides) else 1


def _held_out(images: ImageSet, scored: NDArray[np.uint8], most: int) -> NDArray[np.int64]:
    """The validation images: every fifth, counted class by class, of those that look like none of `scored`; of too many
    an even choice, class by class. Raises UsageError for a set too small."""
    if min(images.images.shape[1:3]) <= PADDING:
        raise UsageError(f"{images.source} has images too small to train on; give larger ones, or give --refine 0")
    taken = {each.tobytes() for each in scored}
    fresh = np.flatnonzero([each.tobytes() not in taken for each in images.images])
    chosen = fresh[validating(images, fresh)]
    chosen = chosen[np.argsort(images.labels[chosen], kind="stable")]
    if len(chosen) > most:
        chosen = chosen[np.arange(most) * len(chosen) // most]
    counts = np.bincount(images.labels[chosen], minlength=len(images.class_names))
    if counts.min() < _MIN_HELD_OUT:
        raise UsageError(
            f"{images.source} has too few images to hold some out for validation: {counts.min()} of class"
            f" {images.class_names[int(counts.argmin())]}, not {_MIN_HELD_OUT}; give it more, or give --refine 0"
        )
    return np.sort(chosen)


@lru_cache(maxsize=4)
def _order(seed: int, turn: int, count: int) -> NDArray[np.int64]:
    """In which `count` images are shown in their `turn`."""
    return np.random.default_rng([seed, 0, turn]).permutation(count)


def _state(network: nn.Module, optimizer: torch.optim.SGD, averaged: dict[nn.Parameter, Tensor], seen: int) -> bytes:
    named = dict(network.named_parameters())
    momenta = {name: optimizer.state[each].get("momentum_buffer") for name, each in named.items()}
    parts = {
        "weights": {name: each.detach() for name, each in named.items()},
        "averages": {name: averaged[each] for name, each in named.items()},
        "momenta": {name: each for name, each in momenta.items() if each is not None},
    }
    on_cpu = {part: {name: each.cpu().contiguous() for name, each in named.items()} for part, named in parts.items()}
    return to_bytes({"seen": seen, **on_cpu})


def _read(state: bytes, seen: int, like: dict[str, nn.Parameter]) -> dict[str, dict[str, Tensor]]:
    """The parts of `state`, each of which has tensors by the names of `like`. Raises ValueError for anything else."""
    content = from_bytes(state)
    if content.get("seen") != seen or not isinstance(content.get("momenta"), dict):
        raise ValueError("a state at another number of images")
    moved = {name: each for name, each in like.items() if name in content["momenta"]}  # the others are never used
    return {
        "weights": weights(content.get("weights"), like),
        "averages": weights(content.get("averages"), like),
        "momenta": weights(content["momenta"], moved),
    }


@torch.no_grad()
def _restore(
    network: nn.Module, optimizer: torch.optim.SGD, averaged: dict[nn.Parameter, Tensor], state: bytes, seen: int
) -> None:
    named = dict(network.named_parameters())
    parts = _read(state, seen, named)
    for name, parameter in named.items():
        parameter.copy_(parts["weights"][name])
        averaged[parameter].copy_(parts["averages"][name])
        if name in parts["momenta"]:
            # In the layout of the weights, as the optimiser would have made it.
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(parts["momenta"][name])

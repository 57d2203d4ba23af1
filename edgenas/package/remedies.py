"""The int8 file of a trained network, and what is done where it is right less often than the float network.

Remedies are tried in order, each on top of the best so far, until one brings the int8 file to within MAX_DROP of float;
else the best is kept. They are compared on images of the train part that none of them learns from. The test part is
for the report alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgenas.data.images import ImageSet, batch_indexes, held_out, load_images
from edgenas.errors import DataError, UnknownNameError
from edgenas.lower.graph import Graph
from edgenas.lower.verify import run_model
from edgenas.package.golden import normalised

if TYPE_CHECKING:
    from edgenas.lower.quantize import Prepared
    from edgenas.lower.ranges import Ranging
    from edgenas.train.files import Trained
    from edgenas.train.quantised import QuantisedSettings

log = logging.getLogger(__name__)

REMEDIES = ("none", "calibration", "training")  # up to which they are tried
MAX_DROP = 0.01  # of the share of images that are right: a point
MIN_HELD_OUT, MAX_HELD_OUT = 100, 1000  # images; of fewer, one is more than a point
MORE_IMAGES = 512  # for calibration
_AT_ONCE = 100  # images in memory as float
_TELLS = (10, 50)  # steps of training after which, and after each multiple of the last, the time left is logged
_OWN = "the trained network's"
_LEARNT = "fine-tuned for int8 from the trained network's, which the float files have"


@dataclass(frozen=True)
class Try:
    """`remedy`: none, calibration, clipping, biases or training. `accuracy` and `top1_agreement`, which is with the
    float network, are shares of the images held out; `seconds` went by."""

    remedy: str
    detail: str
    accuracy: float
    accuracy_drop: float
    top1_agreement: float
    seconds: float


@dataclass(frozen=True)
class Quantised:
    """The int8 `model`, and the `record` of how it came about, for export.json."""

    model: bytes
    record: dict[str, Any]


def check_remedies(name: str) -> None:
    """Raise UnknownNameError where `name` is none of REMEDIES."""
    if name not in REMEDIES:
        raise UnknownNameError("remedy", name, REMEDIES, f"--int8-remedies takes {', '.join(REMEDIES)}")


def quantise(
    trained: Trained,
    graph: Graph,
    metadata: Mapping[str, Any],
    calibration_images: int,
    remedies: str = REMEDIES[-1],
    settings: QuantisedSettings | None = None,
    max_drop: float = MAX_DROP,
) -> Quantised:
    """The int8 file of `trained`, whose float `graph` it is; `remedies`: one of REMEDIES; `settings`: of training;
    `max_drop`: of the share of images that are right, up to which no remedy is tried.

    Raises DataError where the images that it was trained on are gone or others: without them no range is known.
    """
    advice = "bring those images back, or leave tflite-int8 and edgetpu out of --format"
    try:
        train = load_images(trained.dataset, "train", side=trained.given.image_size)
    except DataError as error:
        raise DataError(f"int8 needs images of the training: {error}; {advice}") from error
    if train.fingerprint != trained.dataset_fingerprint:
        raise DataError(f"{train.source} is not what the network was trained on; {advice}, or train again")
    tried = _Tried(trained, graph, metadata, train, calibration_images, settings, max_drop)
    if remedies == "none":
        note: str | None = "what int8 loses was not measured, and no remedy tried, as was asked"
    elif len(tried.held) < MIN_HELD_OUT:
        note = (
            f"only {len(tried.held)} training images can be held out, and to tell a point takes {MIN_HELD_OUT}; so what"
            " int8 loses was not measured, and no remedy tried"
        )
    else:
        note = tried.search(remedies)
    return Quantised(tried.model, tried.record(remedies, note))


class _Tried:
    """What was tried so far, and the best of it: `model`, made from `ready`."""

    def __init__(
        self,
        trained: Trained,
        graph: Graph,
        metadata: Mapping[str, Any],
        train: ImageSet,
        calibration_images: int,
        settings: QuantisedSettings | None,
        max_drop: float,
    ) -> None:
        from edgenas.lower.quantize import as_int8
        from edgenas.train.quantised import MIN_IMAGES, QuantisedSettings

        self._trained, self._graph, self._metadata, self._train = trained, graph, metadata, train
        self._settings, self._min_images = settings or QuantisedSettings(), MIN_IMAGES
        self._max_drop = max_drop
        out = held_out(train.labels)
        self.held, self._free = np.flatnonzero(out), np.flatnonzero(~out)
        if len(self.held) > MAX_HELD_OUT:
            self.held = self.held[np.arange(MAX_HELD_OUT) * len(self.held) // MAX_HELD_OUT]
        self._how: dict[str, Any] = {"count": calibration_images, "ranging": "extremes", "clips": False}
        self.ready = self._prepared(**self._how)
        self.model = as_int8(self.ready, metadata)
        self._tries: list[Try] = []
        self._best: Try | None = None

    def search(self, asked: str) -> str | None:
        """Measure, and try remedies up to what is `asked` while int8 loses too much; what is to be said of that beyond
        the tries."""
        from edgenas.lower.trace import torch_logits

        began_s = time.perf_counter()
        self._expected = np.concatenate([torch_logits(self._trained.network, each) for each in self._parts()]).argmax(1)
        self._float_accuracy = float((self._expected == self._train.labels[self.held]).mean())
        self._keep_better("none", "", self.ready, began_s)
        if self._drop > self._max_drop:
            log.info(
                "int8 is %.1f points less accurate than float on %d training images held out; remedies are tried%s",
                100 * self._drop,
                len(self.held),
                ", the last of which trains for some minutes" if asked == "training" else "",
            )
        for remedy, detail, make in self._remedies(asked):
            if self._drop <= self._max_drop:
                return None
            began_s = time.perf_counter()
            how, ready = make()
            if self._keep_better(remedy, detail, ready, began_s):
                self._how = how
        if self._drop <= self._max_drop:
            return None
        note = f"int8 stays {100 * self._drop:.1f} points less accurate than float on the images held out"
        if asked == "training" and len(self._free) < self._min_images:
            note += f", and {len(self._free)} images are too few to train it on"
        return note

    def _remedies(self, asked: str) -> Iterator[tuple[str, str, Callable[[], tuple[dict[str, Any], Prepared]]]]:
        """Each with what it does in words, and what makes of the best so far another, and by which calibration."""

        def calibrated(**change: Any) -> Callable[[], tuple[dict[str, Any], Prepared]]:
            how = {**self._how, **change}
            return lambda: (how, self._prepared(**how))

        more = min(MORE_IMAGES, len(self._free))
        if more > self._how["count"]:
            yield "calibration", f"{more} calibration images", calibrated(count=more)
        yield "calibration", "ranges without the outermost 0.01 % at either end", calibrated(ranging="percentiles")
        yield "calibration", "ranges of the least squared error", calibrated(ranging="least error")
        yield "clipping", "weights that lie far out cut off, to the least error", calibrated(clips=True)
        yield "biases", "each layer's mean output, as measured, made that of float", lambda: (self._how, self._moved())
        if asked == "training" and len(self._free) >= self._min_images:
            settings = self._settings
            detail = f"{settings.steps} steps of training with rounded weights and activations, taught by float"
            yield "training", detail, lambda: (self._how, self._learnt())

    def _prepared(self, count: int, ranging: Ranging, clips: bool) -> Prepared:
        from edgenas.lower.quantize import prepared

        return prepared(self._graph, self._metadata, self._calibration(count), ranging, clips)

    def _moved(self) -> Prepared:
        from edgenas.lower.corrections import with_measured_biases

        return with_measured_biases(self.ready, self._graph, self._calibration(self._how["count"]))

    def _learnt(self) -> Prepared:
        from edgenas.train.quantised import QuantisedTraining

        given, began_s = self._trained.given, time.perf_counter()
        training = QuantisedTraining(
            self.ready, self._graph, self._train, self._free, given.mean, given.std, self._settings
        )
        for step in training:
            if step in _TELLS or step % _TELLS[-1] == 0:
                left_s = (time.perf_counter() - began_s) * (self._settings.steps / step - 1)
                log.info("training for int8: step %d of %d, about %.0f s left", step, self._settings.steps, left_s)
        return training.trained

    def _calibration(self, count: int) -> NDArray[np.float32]:
        labels = self._train.labels[self._free]
        chosen = batch_indexes(replace(self._train, labels=labels), min(count, len(labels)), 0)
        return normalised(self._train.images[self._free[chosen]], self._trained.given)

    def _parts(self) -> Iterator[NDArray[np.float32]]:
        """The images held out, a few at a time."""
        for start in range(0, len(self.held), _AT_ONCE):
            yield normalised(self._train.images[self.held[start : start + _AT_ONCE]], self._trained.given)

    def _keep_better(self, remedy: str, detail: str, ready: Prepared, began_s: float) -> bool:
        """Measure what `ready` gives, and keep it where it is better than the best so far; whether it is."""
        from edgenas.lower.quantize import as_int8

        model = as_int8(ready, self._metadata)
        found = np.concatenate([run_model(model, each) for each in self._parts()]).argmax(axis=1)
        accuracy = float((found == self._train.labels[self.held]).mean())
        drop = round(self._float_accuracy - accuracy, 6)
        agreement = float((found == self._expected).mean())
        self._tries.append(Try(remedy, detail, accuracy, drop, agreement, round(time.perf_counter() - began_s, 1)))
        if remedy != "none":
            log.info("%s (%s): int8 is %+.1f points from float", remedy, detail, -100 * drop)
        better = self._best is None or accuracy > self._best.accuracy
        if better:
            self._best, self.ready, self.model = self._tries[-1], ready, model
        return better

    @property
    def _drop(self) -> float:
        assert self._best is not None
        return self._best.accuracy_drop

    def record(self, asked: str, note: str | None) -> dict[str, Any]:
        """What export.json holds of it."""
        best = self._best
        return {
            "asked": asked,
            "held_out_images": 0 if best is None else len(self.held),
            "float_accuracy": None if best is None else self._float_accuracy,
            "max_drop": self._max_drop,
            "tries": [asdict(each) for each in self._tries],
            "chosen": None if best is None else self._tries.index(best),
            "weights": _LEARNT if best is not None and best.remedy == "training" else _OWN,
            "note": note,
        }

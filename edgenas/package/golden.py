"""The golden images: a few of the test split, and torch's logits for them, to check a model by on other machines."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgenas.architecture import InputSpec
from edgenas.data.images import ImageSet
from edgenas.errors import ExportError
from edgenas.lower.verify import compare, run_model

if TYPE_CHECKING:
    from edgenas.train.files import Trained

CANDIDATES = 1000  # at most, of the test split
GOLDEN_IMAGES = 8
MAX_RELATIVE_ERROR = 0.9  # of a golden image; zeros have 1, and are not to pass


@dataclass(frozen=True, eq=False)
class GoldenImages:
    """`images` uint8 [n, h, w, 3], the same `normalised` float32 [n, 3, h, w], `logits` float32 [n, classes] of torch,
    `labels` int64 [n]."""

    images: NDArray[np.uint8]
    normalised: NDArray[np.float32]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]

    def relative_error(self, model: bytes) -> float:
        """Of the worst of the images, each by its own largest logit, as the package's runner sees it."""
        found = run_model(model, self.normalised)
        pairs = zip(found[:, None], self.logits[:, None], strict=True)
        return max(compare(one, expected).relative_error for one, expected in pairs)


def choose(trained: Trained, test: ImageSet, models: Collection[bytes]) -> GoldenImages:
    """Clear cases, so that the check tests the machine and not the network: of each class in turn the test image that
    torch is as sure of as of most, among those that all files put in torch's class by logits like torch's.

    Raises ExportError where there is none."""
    from edgenas.lower.trace import torch_logits

    count = min(CANDIDATES, len(test.labels))
    some = np.unique(np.linspace(0, len(test.labels) - 1, count).astype(int))
    images = test.images[some]
    as_read = normalised(images, trained.given)
    logits = torch_logits(trained.network, as_read)
    predicted = logits.argmax(axis=1)
    ordered = np.sort(logits, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    typical = np.argsort(np.abs(margin - np.median(margin)), kind="stable")  # the surest would saturate int8
    seen: Counter[int] = Counter()
    turns = []  # (how-manieth of its class, class, image)
    for i in map(int, typical):
        turns.append((seen[predicted[i]], int(predicted[i]), i))
        seen[predicted[i]] += 1
    chosen: list[int] = []
    for *_, i in sorted(turns):
        if all(_is_like(run_model(model, as_read[i : i + 1]), logits[i : i + 1]) for model in models):
            chosen.append(i)
        if len(chosen) == GOLDEN_IMAGES:
            break
    if not chosen:
        raise ExportError("the files agree with torch on no image of the test split; train longer")
    return GoldenImages(images[chosen], as_read[chosen], logits[chosen], test.labels[some][chosen])


def _is_like(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Whether logits [1, classes] are of the same class as those expected, and nearer to them than none are."""
    same = bool(found.argmax() == expected.argmax())
    return same and compare(found, expected).relative_error < MAX_RELATIVE_ERROR


def normalised(images: NDArray[np.uint8], given: InputSpec) -> NDArray[np.float32]:
    """uint8 [n, h, w, 3] as the network takes them: float32 [n, 3, h, w]."""
    scaled = images.astype(np.float32) / np.float32(255)
    centred = (scaled - np.asarray(given.mean, np.float32)) / np.asarray(given.std, np.float32)
    return np.ascontiguousarray(centred.transpose(0, 3, 1, 2))


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()

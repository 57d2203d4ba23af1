"""What a training depends on besides architecture, images and teacher."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgenas.architecture import INITS, NetworkSize
from edgenas.errors import UsageError
from edgenas.text import printable
from edgenas.units import check_ranges

if TYPE_CHECKING:
    from edgenas.data.images import ImageSet

# All classes as they are; the loss of an image weighted by how rare its class is; or images of rare classes shown more
# often, those of frequent ones less.
BALANCES = ("none", "weights", "sampling")
MAX_IMBALANCE = 3.0  # beyond so many times the images of the smallest class in the largest, "weights" is the default


@dataclass(frozen=True)
class TrainSettings:
    """`patience`: None, or stop after so many epochs without a better accuracy on a fifth of the training images, held
    out for that, and keep the best epoch's weights. Raises UsageError for a value that trains nothing.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 0.1  # at the start; a cosine brings it to 0 at the end
    weight_decay: float = 5e-4
    seed: int = 0
    patience: int | None = None
    init: str = "random"  # or "inherited": the weights that the network begins with
    warmup_epochs: int = 0  # in which the rate rises from 0
    classifier_rate: float = 1.0  # the classifier's rate is so many times that of the other weights
    min_crop: float = 1.0  # below 1, images are crops of at least this share of their area; else they are shifted a bit
    flip: bool = True  # mirror half of the images, but of data sets that edgenas.train.batches knows to be one-sided
    colour: float = 0.0  # brightness, contrast and saturation of an image change by up to this share
    balance: str = "none"  # of BALANCES: how rare classes count as much as frequent ones
    size: NetworkSize = field(default_factory=dict, hash=False)  # what it lacks is as the space deploys its networks

    def __post_init__(self) -> None:
        for valid, problem in (
            (self.epochs >= 1, f"--epochs {self.epochs} trains nothing; give 1 or more"),
            (self.batch_size >= 2, f"--batch-size {self.batch_size} is too small for batch norm; give 2 or more"),
            (0 < self.learning_rate < math.inf, f"--learning-rate {self.learning_rate} is not positive; give 0.1"),
            (0 <= self.weight_decay < math.inf, f"--weight-decay {self.weight_decay} is negative; give 0.0005"),
            (self.seed >= 0, f"--seed {self.seed} is negative; give 0 or more"),
            (self.init in INITS, f"--init {printable(self.init, 40)} is unknown; give {' or '.join(INITS)}"),
            (
                0 <= self.warmup_epochs <= self.epochs,
                f"--warmup-epochs {self.warmup_epochs} are not within the {self.epochs} of the training; give fewer",
            ),
            (
                0 < self.classifier_rate < math.inf,
                f"--classifier-rate {self.classifier_rate} is not positive; give 1 or more",
            ),
            (0 <= self.colour < 1, f"--colour {self.colour} is no share to change colours by; give one like 0.2"),
            (
                self.balance in BALANCES,
                f"--balance {printable(self.balance, 40)} is unknown; give one of {', '.join(BALANCES)}",
            ),
            (0 < self.min_crop <= 1, f"--min-crop {self.min_crop} is no share of an image; give one like 0.5"),
            (self.patience is None or self.patience >= 1, f"--patience {self.patience} never waits; give 1 or more"),
        ):
            if not valid:
                raise UsageError(problem)
        check_ranges(**vars(self))


# What came later than the first trainings, and what these had.
LATER = {
    "init": "random",
    "warmup_epochs": 0,
    "classifier_rate": 1.0,
    "min_crop": 1.0,
    "flip": True,
    "colour": 0.0,
    "balance": "none",
}

# How a network that begins with inherited weights is trained on photos (docs/figures.md, "Networks for real images").
FINE_TUNING: Mapping[str, Any] = {
    "epochs": 12,
    "batch_size": 32,
    "learning_rate": 0.02,
    "weight_decay": 1e-4,
    "warmup_epochs": 1,
    "classifier_rate": 5.0,
    "min_crop": 0.4,
}


def default_balance(image_set: ImageSet) -> str:
    """Of BALANCES, "weights" where the largest class has more than MAX_IMBALANCE times the images of the smallest."""
    counts = Counter(image_set.labels.tolist()).values()
    return "weights" if max(counts) > MAX_IMBALANCE * min(counts) else "none"


def default_epochs(image_set: ImageSet, batch_size: int = TrainSettings.batch_size) -> int:
    """Digits are learned in 15 epochs; natural images take 100, or 120 where they are few, and 1,000 steps at least."""
    count = len(image_set.images)
    if image_set.name == "digits":
        return 15
    return 100 if count >= 20_000 else max(120, math.ceil(1_000 * batch_size / count))

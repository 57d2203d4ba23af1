"""How good an architecture is: `table` looks a score up, `live` trains for it (Eq. 2 and 3).

A fitness plug-in is a function `create(space, dataset, settings) -> Fitness`, registered under `edgenas.fitness`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from edgenas.architecture import FORMER_NAMES, NetworkSize, SearchSpace, flat, network_size
from edgenas.errors import UsageError
from edgenas.text import printable

REFERENCES = {"resnet20": 20, "resnet56": 56}  # reference networks by name, and their depth
SUPERNET = "supernet"  # the reference that is the largest network of a space whose networks inherit weights
FLOAT32, INT8 = "float32", "int8"  # numbers that networks are deployed with
PUBLISHED = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")  # references trained on ImageNet


@dataclass(frozen=True)
class FitnessSettings:
    """Everything a score depends on besides the architecture, the data set and the reference's weights.

    The defaults are the default preset, in which phi is mixed with the MACs. 10 steps are
    enough (docs/figures.md, "Scores"). PAPER is the paper's.
    """

    epochs: int = 10  # training steps on the one batch; the paper calls them epochs (N_train)
    init: str = "random"  # or inherited: where a candidate's weights come from; inherited ones need no step
    beta: float = 0.8  # weight of the representation term in Eq. 3, in [0, 1]
    batch_size: int = 32  # images in the one batch
    size: NetworkSize = field(
        default_factory=dict, hash=False
    )  # of the network; what it lacks is as the space declares
    full_size: bool = False  # declares for deployed networks, not for scored ones
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    centred: bool = True  # centre the Gram matrices, as the authors of RMI do
    reference: str = "resnet20"  # of REFERENCES, SUPERNET, of PUBLISHED, a file of weights, or a network's own file
    taps: tuple[str, ...] = ()  # of that last: the names of the layers whose maps are compared
    seed: int = 0
    repeats: int = 1  # the score is the mean over so many batches and initial weights, of the seeds from `seed` on
    # How it is computed, not what: none of these ties a search to a table of scores.
    precision: str = "auto"  # of feature maps: float32, bfloat16, or "auto", which is bfloat16 where that is fast
    eval_steps: tuple[int, ...] = ()  # steps before the last after which phi and the loss are evaluated too, ascending
    engine: str = "local"  # where: local, ray, or ray at an address (edgenas.fitness.engine)
    halving: bool = False  # stop the worse half after a quarter, and of the others after half of the steps


@dataclass(frozen=True)
class RefineSettings:
    """How a shortlist is trained briefly on real images (edgenas.fitness.refiner), by the seed of FitnessSettings.

    `rungs`: images seen at which architectures are compared, ascending; after each but the last the better half goes
    on.
    """

    rungs: tuple[int, ...] = (25_600, 51_200, 102_400)
    batch_size: int = 128
    # Of the network; what it lacks is as the space declares for scored ones (docs/figures.md, "What settings rest on").
    size: NetworkSize = field(default_factory=dict, hash=False)
    # Blocks of so many pixels a side become one, where 16 a side are left: a quarter of the work for an image, and the
    # ranks need more steps rather than more pixels (as in EcoNAS, Zhou et al., CVPR 2020).
    shrink: int = 2
    learning_rate: float = 0.2  # constant: the averaged weights do what a falling rate would
    momentum: float = 0.9
    weight_decay: float = 5e-4
    averaging: int = 8  # eta of polynomial-decay averaging: step t enters the average by (eta + 1) / (t + eta)
    calibration_images: int = 1024  # of training, on which the averaged weights' batch norms are estimated anew
    val_images: int = 4000  # at most
    # After the first rung the training images are not gone through more often: a small set is learnt by heart, and the
    # loss on what was held out says less (docs/figures.md, "What settings rest on").
    max_epochs: int = 10
    # Of networks that begin with inherited weights, as edgenas.train.settings has them.
    init: str = "random"
    classifier_rate: float = 1.0
    min_crop: float = 1.0
    flip: bool = True  # mirror half of the images
    deployed: str = FLOAT32  # or INT8: what counts on the last rung is what the int8 file is worth

    def __post_init__(self) -> None:
        if any(images % self.batch_size for images in (*self.rungs, self.calibration_images)):
            raise ValueError(f"rungs and calibration are to be whole batches of {self.batch_size} images")

    def for_count(self, count: int) -> RefineSettings:
        """With rungs, each at twice the images of the one before, until two of `count` architectures are left."""
        rungs = self.rungs
        while count > 2 ** len(rungs):
            rungs = (*rungs, 2 * rungs[-1])
        return replace(self, rungs=rungs)

    def for_images(self, images: int) -> RefineSettings:
        """With the first rung, and those that go through `images` to train on no more often than they may."""
        first, *others = self.rungs
        return replace(self, rungs=(first, *(rung for rung in others if rung <= self.max_epochs * images)))


# How photos are: as deployed, only briefly; nothing is shrunk, for an architecture has its own resolution. What
# equals FINE_TUNING of edgenas.train is not taken from there: each recipe was measured as a whole, and a change of one
# is none of the other.
PHOTOS_REFINED = RefineSettings(
    rungs=(1_600, 3_200, 6_400),
    batch_size=32,
    shrink=1,
    learning_rate=0.01,
    weight_decay=1e-4,
    calibration_images=512,
    val_images=1000,
    init="inherited",
    classifier_rate=5.0,
    min_crop=0.5,
)

# No score depends on these.
HOW_ONLY = frozenset({"eval_steps", "engine"})
PAPER = FitnessSettings(epochs=100, full_size=True)


Settings = TypeVar("Settings", FitnessSettings, RefineSettings)


def size_of(space: SearchSpace, settings: FitnessSettings | RefineSettings) -> dict[str, int]:
    """That of the networks that `settings` train. Raises UsageError for one that `space` does not have."""
    return network_size(space, settings.size, isinstance(settings, FitnessSettings) and settings.full_size)


def sized(space: SearchSpace, settings: Settings) -> Settings:
    """`settings` with every entry of the size that networks of `space` have. Raises what `size_of` does."""
    changes: dict[str, Any] = {"size": size_of(space, settings)}
    if isinstance(settings, FitnessSettings):
        changes["full_size"] = False
    return replace(settings, **changes)


def identified(space: SearchSpace, settings: Settings, without: Collection[str] = ()) -> dict[str, Any]:
    """`settings` as fingerprints hold them, but those `without` which the same is found: by the names that they first
    had, so that what an earlier version scored is still known."""
    first = {today: former for former, today in FORMER_NAMES.items()}
    # Not there before, when all were so.
    later = {"init": "random", "classifier_rate": 1.0, "min_crop": 1.0, "flip": True}
    return {
        first.get(name, name): value
        for name, value in flat(sized(space, settings)).items()
        if name not in without and (name not in later or value != later[name])
    }


def check_reference(choice: str, taps: Sequence[str] = ()) -> None:
    """Look at what names a reference, and at the layers `taps` of a network of the user's own. Raises UsageError for
    what is neither a known name nor a file, and for taps that are needed or are not, DataError for a file that cannot
    be read."""
    named = choice in (*REFERENCES, SUPERNET, *PUBLISHED)
    path = os.path.expanduser(choice)
    if not named and not os.path.isfile(path):
        known = ", ".join((*REFERENCES, SUPERNET, *PUBLISHED))
        raise UsageError(
            f"no reference '{printable(choice)}'; give {known} or the path of a file of weights or of a network"
        )
    from edgenas.data.torch_program import is_program  # here: most commands look at no such file

    own = not named and is_program(Path(path))
    if own and not taps:
        raise UsageError(
            f"the network {printable(choice)} needs the names of the layers whose maps are compared; give them like"
            " --taps layer1,layer2"
        )
    if taps and not own:
        raise UsageError(
            f"--taps names layers of a network of your own, and the reference {printable(choice)} is none; leave --taps"
            " out, or give a file of torch.export or TorchScript by --reference"
        )
    if len(set(taps)) < len(taps) or not all(taps):
        raise UsageError(f"--taps {printable(','.join(taps), 100)} names a layer twice, or none; name each once")

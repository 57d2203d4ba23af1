"""python -m tests.benchmarks.int8_remedies RUN...: what int8 loses, and what each remedy gives back.

Of the network trained in each RUN every remedy is tried, whatever the one before came to, in the order and on top of
each other as `edgenas export` does. Which is kept is decided on training images held out, as there. What is printed
is the accuracy of what is kept so far, less that of float, on the test images, which decide nothing; and on those held
out. `--seeds`: of the training with rounded weights; `--remedies`: up to which.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from edgenas import run as runs
from edgenas.data.images import ImageSet, load_images
from edgenas.lower import lower
from edgenas.lower.trace import torch_logits
from edgenas.lower.verify import run_model
from edgenas.package import remedies
from edgenas.package.export import CALIBRATION_IMAGES
from edgenas.package.golden import normalised
from edgenas.train.files import Trained, load_trained
from edgenas.train.quantised import QuantisedSettings

TEST_IMAGES, AT_ONCE = 1000, 50


class Watched(remedies._Tried):
    """Notes what is kept after each remedy: its name, and the loss in points on test images and on those held out."""

    def __init__(self, trained: Trained, train: ImageSet, test: ImageSet, settings: QuantisedSettings) -> None:
        count = min(TEST_IMAGES, len(test.labels))
        chosen = np.arange(count) * len(test.labels) // count
        self.images, self.labels = test.images[chosen], test.labels[chosen]
        self.of, self.found = trained, list[tuple[str, float, float, float]]()
        graph = lower(trained.network, torch.zeros(1, *trained.given.shape))
        super().__init__(trained, graph, {}, train, CALIBRATION_IMAGES, settings, max_drop=-1.0)  # none is enough
        self.float_accuracy = self.right(lambda images: torch_logits(trained.network, images))

    def right(self, logits_of: Any) -> float:
        """The share, in [0, 1], of test images."""
        right = 0
        for start in range(0, len(self.labels), AT_ONCE):
            images = normalised(self.images[start : start + AT_ONCE], self.of.given)
            right += int((logits_of(images).argmax(1) == self.labels[start : start + AT_ONCE]).sum())
        return right / len(self.labels)

    def _keep_better(self, remedy: str, detail: str, ready: Any, began_s: float) -> bool:
        better = super()._keep_better(remedy, detail, ready, began_s)
        accuracy = self.right(lambda images: run_model(self.model, images))
        name = detail or "as it is"
        self.found.append((name, 100 * (accuracy - self.float_accuracy), -100 * self._drop, self._tries[-1].seconds))
        return better


def tried(path: str, seed: int, asked: str) -> Watched:
    trained = load_trained(runs.open_trained(path).path)
    train, test = (load_images(trained.dataset, part, side=trained.given.image_size) for part in ("train", "test"))
    watched = Watched(trained, train, test, replace(QuantisedSettings(), seed=seed))
    if len(watched.held) < remedies.MIN_HELD_OUT:
        raise SystemExit(f"{path}: only {len(watched.held)} training images can be held out, too few to tell a point")
    watched.search(asked)
    return watched


def main(options: argparse.Namespace) -> None:
    for path in options.runs:
        each = [tried(path, seed, options.remedies) for seed in range(options.seeds)]
        first = each[0]
        print(
            f"{path}: {first.of.arch_str}\n  float {100 * first.float_accuracy:.2f} % of {len(first.labels)} test"
            f" images, {len(first.held)} training images held out, {len(each)} seed{'s' * (len(each) > 1)}"
        )
        print(f"  {'TEST':>7}  {'HELD OUT':>8}  {'SECONDS':>7}  points against float, of what is kept after")
        for rows in zip(*(watched.found for watched in each), strict=True):
            test, held, seconds = (statistics.mean(row[place] for row in rows) for place in (1, 2, 3))
            spread = statistics.pstdev(row[1] for row in rows)
            print(f"  {test:+7.2f}  {held:+8.2f}  {seconds:7.0f}  {rows[0][0]}{f' (± {spread:.2f})' if spread else ''}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--remedies", choices=remedies.REMEDIES[1:], default=remedies.REMEDIES[-1])
    main(parser.parse_args())

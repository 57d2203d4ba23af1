"""A job's winner beside what else makes a network small: `python -m tests.benchmarks.auto_peers JOB`.

JOB is the folder of an ended `edgenas auto --baseline`. All rows are of its photos, and have the time of its winner's
training (`--minutes`: another). As other programs may have come or gone since, that is what the epochs of the winner's
training take now: before each training the speed of both is found.

- the winner and the stock network, as JOB has them
- pruned by magnitude (tests/benchmarks/pruning.py): the stock network at the winner's resolution is fine-tuned for half
  of the time, loses channels until it has the winner's MACs at most, and is fine-tuned for the other half; both by the
  recipe of the winner's training. Where it would lose more than half of its MACs, the same at the highest resolution at
  which it does not, too
- `compress_cnn` of dnaty, where `--dnaty` names an interpreter that has it (PyPI, with torch and torchvision in an
  environment of its own). It is given the network that is pruned above, before that, the share of its MACs that the
  winner has, all training photos, and the whole time: what it takes of the network is the number of its classes

Test accuracy is that of the model file in JOB's format on the test photos, 1,000 at most, as `edgenas package` checks
it; int8 files had the same remedies. Latency is measured on this host after all training, one row after another.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from edgenas import device as devices
from edgenas.architecture import Architecture, InputSpec, SearchRequest
from edgenas.auto.job import SEARCH, STOCK
from edgenas.auto.plan import epochs_within
from edgenas.board import registry
from edgenas.board.measure import Measured, Tier
from edgenas.board.model import Model, with_golden
from edgenas.board.pool import BoardPool
from edgenas.data.inputs import images_for
from edgenas.errors import ExportError
from edgenas.lower import LOWERING_VERSION
from edgenas.package.export import FORMATS, export_trained
from edgenas.package.golden import normalised
from edgenas.search.request import PRESETS
from edgenas.spaces.mobilenet.network import MobileNet
from edgenas.train.files import Trained
from edgenas.train.loop import Training
from edgenas.train.speed import seconds_of
from tests.benchmarks.dnaty_peer import assembled, run_peer
from tests.benchmarks.ended_job import Job, open_job
from tests.benchmarks.pruning import RANKINGS, FineTuning, Ranking, macs_of, pruned

MILD = 0.5  # of the MACs that are left
MAX_OVERRUN, MIN_PEER_S = 4, 600.0  # times its time, and seconds, before the peer is stopped


@dataclass
class Row:
    """`epochs` and `seconds` of training; `problem`: why there is no network. `model` and what follows: of its file."""

    name: str
    trained: Trained | None = None
    epochs: str = ""
    seconds: float | None = None
    said_ms: float | None = None
    problem: str | None = None
    model: Model | None = None
    test_accuracy: float | None = None  # %
    measured_ms: float | None = None


class Tuned(NamedTuple):
    """`spent`: of the time, in epochs of the winner's training."""

    network: MobileNet
    epochs: int
    seconds: float
    spent: float


class Peers:
    """Networks that are made beside those of `job`, each in the time of its winner's training, or in so many `minutes`;
    `folder` is for trainings."""

    def __init__(self, job: Job, folder: Path, ranking: Ranking, minutes: float | None) -> None:
        self.job, self.folder, self.ranking = job, folder, ranking
        self.side = job.space.resolution(job.winner.arch)
        self.most_macs = macs_of(job.winner.network, self.side)
        self._tuned: dict[int, Tuned] = {}
        # In epochs of the winner's training, whatever else this machine does.
        self.time = (
            float(job.epochs) if minutes is None else 60 * minutes / self._epoch_s(job.winner.network, self.side)
        )

    def _epoch_s(self, network: nn.Module, side: int) -> float:
        """What an epoch takes now."""
        return seconds_of(deepcopy(network).requires_grad_(), side, self.job.classes) * self.job.photos

    def rows(self, dnaty: str | None) -> Iterator[Row]:
        yield self._row_of_job("the winner of the search", SEARCH, "train", self.job.winner)
        if self.job.stock is None:
            yield Row("the stock network", problem="none within the limits, or it is the winner")
        else:
            yield self._row_of_job("the stock network", STOCK, "baseline", self.job.stock)
        yield self._pruned(self.side)
        if self._share(self.side) < MILD:
            for side in [each for each in self.job.space.resolutions if self._share(each) >= MILD][-1:]:
                yield self._pruned(side)
        yield self._compressed(dnaty)

    def _row_of_job(self, name: str, folder: str, step: str, trained: Trained) -> Row:
        done = self.job.record["done"][step]
        return Row(name, trained, str(done["epochs"]), done["seconds"], self.job.said_ms(folder))

    def _stock(self, side: int) -> Architecture:
        return self.job.space.at_resolution(self.job.space.largest(), side)

    def _share(self, side: int) -> float:
        """Of the MACs of the stock network at `side` pixels, that the winner has."""
        macs_m = self.job.space.macs_m(self._stock(side), num_classes=self.job.classes, image_size=side)
        return self.most_macs / (1e6 * macs_m)

    def _pruned(self, side: int) -> Row:
        name = f"stock at {side} pixels, pruned to {100 * min(1.0, self._share(side)):.0f} % of its MACs"
        tuned = self._fine_tuned(side)
        try:
            smaller = pruned(tuned.network, side, self.most_macs, self.ranking)
        except ValueError as error:
            return Row(name, problem=str(error))
        found = self._trained(side, self.time - tuned.spent, smaller)
        trained = self._made(found.network, side, "pruned by magnitude")
        return Row(name, trained, f"{tuned.epochs}+{found.epochs}", tuned.seconds + found.seconds)

    def _fine_tuned(self, side: int) -> Tuned:
        """The stock network, for half of the time."""
        if side not in self._tuned:
            self._tuned[side] = self._trained(side, self.time / 2)
        return self._tuned[side]

    def _trained(self, side: int, most: float, network: MobileNet | None = None) -> Tuned:
        """`network`, or the stock one with inherited weights, trained for as long as `most` epochs of the winner's
        training take."""
        job, arch = self.job, self._stock(side)
        images, test = (images_for(job.space, arch, job.dataset, part) for part in ("train", "test"))
        own_s = self._epoch_s(network or job.space.build(arch, job.classes), side)
        times = own_s / self._epoch_s(job.winner.network, self.side)
        epochs = epochs_within(most, times, PRESETS[SearchRequest.preset].max_epochs)
        settings = replace(job.recipe, epochs=epochs, patience=epochs)
        name = f"{'stock' if network is None else 'pruned'}-{side}"
        how = (self.folder / name / "train", job.space, arch, job.dataset, images, test, settings)
        began_s = time.perf_counter()
        training = Training(*how) if network is None else FineTuning(network, *how)
        for step in training:
            if step % training.steps_per_epoch == 0:
                progress(f"{name}: {training.state}")
        found = training.network.cpu().eval().requires_grad_(False)
        assert isinstance(found, MobileNet)
        return Tuned(found, epochs, time.perf_counter() - began_s, epochs * times)

    def _made(self, network: nn.Module, side: int, what: str) -> Trained:
        """`network` as what it is to be exported as."""
        images = images_for(self.job.space, self._stock(side), self.job.dataset)
        given = InputSpec((3, side, side), len(images.class_names), images.mean, images.std)
        return replace(
            self.job.winner,
            arch=self._stock(side),
            arch_str=what,
            network=network,
            given=given,
            dataset_fingerprint=images.fingerprint,
        )

    def _compressed(self, python: str | None) -> Row:
        name = "dnaty's compress_cnn"
        if python is None:
            return Row(name, problem="skipped: --dnaty PYTHON names no interpreter that has it")
        side, folder = self.side, self.folder / "dnaty"
        folder.mkdir()
        images = images_for(self.job.space, self._stock(side), self.job.dataset)
        torch.save(self._fine_tuned(side).network, folder / "network.pt")
        np.save(folder / "images.npy", images.images)
        np.save(folder / "labels.npy", images.labels)
        seconds = self.time * self._epoch_s(self.job.winner.network, side)
        task = {
            "mean": images.mean,
            "std": images.std,
            "seconds": seconds,
            "target_flops": min(1.0, self._share(side)),
            "seed": self.job.request.seed,
        }
        (folder / "task.json").write_text(json.dumps(task))
        progress(f"{name}: {seconds / 60:.1f} min")
        said = run_peer(python, folder, max(MIN_PEER_S, MAX_OVERRUN * seconds))
        if "problem" in said:
            return Row(name, problem=said["problem"])
        network = assembled(folder)
        epochs = f"{said['generations']} x {said['population']}"
        row = Row(f"{name} {said['version']}", self._made(network, side, "dnaty"), epochs, said["seconds"])
        if macs_of(network, side) > self.most_macs:
            row.problem = "more MACs than the winner has"
        progress(f"{name}: {said['summary']}")
        return row


def evaluate(row: Row, job: Job, folder: Path) -> None:
    """Write the model file of `row`, and look what it is worth on the test photos."""
    assert row.trained is not None
    kind = FORMATS[job.form]
    try:
        record = export_trained(row.trained, folder, [kind.name])
    except ExportError as error:
        row.problem = str(error)
        return
    (found,) = record["models"]
    row.test_accuracy = 100 * found["checked"]["accuracy"]
    progress(f"{row.name}: {row.test_accuracy:.2f} %")
    images = normalised(np.load(folder / record["golden"]["input"])[:1], row.trained.given)
    row.model = with_golden((folder / kind.file).read_bytes(), images, lowering_version=LOWERING_VERSION)


def measure(rows: Sequence[Row], form: str) -> None:
    """Time the model files of `rows` on this host."""
    device = devices.deploying(devices.load("host"), form)
    assert device.measurement is not None
    with BoardPool([registry.local("here", "host")], device, anew=True) as pool:
        for row in rows:
            if row.model is not None:
                outcome = pool.one(row.model, Tier.final(device.measurement))
                if isinstance(outcome, Measured):
                    row.measured_ms = outcome.summary.median_ms
                else:
                    row.problem = outcome.error


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def line(row: Row) -> str:
    if row.trained is None:
        return f"{row.name:<50} {row.problem}"
    network, side = row.trained.network, row.trained.given.image_size
    macs_m = macs_of(network, side) / 1e6
    params_m = sum(each.numel() for each in network.parameters()) / 1e6
    minutes = None if row.seconds is None else row.seconds / 60
    return (
        f"{row.name:<50} {side:>6} {shown(row.test_accuracy):>7} {macs_m:>7.2f} {params_m:>8.3f}"
        f" {shown(row.measured_ms, 3):>7} {shown(row.said_ms, 3):>7} {row.epochs:>8} {shown(minutes, 1):>7}"
        f"  {row.problem or ''}"
    ).rstrip()


def main(options: argparse.Namespace) -> None:
    job = open_job(options.job.absolute())
    with tempfile.TemporaryDirectory() as temporary:
        peers = Peers(job, Path(temporary), options.ranking, options.minutes)
        limits = ", ".join(f"{name} {value:g}" for name, value in job.request.limits.items())
        how = f"the time of {peers.time:.1f} epochs of the winner, {options.ranking} ranking"
        print(f"{job.path}: {limits}, {job.form}; {how}", flush=True)
        rows = list(peers.rows(options.dnaty))
        for number, row in enumerate(rows):
            if row.trained is not None:
                evaluate(row, job, Path(temporary) / f"files-{number}")
        measure(rows, job.form)
    heads = f"{'NETWORK':<50} {'PIXELS':>6} {'TEST %':>7} {'MACS M':>7} {'PARAMS M':>8}"
    print(f"{heads} {'MS':>7} {'IN JOB':>7} {'EPOCHS':>8} {'MINUTES':>7}")
    for row in rows:
        print(line(row))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--minutes", type=float, help="of training each; default: what the winner's took")
    parser.add_argument("--ranking", choices=RANKINGS, default="global", help="of channels, for pruning")
    parser.add_argument("--dnaty", metavar="PYTHON", help="an interpreter that has dnaty")
    main(parser.parse_args())

"""Training a network at full size: one plain loop, and the files it leaves in a run's folder `train`.

    checkpoint.pt   after every epoch: all that the next one depends on
    metrics.jsonl   one line an epoch
    split.csv       which images are for training, validation and testing, where a list says so
    model.pt        at the end: weights, architecture, normalisation, class names, fingerprint of the images
    result.json     at the end: the accuracy on the test split, of each class too

Every random choice follows from the seed and the number of the epoch or step. So a checkpoint needs no generator's
state, and going on from it gives, on the same CPU, the very weights that an uninterrupted training gives.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgenas.architecture import Architecture, SearchSpace, flat, network_size, supernet_for
from edgenas.data.images import ImageSet, validating
from edgenas.data.torch_file import weights
from edgenas.errors import DataError, EdgeNASError, UsageError
from edgenas.schema import checked
from edgenas.schema.types import Best, Epoch
from edgenas.train.batches import (
    NOT_FLIPPED,
    PADDING,
    accuracy,
    augmented,
    class_weights,
    normalised,
    parameter_groups,
    predicted,
)
from edgenas.train.device import half_precision, training_device
from edgenas.train.files import (
    check_state,
    clear,
    damaged,
    held,
    read_result,
    read_torch,
    restart,
    tensorboard,
    write,
    write_json,
    write_torch,
)
from edgenas.train.inherited import own, recalibrate
from edgenas.train.settings import LATER, TrainSettings

log = logging.getLogger(__name__)

MOMENTUM = 0.9
CALIBRATION_IMAGES, _CALIBRATION_BATCH = 1024, 64  # by which batch norms of inherited weights are estimated
TEMPERATURE, TEACHER_WEIGHT = 4.0, 0.5  # of distillation
_MAX_GPU_SHARE = 0.5  # of the memory that is free there, for images
_MAX_CONFUSION = 100  # classes whose confusion is written down


class Training:
    """A training that is ready to go: iterate over it, for one step an item, then ask for `result`.

    `folder`: RUN/train. `dataset`: the name under which `images` (its training split) and `test` were loaded.
    `teacher`: None, or a network in evaluation mode from images scaled to [0, 1], float [b, 3, h, w], to logits, which
    the network learns from besides the labels (Hinton et al., arXiv:1503.02531); `teacher_source` says which.
    `split`: what split.csv is to hold, None for no such file.
    `resume` goes on from the checkpoint, `restart` replaces what was trained there; else the folder must hold nothing.
    Nothing is written before it is iterated over, and nothing at all where a training that had ended is resumed.
    """

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        arch: Architecture,
        dataset: str,
        images: ImageSet,
        test: ImageSet,
        settings: TrainSettings,
        teacher: nn.Module | None = None,
        teacher_source: str | None = None,
        resume: bool = False,
        restart: bool = False,
        split: bytes | None = None,
    ) -> None:
        self.folder, self.images, self.test, self.settings = folder, images, test, settings
        self._split = split
        self.resume, self.restart, self._begun = resume, restart, resume
        self.device = training_device()
        self.teacher = teacher.to(self.device) if teacher is not None else None
        kept_out = validating(images) if settings.patience else np.zeros(len(images.labels), bool)
        self.train_indexes, self.val_indexes = np.flatnonzero(~kept_out), np.flatnonzero(kept_out)
        self.batch_size = min(settings.batch_size, len(self.train_indexes))
        if min(images.images.shape[1:3]) <= PADDING:
            raise UsageError(f"{images.source} has images too small to train on; give larger ones")
        if self.batch_size < 2 or (settings.patience and not len(self.val_indexes)):
            raise UsageError(f"{images.source} has too few images to train on so; add some, or leave --patience out")
        self.steps_per_epoch = len(self.train_indexes) // self.batch_size  # what an epoch leaves over is left out
        self.size = network_size(space, settings.size, deployed=True)
        self.settings = settings = replace(settings, size=self.size)
        # What a checkpoint must agree in, to be gone on with.
        self.identity = {
            "space": space.name,
            "genes": list(arch.genes),
            "arch_str": space.describe(arch),
            "dataset": dataset,
            "dataset_fingerprint": images.fingerprint,
            "teacher": teacher_source,
            "settings": flat(settings),
        }
        self.steps_done = 0
        self.history: list[dict[str, Any]] = []  # the lines of metrics.jsonl
        self.best: dict[str, Any] | None = None  # of the validation: accuracy and weights

        self.network = self._begin_network(space, arch)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            parameter_groups(self.network, settings.classifier_rate),
            settings.learning_rate,
            MOMENTUM,
            weight_decay=settings.weight_decay,
            nesterov=True,
        )
        # As bytes, beside the network where they fit there: even CIFAR's 50,000 images are only 150 MB. On the CPU they
        # stay where they are, in a file maybe.
        self.pixels = torch.from_numpy(images.images)
        if self.device.type == "cuda" and self.pixels.nbytes < torch.cuda.mem_get_info()[0] * _MAX_GPU_SHARE:
            self.pixels = self.pixels.to(self.device)
        self.weights: Tensor | None = None
        if settings.balance == "weights":
            weighed = class_weights(images.labels[self.train_indexes], len(images.class_names))
            self.weights = torch.from_numpy(weighed).to(self.device)
        self.labels = torch.from_numpy(images.labels).to(self.device)
        if resume:
            self._restore()

    def _begin_network(self, space: SearchSpace, arch: Architecture) -> nn.Module:
        """With random weights, or with those it inherits, its batch norms estimated anew on the images to train on."""
        supernet = supernet_for(space, self.settings.init)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            if supernet is None:
                return space.build(arch, len(self.images.class_names), **self.size)
            network = own(supernet.subnet(arch, len(self.images.class_names)))
        if not self.resume:
            began_s = time.perf_counter()
            chosen = _spread(self.train_indexes, CALIBRATION_IMAGES)
            parts = [chosen[start : start + _CALIBRATION_BATCH] for start in range(0, len(chosen), _CALIBRATION_BATCH)]
            count = recalibrate(network, (self._plain(part) for part in parts))
            took_s = time.perf_counter() - began_s
            log.info("weights of %s; batch norms estimated anew on %d images in %.1f s", supernet.source, count, took_s)
        return network

    def _rate(self) -> float:
        """The learning rate of the next step: it rises for some epochs, then a cosine brings it to 0."""
        settings, steps = self.settings, self.steps_per_epoch
        warm, total = settings.warmup_epochs * steps, settings.epochs * steps
        if self.steps_done < warm:
            return settings.learning_rate * (self.steps_done + 1) / warm
        return settings.learning_rate * (1 + math.cos(math.pi * (self.steps_done - warm) / (total - warm))) / 2

    def _plain(self, indexes: NDArray[np.int64]) -> Tensor:
        """The images at `indexes` as they are, normalised."""
        pixels = torch.from_numpy(self.images.images[indexes]).permute(0, 3, 1, 2)
        return normalised(pixels.float() / 255, self.images).contiguous(memory_format=torch.channels_last)

    def __iter__(self) -> Iterator[int]:
        """Train; yields the number of steps done. A checkpoint is on the disk before the next epoch begins.

        Raises EdgeNASError where the loss is not finite; the checkpoint stays that of the epoch before. Raises
        DataError where the disk is full, UsageError where another program trains in the folder.
        """
        if self._ended:
            return
        with held(self.folder, self._advice):
            self._begin()
            yield from self._train()
            if not self._ended:
                self._finish()

    def _begin(self) -> None:
        """Bring the folder to where the training stands."""
        check_state(self.folder.parent, self.resume, self.restart)  # another program may have been here meanwhile
        if self.resume:
            self._restore()
        else:
            self._save_checkpoint()  # in place of an earlier one, at once, so that a full disk loses nothing
            self._begun = True
            clear(self.folder, self._advice)
        if self._split is not None:
            write(self.folder / "split.csv", self._split, self._advice)
        self._write_metrics()

    def _train(self) -> Iterator[int]:
        if self.finished:
            return
        with tensorboard(self.folder) as log:
            while not self.finished:
                started_at_s = time.perf_counter()
                train_loss, rate = yield from self._epoch(len(self.history))
                val_accuracy = self._validate() if len(self.val_indexes) else None
                line = {
                    "epoch": len(self.history) + 1,
                    "train_loss": train_loss,
                    "val_accuracy": val_accuracy,
                    "learning_rate": rate,
                    "seconds": round(time.perf_counter() - started_at_s, 3),
                }
                self.history.append(line)
                self._save_checkpoint()
                self._write_metrics()
                log(line)

    def _epoch(self, epoch: int) -> Generator[int, None, tuple[float, float]]:
        """Show the network every image once; the mean loss, and the learning rate of the last step."""
        settings = self.settings
        self.network.train()
        loss_sum = torch.zeros((), device=self.device)
        order = self._order(np.random.default_rng([settings.seed, 0, epoch]))
        for start in range(0, self.steps_per_epoch * self.batch_size, self.batch_size):
            random = np.random.default_rng([settings.seed, 1, self.steps_done])
            rate = self._rate()
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["times"]
            indexes = order[start : start + self.batch_size]
            mirror = settings.flip and self.images.name not in NOT_FLIPPED
            images = augmented(self.pixels, indexes, random, mirror, settings.min_crop, settings.colour)
            loss = self._loss(images.to(self.device), self.labels[indexes], seed=int(random.integers(2**62)))
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
            loss_sum += loss.detach()
            self.steps_done += 1
            yield self.steps_done
        train_loss = loss_sum.item() / self.steps_per_epoch
        if not math.isfinite(train_loss) or not _finite(self.network):
            raise EdgeNASError(
                f"the loss is not finite in epoch {epoch + 1}, and the checkpoint of epoch {epoch} is kept; train with"
                f" a lower rate: edgenas train {self.folder.parent} --restart --learning-rate"
                f" {settings.learning_rate / 4:g}"
            )
        return train_loss, rate

    def _order(self, random: np.random.Generator) -> NDArray[np.int64]:
        """In which an epoch shows the images: each once, or, of balanced samples, as often as chance has it."""
        if self.settings.balance != "sampling":
            return random.permutation(self.train_indexes)
        labels = self.images.labels[self.train_indexes]
        chances = 1 / np.bincount(labels)[labels]
        return random.choice(self.train_indexes, len(labels), p=chances / chances.sum())

    def _validate(self) -> float:
        """The accuracy (%) on the images held out; keeps the weights if they are the best so far. Of equals the later,
        which have learnt longer: where few images are held out, there are many. Patience counts from the first."""
        found = accuracy(self.network, self.images, self.val_indexes, self.images)
        if self.best is None or found >= self.best["accuracy"]:
            kept = {name: value.clone() for name, value in self.network.state_dict().items()}
            equal = self.best is not None and found == self.best["accuracy"]
            epoch = self.best["epoch"] if self.best is not None and equal else len(self.history) + 1
            self.best = {"accuracy": found, "epoch": epoch, "network": kept}
        return found

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the validation accuracy has not risen for `patience` of them."""
        waited = len(self.history) - self.best["epoch"] if self.best else 0
        return len(self.history) >= self.settings.epochs or waited >= (self.settings.patience or math.inf)

    @property
    def share_done(self) -> float:
        """How much of the training is behind, in [0, 1], unless it stops early."""
        return self.steps_done / (self.settings.epochs * self.steps_per_epoch)

    @property
    def state(self) -> str:
        """Where the training stands, in a few words."""
        text = f"epoch {min(len(self.history) + 1, self.settings.epochs)} of {self.settings.epochs}"
        if self.history:
            text += f", training loss {self.history[-1]['train_loss']:.3f}"
        return text + (f", validation {self.best['accuracy']:.2f} % at best" if self.best else "")

    def result(self) -> dict[str, Any]:
        """What result.json holds; accuracies are in %. Raises DataError where the training has not ended."""
        found = read_result(self.folder)
        if found is None:
            raise DataError(f"{self.folder.parent} is not trained to its end; {self._advice}")
        return found

    @property
    def _ended(self) -> bool:
        """Whether the folder holds what this training came to."""
        if not self.finished or not (self.folder / "model.pt").is_file():
            return False
        found = read_result(self.folder)
        made = None if found is None else _today({name: found[name] for name in self.identity})
        return found is not None and made == self.identity and found["epochs"] == len(self.history)

    @property
    def _advice(self) -> str:
        how = " --resume" if self._begun else " --restart" if self.restart else ""
        return f"make room for it, then run: edgenas train {self.folder.parent}{how}"

    def _loss(self, pixels: Tensor, labels: Tensor, seed: int) -> Tensor:
        scaled = pixels.float() / 255
        on_cuda = self.device.type == "cuda"
        with (
            torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_cuda else []),  # what dropout draws from
            half_precision(self.device),
        ):
            torch.manual_seed(seed)
            logits = self.network(normalised(scaled, self.images)).float()
        loss = F.cross_entropy(logits, labels, weight=self.weights)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            taught = F.log_softmax(self.teacher(scaled) / TEMPERATURE, dim=1)
        softened = F.log_softmax(logits / TEMPERATURE, dim=1)
        distance = F.kl_div(softened, taught, reduction="batchmean", log_target=True) * TEMPERATURE**2
        return (1 - TEACHER_WEIGHT) * loss + TEACHER_WEIGHT * distance

    def _save_checkpoint(self) -> None:
        write_torch(
            self.folder / "checkpoint.pt",
            {
                "identity": self.identity,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "history": self.history,
                "best": self.best,
            },
            self._advice,
        )

    def _restore(self) -> None:
        path = self.folder / "checkpoint.pt"
        content = read_torch(path, restart(self.folder.parent))
        stored = _today(content.get("identity"))
        if stored != self.identity:
            names = sorted(
                name
                for name in self.identity
                if not isinstance(stored, dict) or stored.get(name) != self.identity[name]
            )
            changed = " and ".join(names).replace("dataset_fingerprint", "images").replace("_", " ")
            raise UsageError(
                f"the training of {self.folder.parent} cannot go on: its {changed} changed since it began; bring back"
                f" what it was, or {restart(self.folder.parent)}"
            )
        try:
            shapes = self.network.state_dict()
            self.history = checked(list[Epoch], content["history"])
            self.best = None if content["best"] is None else checked(Best, content["best"])
            if self.best is not None:
                weights(self.best["network"], shapes)
            self.network.load_state_dict(weights(content["network"], shapes))
            parameters = [each for group in self.optimizer.param_groups for each in group["params"]]
            momenta, ours = content["optimizer"]["state"], self.optimizer.state_dict()
            places = [[each["params"] for each in whose["param_groups"]] for whose in (content["optimizer"], ours)]
            if places[0] != places[1]:
                raise ValueError("steps of another network")
            for number, state in momenta.items():
                if state["momentum_buffer"].shape != parameters[number].shape:
                    raise ValueError("momenta of another network")
            self.optimizer.load_state_dict({**ours, "state": momenta})  # how to step the settings say, not the file
        except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise damaged(path, restart(self.folder.parent)) from error
        self.steps_done = len(self.history) * self.steps_per_epoch

    def _write_metrics(self) -> None:
        lines = "".join(json.dumps(line) + "\n" for line in self.history)
        write(self.folder / "metrics.jsonl", lines.encode(), self._advice)

    def _finish(self) -> None:
        """Test the weights, the best ones where there was a validation, and write model.pt and result.json."""
        if self.best is not None:
            self.network.load_state_dict(self.best["network"])
        found = predicted(self.network, self.test, np.arange(len(self.test.images)), self.images)
        labels, names = self.test.labels, self.images.class_names
        counts, rights = (
            np.bincount(each, minlength=len(names)).tolist() for each in (labels, labels[found == labels])
        )
        test_accuracy = 100 * sum(rights) / len(found)
        common = {name: value for name, value in self.identity.items() if name != "settings"}
        outcome = {"test_accuracy": test_accuracy, "test_images": len(self.test.images)}
        model = {
            **self.size,
            "network": {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()},
            "mean": list(self.images.mean),
            "std": list(self.images.std),
            "class_names": list(self.images.class_names),
            "image_size": list(self.images.images.shape[1:3]),
        }
        write_torch(self.folder / "model.pt", {**common, **outcome, **model}, self._advice)
        result = {
            **common,
            "settings": flat(self.settings),
            "images": self.images.source,
            "train_images": len(self.train_indexes),
            "val_images": len(self.val_indexes),
            "val_accuracy": self.best["accuracy"] if self.best else None,
            **outcome,
            "untested_classes": [name for name, count in zip(names, counts, strict=True) if not count],
            "classes": [
                {"class": name, "images": count, "right": right}
                for name, count, right in zip(names, counts, rights, strict=True)
            ],
            "confusion": _confusion(labels, found, len(names)) if len(names) <= _MAX_CONFUSION else None,
            "epochs": len(self.history),
            "seconds": round(sum(line["seconds"] for line in self.history), 3),
        }
        write_json(self.folder / "result.json", result, self._advice)


def _today(identity: Any) -> Any:
    """`identity` as a file has it, with the settings that came later."""
    if not isinstance(identity, dict) or not isinstance(identity.get("settings"), dict):
        return identity
    return {**identity, "settings": {**LATER, **identity["settings"]}}


def _spread(indexes: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of `indexes`, evenly along them."""
    count = min(most, len(indexes))
    return indexes[np.arange(count) * len(indexes) // count]


def _confusion(labels: NDArray[np.int64], found: NDArray[np.int64], classes: int) -> list[list[int]]:
    """How many images of each class (rows) were put into each class (columns)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, found), 1)
    rows: list[list[int]] = counts.tolist()
    return rows


def _finite(network: nn.Module) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())

"""Training a network at full size: one plain loop, and the files it leaves in a run's folder `train`.

    checkpoint.pt   after every epoch: all that the next one depends on
    metrics.jsonl   one line an epoch
    model.pt        at the end: weights, architecture, normalisation, class names, fingerprint of the images
    result.json     at the end: the accuracy on the test split

Every random choice follows from the seed and the number of the epoch or step. So a checkpoint needs no generator's
state, and going on from it gives, on the same CPU, the very weights that an uninterrupted training gives.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.architecture import Architecture, SearchSpace
from edgenas.data.images import ImageSet, held_out
from edgenas.errors import DataError, EdgeNASError, UsageError
from edgenas.train.files import read_torch, weights, write_json, write_torch, write_whole

PADDING = 4  # pixels by which a crop may be off
MOMENTUM = 0.9
TEMPERATURE, TEACHER_WEIGHT = 4.0, 0.5  # of distillation
NOT_FLIPPED = ("digits",)  # data sets whose mirror images are none of theirs
_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class TrainSettings:
    """What weights depend on besides architecture, images and teacher. `patience`: None, or stop after so many epochs
    without a better accuracy on a fifth of the training images, held out for that, and keep the best epoch's weights.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 0.1  # at the start; a cosine brings it to 0 at the end
    weight_decay: float = 5e-4
    seed: int = 0
    patience: int | None = None
    channels: int = 16  # C
    cells: int = 5  # N: cells a stage

    def __post_init__(self) -> None:
        for sound, problem in (
            (self.epochs >= 1, f"--epochs {self.epochs} trains nothing; give 1 or more"),
            (self.batch_size >= 2, f"--batch-size {self.batch_size} is too small for batch norm; give 2 or more"),
            (0 < self.learning_rate < math.inf, f"--learning-rate {self.learning_rate} is not positive; give 0.1"),
            (0 <= self.weight_decay < math.inf, f"--weight-decay {self.weight_decay} is negative; give 0.0005"),
            (self.seed >= 0, f"--seed {self.seed} is negative; give 0 or more"),
            (self.patience is None or self.patience >= 1, f"--patience {self.patience} never waits; give 1 or more"),
        ):
            if not sound:
                raise UsageError(problem)


def default_epochs(image_set: ImageSet, batch_size: int = TrainSettings.batch_size) -> int:
    """Digits are learned in 15 epochs; natural images take 100, or 60 where they are few, and 1,000 steps at least."""
    count = len(image_set.images)
    if image_set.name == "digits":
        return 15
    return 100 if count >= 20_000 else max(60, math.ceil(1_000 * batch_size / count))


class Training:
    """A training that is ready to go: iterate over it, for one step an item, then ask for `result`.

    `folder`: RUN/train. `dataset`: the name under which `images` (its training split) and `test` were loaded.
    `teacher`: None, or a network in evaluation mode from images scaled to [0, 1], float [b, 3, h, w], to logits, which
    the network learns from besides the labels (Hinton et al., arXiv:1503.02531); `teacher_source` says which.
    `resume` goes on from the checkpoint; else the folder must hold none.
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
    ) -> None:
        self.folder, self.images, self.test, self.settings = folder, images, test, settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.teacher = teacher.to(self.device) if teacher is not None else None
        validating = held_out(images.labels) if settings.patience else np.zeros(len(images.labels), bool)
        self.train_indexes, self.val_indexes = np.flatnonzero(~validating), np.flatnonzero(validating)
        self.batch_size = min(settings.batch_size, len(self.train_indexes))
        self.steps_per_epoch = len(self.train_indexes) // self.batch_size  # what an epoch leaves over is left out
        if min(images.images.shape[1:3]) <= PADDING:
            raise UsageError(f"{images.source} has images too small to train on; give larger ones")
        # What a checkpoint must agree in, to be gone on with.
        self.identity = {
            "space": space.name,
            "genes": list(arch.genes),
            "arch_str": space.describe(arch),
            "dataset": dataset,
            "dataset_fingerprint": images.fingerprint,
            "teacher": teacher_source,
            "settings": asdict(settings),
        }
        self.steps_done = 0
        self.history: list[dict[str, Any]] = []  # the lines of metrics.jsonl
        self.best: dict[str, Any] | None = None  # of the validation: accuracy and weights

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            size = {"channels": settings.channels, "cells": settings.cells}
            self.network = space.build(arch, len(images.class_names), **size)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            settings.learning_rate,
            MOMENTUM,
            weight_decay=settings.weight_decay,
            nesterov=True,
        )
        # Whole sets as bytes beside the network: even CIFAR's 50,000 images are only 150 MB.
        self.pixels = torch.from_numpy(images.images).to(self.device)
        self.labels = torch.from_numpy(images.labels).to(self.device)
        if resume:
            self._restore()
        else:
            self._save_checkpoint()
        write_whole(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.history).encode())

    def __iter__(self) -> Iterator[int]:
        """Train; yields the number of steps done. A checkpoint is on the disk before the next epoch begins.

        Raises EdgeNASError where the loss is not finite; the checkpoint stays that of the epoch before.
        """
        settings, total_steps = self.settings, self.settings.epochs * self.steps_per_epoch
        while not self.finished:
            epoch, started_at_s = len(self.history), time.perf_counter()
            self.network.train()
            loss_sum = torch.zeros((), device=self.device)
            order = np.random.default_rng([settings.seed, 0, epoch]).permutation(self.train_indexes)
            for start in range(0, self.steps_per_epoch * self.batch_size, self.batch_size):
                random = np.random.default_rng([settings.seed, 1, self.steps_done])
                rate = settings.learning_rate * (1 + math.cos(math.pi * self.steps_done / total_steps)) / 2
                self.optimizer.param_groups[0]["lr"] = rate
                images, labels = self._augmented(order[start : start + self.batch_size], random)
                loss = self._loss(images, labels, seed=int(random.integers(2**62)))
                self.optimizer.zero_grad()
                torch.autograd.backward(loss)
                self.optimizer.step()
                loss_sum += loss.detach()
                self.steps_done += 1
                yield self.steps_done
            val_accuracy = self._accuracy(self.images, self.val_indexes) if len(self.val_indexes) else None
            train_loss = loss_sum.item() / self.steps_per_epoch
            if not math.isfinite(train_loss) or not _finite(self.network):
                raise EdgeNASError(
                    f"the loss is not finite in epoch {epoch + 1}, and the checkpoint of epoch {epoch} is kept; train"
                    f" with a lower rate: edgenas train {self.folder.parent} --restart --learning-rate"
                    f" {settings.learning_rate / 4:g}"
                )
            if val_accuracy is not None and (self.best is None or val_accuracy > self.best["accuracy"]):
                weights = {name: value.clone() for name, value in self.network.state_dict().items()}
                self.best = {"accuracy": val_accuracy, "epoch": epoch + 1, "network": weights}
            self.history.append(
                {
                    "epoch": epoch + 1,
                    "train_loss": train_loss,
                    "val_accuracy": val_accuracy,
                    "learning_rate": rate,
                    "seconds": round(time.perf_counter() - started_at_s, 3),
                }
            )
            self._save_checkpoint()
            self._log(self.history[-1])
        if not (self.folder / "result.json").exists():
            self._finish()

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
        """What result.json holds; accuracies are in %."""
        content: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return content

    def _augmented(self, indexes: np.ndarray[Any, Any], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Random crops of reflect-padded images, half of them mirrored: uint8 [b, 3, h, w]; and labels [b].

        Padding, cropping and mirroring are one look-up: of row i of the crop, in the image reflected at its borders.
        """
        height, width = self.pixels.shape[1:3]

        def positions(side: int) -> np.ndarray[Any, Any]:
            offsets = random.integers(-PADDING, PADDING + 1, len(indexes))
            reflected: np.ndarray[Any, Any] = np.abs(offsets[:, None] + np.arange(side))
            crops: np.ndarray[Any, Any] = (side - 1) - np.abs((side - 1) - reflected)
            return crops

        rows, columns = positions(height), positions(width)
        if self.images.name not in NOT_FLIPPED:
            mirrored = random.random(len(indexes)) < 0.5
            columns[mirrored] = columns[mirrored, ::-1]
        chosen, down, across = (torch.from_numpy(each).to(self.device) for each in (indexes, rows, columns))
        pixels = self.pixels[chosen[:, None, None], down[:, :, None], across[:, None, :]]
        return pixels.permute(0, 3, 1, 2), self.labels[chosen]

    def _loss(self, pixels: Tensor, labels: Tensor, seed: int) -> Tensor:
        scaled = pixels.float() / 255
        on_cuda = self.device.type == "cuda"
        with (
            torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_cuda else []),  # what dropout draws from
            torch.autocast(self.device.type, torch.bfloat16, enabled=on_cuda and torch.cuda.is_bf16_supported()),
        ):
            torch.manual_seed(seed)
            logits = self.network(_normalised(scaled, self.images)).float()
        loss = F.cross_entropy(logits, labels)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            taught = F.log_softmax(self.teacher(scaled) / TEMPERATURE, dim=1)
        softened = F.log_softmax(logits / TEMPERATURE, dim=1)
        distance = F.kl_div(softened, taught, reduction="batchmean", log_target=True) * TEMPERATURE**2
        return (1 - TEACHER_WEIGHT) * loss + TEACHER_WEIGHT * distance

    @torch.no_grad()
    def _accuracy(self, image_set: ImageSet, indexes: np.ndarray[Any, Any]) -> float:
        """% of the images at `indexes` that the network puts in their class."""
        self.network.eval()
        right = 0
        for start in range(0, len(indexes), _EVALUATION_BATCH):
            chosen = indexes[start : start + _EVALUATION_BATCH]
            pixels = torch.from_numpy(image_set.images[chosen]).to(self.device).permute(0, 3, 1, 2)
            logits = self.network(_normalised(pixels.float() / 255, self.images))
            right += int((logits.argmax(dim=1).cpu() == torch.from_numpy(image_set.labels[chosen])).sum())
        return 100 * right / len(indexes)

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
        )

    def _restore(self) -> None:
        path = self.folder / "checkpoint.pt"
        content = read_torch(path, self.folder.parent)
        stored = content.get("identity")
        if stored != self.identity:
            names = sorted(
                name
                for name in self.identity
                if not isinstance(stored, dict) or stored.get(name) != self.identity[name]
            )
            raise UsageError(
                f"the training of {self.folder.parent} cannot go on: its {' and '.join(names).replace('_', ' ')} changed"
                f" since it began; bring back what it was, or start over: edgenas train {self.folder.parent} --restart"
            )
        try:
            self.network.load_state_dict(weights(content["network"]))
            self.optimizer.load_state_dict(content["optimizer"])
            self.history, self.best = list(content["history"]), content["best"]
            if self.best is not None:
                weights(self.best["network"])
            self.steps_done = len(self.history) * self.steps_per_epoch
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{path} is damaged; start over: edgenas train {self.folder.parent} --restart") from error

    def _log(self, line: dict[str, Any]) -> None:
        """Add an epoch to metrics.jsonl, and to TensorBoard's files where TensorBoard is installed."""
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        with SummaryWriter(str(self.folder / "tensorboard")) as writer:
            for name in ("train_loss", "val_accuracy", "learning_rate"):
                if line[name] is not None:
                    writer.add_scalar(name, line[name], line["epoch"])

    def _finish(self) -> None:
        """Test the weights, the best ones where there was a validation, and write model.pt and result.json."""
        if self.best is not None:
            self.network.load_state_dict(self.best["network"])
        test_accuracy = self._accuracy(self.test, np.arange(len(self.test.images)))
        common = {name: value for name, value in self.identity.items() if name != "settings"}
        outcome = {"test_accuracy": test_accuracy, "test_images": len(self.test.images)}
        model = {
            "channels": self.settings.channels,
            "cells": self.settings.cells,
            "network": weights({name: value.cpu() for name, value in self.network.state_dict().items()}),
            "mean": list(self.images.mean),
            "std": list(self.images.std),
            "class_names": list(self.images.class_names),
            "image_size": list(self.images.images.shape[1:3]),
        }
        write_torch(self.folder / "model.pt", {**common, **outcome, **model})
        result = {
            **common,
            "settings": asdict(self.settings),
            "images": self.images.source,
            "train_images": len(self.train_indexes),
            "val_images": len(self.val_indexes),
            "val_accuracy": self.best["accuracy"] if self.best else None,
            **outcome,
            "epochs": len(self.history),
            "seconds": round(sum(line["seconds"] for line in self.history), 3),
        }
        write_json(self.folder / "result.json", result)


def _normalised(scaled: Tensor, image_set: ImageSet) -> Tensor:
    mean, std = (scaled.new_tensor(each).view(-1, 1, 1) for each in (image_set.mean, image_set.std))
    return (scaled - mean) / std


def _finite(network: nn.Module) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())

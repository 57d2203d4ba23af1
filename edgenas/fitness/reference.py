"""Reference networks: the CIFAR ResNets of He et al. (CVPR 2016, section 4.2), pretrained or trained here.

For CIFAR-10 there are published weights. For any other data set a ResNet is trained briefly on it and kept in the
user's cache; it needs to know the images, not to be the best there is.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgenas.data.files import cache_dir, require
from edgenas.data.images import ImageSet, load_images
from edgenas.errors import DataError, UsageError
from edgenas.files import write_whole
from edgenas.fitness import PUBLISHED, REFERENCES, SUPERNET, check_reference
from edgenas.text import printable
from edgenas.train.device import training_device

log = logging.getLogger(__name__)

PRETRAINED_ON = "cifar10"
EPOCHS = 7
MIN_STEPS, MAX_STEPS = 150, 1_500  # a small set needs some to learn from; two CPU cores take minutes for the most
BATCH_SIZE = 64
LEARNING_RATE = 0.1
WEIGHT_DECAY = 5e-4


class ResNet(nn.Module):
    """A CIFAR ResNet of `depth` 6n + 2 with option A shortcuts (subsample and pad, no parameters).

    Input: images scaled to [0, 1], float [batch, 3, h, w]; it normalises them itself with `mean` and `std` per channel,
    by default those with which the published weights were trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]))
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(blocks - 1)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(blocks - 1)))
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Feature maps at the ends of the three stages, [batch, 16, h, w], [batch, 32, h/2, w/2] and
        [batch, 64, h/4, w/4], and the logits [batch, num_classes]."""
        x = (images - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)
        first = self.layer1(F.relu(self.bn1(self.conv1(x))))
        second = self.layer2(first)
        third = self.layer3(second)
        return [first, second, third], self.linear(third.mean(dim=(2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, num_classes]."""
        return self.features(images)[1]

    def fingerprint(self) -> str:
        """sha256 hex digest of all weights and statistics."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            if not name.endswith("num_batches_tracked"):
                digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Block(nn.Module):
    """Two 3x3 convolutions and the shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(out + x)


def reference_network(choice: str, dataset: str, image_set: ImageSet) -> tuple[ResNet, str]:
    """The reference called `choice` for `dataset`, frozen and in evaluation mode, on the CPU, and what it is in words.

    `choice`: resnet20 or resnet56 (published weights for CIFAR-10, else trained here once and cached), or the path of
    a file of weights of such a network. Raises UsageError for anything else, DataError for a file that is missing,
    damaged or not to be trusted.
    """
    check_reference(choice)
    if choice in (SUPERNET, *PUBLISHED):
        raise UsageError(f"reference {printable(choice)} is no CIFAR ResNet; give {' or '.join(REFERENCES)}")
    if choice in REFERENCES and dataset == PRETRAINED_ON:
        network, source = load_weights(require(choice)), f"{choice} pretrained on {dataset}"
    elif choice in REFERENCES:
        network, source = _trained(choice, dataset, image_set), f"{choice} trained here on {image_set.name}"
    else:
        network, source = load_weights(Path(choice).expanduser()), f"weights of {choice}"
    return network.eval().requires_grad_(False), source


def load_weights(path: Path) -> ResNet:
    """The ResNet whose weights lie at `path`: a state dict, or a dict with one under `state_dict`, saved by torch.

    Names may start with `module.`; depth and number of classes follow from the shapes. Nothing in the file is run.
    Raises DataError where it holds anything else, or other weights than its own `fingerprint`, if any, says.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its path and permissions") from error
    except MemoryError:
        raise
    except Exception as error:  # torch names no common base for what a damaged or malicious file makes it raise
        raise DataError(
            f"{path} is damaged or holds more than weights, and nothing of it was run; get it from its official source"
        ) from error
    try:
        network = _from_state(content.get("state_dict", content))
        if content.get("fingerprint", network.fingerprint()) != network.fingerprint():
            raise ValueError("not the weights that were saved")
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise DataError(f"{path} does not hold the weights of a CIFAR ResNet; give resnet20 or resnet56") from error
    return network


def _from_state(saved: Mapping[str, Any]) -> ResNet:
    state = {name.removeprefix("module."): value for name, value in saved.items()}
    blocks = sum(name.startswith("layer1.") and name.endswith(".conv1.weight") for name in state)
    if not all(isinstance(value, Tensor) and torch.isfinite(value).all() for value in state.values()):
        raise ValueError("not finite")
    if blocks == 0 or len(state) < 6 * 2 * blocks:
        raise ValueError("no ResNet")
    network = ResNet(6 * blocks + 2, len(state["linear.bias"]))
    missing, unexpected = network.load_state_dict(state, strict=False)
    # The published files hold neither the normalisation nor the counters that newer batch norms keep.
    lacking = [name for name in missing if name not in ("mean", "std") and not name.endswith("num_batches_tracked")]
    if lacking or unexpected:
        raise ValueError(f"{lacking} {unexpected}")
    return network


def _trained(choice: str, dataset: str, image_set: ImageSet) -> ResNet:
    """The reference for `image_set` from the cache, where it is put first if it is not there.

    It is always the one that was read: one fresh from its training lies otherwise in memory, and gives other sums.
    """
    schedule = (EPOCHS, MIN_STEPS, MAX_STEPS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY)
    key = hashlib.sha256(json.dumps([choice, image_set.fingerprint, schedule]).encode()).hexdigest()
    path = cache_dir() / "references" / f"{choice}-{key[:16]}.pt"
    if path.exists():
        try:
            return load_weights(path)
        except DataError as error:
            log.warning("%s; training it again", error)
    advice = "make it writable or set EDGENAS_CACHE_DIR to another folder"
    try:  # before the training, which would be lost
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(
            f"the trained reference cannot be kept in {path.parent} ({error.strerror}); {advice}"
        ) from error
    test = load_images(dataset, "test")  # before the training too
    network = train_reference(image_set, REFERENCES[choice]).eval()
    share = 100 * accuracy(network, test)
    log.info("reference: right on %.1f %% of the %d test images", share, len(test.images))
    content = io.BytesIO()
    torch.save({"state_dict": network.state_dict(), "fingerprint": network.fingerprint()}, content)
    try:
        write_whole(path, content.getvalue(), DataError, advice)
    except DataError as error:  # a disk that is full by now does not undo the training
        log.warning("the trained reference is not kept, and will be trained again: %s", error)
    content.seek(0)
    return _from_state(torch.load(content, map_location="cpu", weights_only=True)["state_dict"])


def train_reference(image_set: ImageSet, depth: int, steps: int | None = None, seed: int = 0) -> ResNet:
    """A ResNet of `depth` trained on `image_set` by SGD with momentum under a one-cycle schedule.

    By default the steps are those of EPOCHS, within MIN_STEPS and MAX_STEPS. The same seed gives the same network
    on the same kind of machine.
    """
    device = training_device()
    generator = np.random.default_rng(seed)
    size = min(BATCH_SIZE, len(image_set.images))
    if steps is None:
        steps = min(max(EPOCHS * len(image_set.images) // size, MIN_STEPS), MAX_STEPS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResNet(depth, len(image_set.class_names))
    network.mean.copy_(torch.tensor(image_set.mean))
    network.std.copy_(torch.tensor(image_set.std))
    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, 0.9, weight_decay=WEIGHT_DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps + 1)
    log.info("no pretrained reference for %s: training one, %d steps of %d images", image_set.name, steps, size)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        for step, chosen in zip(range(steps), _batches(len(image_set.images), size, generator), strict=False):
            images, labels = _tensors(image_set, chosen, device)
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            if step % 50 == 49:
                log.info("reference: step %d of %d, loss %.3f", step + 1, steps, loss.item())
    return network.cpu()


@torch.no_grad()
def accuracy(network: ResNet, image_set: ImageSet) -> float:
    """Share, in [0, 1], of the images that `network`, in evaluation mode, puts in their class."""
    indexes, right = np.arange(len(image_set.images)), 0
    for start in range(0, len(indexes), 256):
        images, labels = _tensors(image_set, indexes[start : start + 256], network.mean.device)
        right += int((network(images).argmax(dim=1) == labels).sum())
    return right / len(indexes)


def _batches(count: int, size: int, generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Endless batches of `size` out of `count` indexes; what an epoch leaves over is left out."""
    while True:
        order = generator.permutation(count)
        yield from (order[start : start + size] for start in range(0, count - size + 1, size))


def _tensors(image_set: ImageSet, indexes: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(image_set.images[indexes]).to(device)
    labels = torch.from_numpy(image_set.labels[indexes]).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 255, labels

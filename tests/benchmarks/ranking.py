"""How well scores rank networks for photos: `python -m tests.benchmarks.ranking PHOTOS STORE [SEEDS] [COUNT]`.

PHOTOS is a folder of photos, one sub-folder a class. Two samples of COUNT (40) random subnets of EfficientNet-Lite0 at
64 to 128 pixels: of equal MACs (within 10 % of 15 M), and over the whole range (5 M to 60 M). Each is fine-tuned from
inherited weights, by one recipe on the same 200 photos a class, with SEEDS (3) seeds; its accuracy is the mean on 100
other photos a class. What was trained is kept in the file STORE, so a benchmark that was stopped goes on. Then the
Spearman correlation of each score with the accuracy is printed, beside that of the MACs and the parameters.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from edgenas import host
from edgenas.architecture import Architecture
from edgenas.data.images import load_some
from edgenas.spaces.mobilenet import EfficientNetLite0
from edgenas.train.batches import cropped
from edgenas.train.inherited import own, recalibrate

SPACE = EfficientNetLite0()
MAX_SIDE, EQUAL_M, RANGE_M = 128, 15.0, (5.0, 60.0)
TRAIN, TEST = 200, 100  # images a class
EPOCHS, BATCH, RATE, CLASSIFIER, CROP = 4, 32, 0.006, 5.0, 0.8


def sample(count: int, low_m: float, high_m: float, seed: int) -> list[Architecture]:
    """Random architectures, evenly over the logarithm of their MACs."""
    rng = random.Random(seed)
    found: dict[Architecture, None] = {}
    while len(found) < count:
        wanted = low_m * (high_m / low_m) ** rng.random()
        for _ in range(200):
            arch = SPACE.canonical(Architecture(SPACE.name, tuple(map(rng.randrange, SPACE.choices))))
            if SPACE.resolution(arch) <= MAX_SIDE and abs(SPACE.macs_m(arch) / wanted - 1) < 0.05:
                found[arch] = None
                break
    return list(found)


@cache
def photos(folder: str, split: str, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    each = TRAIN if split == "train" else TEST
    classes = len(load_some(folder, 1, 0, 32).class_names)
    found = load_some(folder, each * classes, 0, side, split)
    return found.images, found.labels, classes


def accuracy(folder: str, arch: Architecture, seed: int, rate: float = RATE, crop: float = CROP) -> float:
    """In %, after fine-tuning."""
    torch.set_num_threads(1)
    side = SPACE.resolution(arch)
    images, labels, classes = photos(folder, "train", side)
    pixels, wanted = torch.from_numpy(images), torch.from_numpy(labels)
    mean, std = (torch.tensor(each).view(3, 1, 1) * 255 for each in (SPACE.mean, SPACE.std))

    def normalised(given: torch.Tensor) -> torch.Tensor:
        return ((given.float() - mean) / std).contiguous(memory_format=torch.channels_last)

    torch.manual_seed(seed)
    network = own(SPACE.supernet().subnet(arch, classes)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recalibrate(network, (normalised(each.permute(0, 3, 1, 2)) for each in torch.split(pixels[:256], 64)))
    *others, weight, bias = network.parameters()
    groups = [{"params": others, "times": 1.0}, {"params": [weight, bias], "times": CLASSIFIER}]
    optimizer = torch.optim.SGD(groups, rate, 0.9, weight_decay=1e-4, nesterov=True)
    steps, done = EPOCHS * (len(images) // BATCH), 0
    network.train()
    for epoch in range(EPOCHS):
        order = np.random.default_rng([seed, epoch]).permutation(len(images))
        for start in range(0, len(images) // BATCH * BATCH, BATCH):
            chosen = order[start : start + BATCH]
            generator = np.random.default_rng([seed, epoch, start])
            for group in optimizer.param_groups:
                group["lr"] = rate * group["times"] * min(1, (done + 1) / 30) * (1 + np.cos(np.pi * done / steps)) / 2
            loss = F.cross_entropy(network(normalised(cropped(pixels, chosen, generator, True, crop))), wanted[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            done += 1
    images, labels, _ = photos(folder, "test", side)
    network.eval()
    with torch.inference_mode():
        parts = (normalised(each.permute(0, 3, 1, 2)) for each in torch.split(torch.from_numpy(images), 64))
        found = torch.cat([network(each).argmax(1) for each in parts]).numpy()
    return float(100 * (found == labels).mean())


def accuracies(folder: str, store: Path, archs: Sequence[Architecture], seeds: Sequence[int]) -> Iterator[None]:
    """Train what is not in `store`, seed after seed."""
    known = known_in(store)
    with ProcessPoolExecutor(host.cores()) as pool, store.open("a") as stream:
        asked = [(arch, seed) for seed in seeds for arch in archs if (arch.genes, seed) not in known]
        began_s = time.perf_counter()
        results = pool.map(accuracy, [folder] * len(asked), *zip(*asked, strict=True)) if asked else iter(())
        for done, ((arch, seed), found) in enumerate(zip(asked, results, strict=True), 1):
            stream.write(json.dumps({"genes": arch.genes, "seed": seed, "accuracy": found}) + "\n")
            stream.flush()
            took_s = time.perf_counter() - began_s
            print(f"{done} of {len(asked)} trained, {took_s:.0f} s: {found:.1f} %", file=sys.stderr, flush=True)
            yield


def known_in(store: Path) -> dict[tuple[tuple[int, ...], int], float]:
    lines = map(json.loads, store.read_text().splitlines()) if store.exists() else ()
    return {(tuple(each["genes"]), each["seed"]): each["accuracy"] for each in lines}


def main(folder: str, store: str, seeds: int, count: int) -> None:
    equal, whole = sample(count, 0.95 * EQUAL_M, 1.05 * EQUAL_M, 1), sample(count, *RANGE_M, 2)
    for _ in accuracies(folder, Path(store), [*equal, *whole], range(seeds)):
        pass


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit((__doc__ or "").partition("\n\n")[0])
    given = [int(each) for each in sys.argv[3:]]
    main(sys.argv[1], sys.argv[2], *(given + [3, 40][len(given) :]))

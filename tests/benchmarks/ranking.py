"""How well scores rank networks for photos: `python -m tests.benchmarks.ranking PHOTOS STORE [SEEDS] [COUNT] [slow]`.

PHOTOS is a folder of photos, one sub-folder a class. Two samples of COUNT (40) random subnets of EfficientNet-Lite0 at
64 to 128 pixels: of equal MACs (within 10 % of 15 M), and over the whole range (5 M to 60 M). Each is fine-tuned from
inherited weights, by one recipe on the same 200 photos a class, with SEEDS (3) seeds; its accuracy is the mean on 100
other photos a class. What was trained is kept in the file STORE, so a benchmark that was stopped goes on. Then the
Spearman correlation of each score with the accuracy is printed, beside that of the MACs and the parameters; with
`slow`, that of phi after more steps too. Then that of phi by the photos in the batch, of BATCHES draws of these: the
mean and the lowest.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from edgenas import host, plugins
from edgenas.architecture import Architecture, random_architecture
from edgenas.cost.regression import rank_correlation
from edgenas.data.images import load_some
from edgenas.fitness import FitnessSettings
from edgenas.fitness.live import repeated
from edgenas.fitness.rmi import unit_gram
from edgenas.fitness.trainer import Trainer, resized
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
            arch = SPACE.canonical(random_architecture(SPACE, rng))
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


LIVE: dict[str, dict[str, Any]] = {  # how live scores come about: a name -> settings
    "phi, inherited, no step": {"init": "inherited", "epochs": 0},
    "  1 step": {"init": "inherited", "epochs": 1},
    "  3 steps": {"init": "inherited", "epochs": 3},
    "  10 steps": {"init": "inherited", "epochs": 10},
    "  not centred": {"init": "inherited", "epochs": 0, "centred": False},
    "  mean of 3 batches": {"init": "inherited", "epochs": 0, "repeats": 3},
    "phi, random, 10 steps": {"init": "random", "epochs": 10},
    "phi, random, 100 steps": {"init": "random", "epochs": 100},
}
BATCH_SIZES, BATCHES = (32, 64, 128, 256, 512), 4
SLOW = ("  10 steps", "phi, random, 10 steps", "phi, random, 100 steps")  # minutes or hours


def scores(folder: str, archs: Sequence[Architecture], slow: bool) -> dict[str, NDArray[np.float64]]:
    """By name the scores of `archs`."""
    settings = FitnessSettings(init="inherited", epochs=0, reference="supernet", batch_size=64)
    wanted = {name: ("live", replace(settings, **how)) for name, how in LIVE.items() if slow or name not in SLOW}
    wanted |= {name: (name, settings) for name in ("subnet", "naswot", "synflow", "macs", "params")}
    found = {}
    for name, (plug_in, how) in wanted.items():
        began_s = time.perf_counter()
        fitness = plugins.load("fitness", plug_in)(SPACE, folder, how)
        found[name] = np.array([np.nan if each.value is None else each.value for each in fitness(archs)], np.float64)
        print(f"{name.strip()}: {time.perf_counter() - began_s:.0f} s", file=sys.stderr, flush=True)
    return found


def by_batch(folder: str, archs: Sequence[Architecture], accuracies: NDArray[np.float64]) -> Iterator[tuple[int, str]]:
    """For each size of the batch, Spearman of phi with the `accuracies` of `archs`: mean and lowest of BATCHES."""
    for size in BATCH_SIZES:
        found = []
        for seed in range(BATCHES):
            how = FitnessSettings(init="inherited", epochs=0, reference="supernet", batch_size=size, seed=seed)
            fitness = plugins.load("fitness", "live")(SPACE, folder, how)
            found.append(rank_correlation(np.array([each.value for each in fitness(archs)], np.float64), accuracies))
        yield size, f"{np.mean(found):.2f} ({min(found):.2f})"


def by_tap(folder: str, archs: Sequence[Architecture]) -> NDArray[np.float64]:
    """The terms of phi with inherited weights and no step, (architectures, taps)."""
    settings = FitnessSettings(init="inherited", epochs=0, reference="supernet", batch_size=64, precision="float32")
    trainer = repeated(SPACE, folder, settings)[0].trainer
    assert isinstance(trainer, Trainer)
    rows = []
    with torch.inference_mode():
        for arch in archs:
            maps = SPACE.supernet().maps(arch, resized(trainer.images, SPACE.resolution(arch)))
            pairs = zip(trainer.targets, maps, strict=True)
            rows.append([float((ours * unit_gram(each)).sum()) for ours, each in pairs])
    return np.array(rows)


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.argsort(np.argsort(values)).astype(np.float64)


def main(folder: str, store: str, seeds: int, count: int, slow: bool) -> None:
    samples = {
        "equal MACs": sample(count, 0.95 * EQUAL_M, 1.05 * EQUAL_M, 1),
        "whole range": sample(count, *RANGE_M, 2),
    }
    for _ in accuracies(folder, Path(store), [*samples["equal MACs"], *samples["whole range"]], range(seeds)):
        pass
    known = known_in(Path(store))
    table: dict[str, list[str]] = {}
    by_size: dict[int, list[str]] = {}
    for archs in samples.values():
        truth = np.array([[known[arch.genes, seed] for seed in range(seeds)] for arch in archs])
        mean, noise = truth.mean(1), truth.std(1, ddof=1).mean() if seeds > 1 else float("nan")
        print(f"{len(archs)} networks: {mean.min():.1f} to {mean.max():.1f} %, between seeds {noise:.1f} points")
        found = scores(folder, archs, slow)
        taps = by_tap(folder, archs)
        phi, macs, subnet = found["phi, inherited, no step"], found["macs"], found["subnet"]
        found |= {f"  tap {number} alone": column for number, column in enumerate(taps.T, 1)}
        found["  last 2 taps"] = taps[:, -2:].sum(1)
        found["  last 3 taps"] = taps[:, -3:].sum(1)
        found["2 phi + macs"] = 2 * ranks(phi) + ranks(macs)
        found["phi + macs"] = ranks(phi) + ranks(macs)
        found["phi + subnet"] = ranks(phi) + ranks(subnet)
        found["phi + subnet + macs"] = ranks(phi) + ranks(subnet) + ranks(macs)
        for name, values in found.items():
            table.setdefault(name, []).append(f"{rank_correlation(values, mean):8.2f}")
        for size, cell in by_batch(folder, archs, mean):
            by_size.setdefault(size, []).append(cell)
    print(f"{'Spearman with the accuracy':<30}" + "".join(f"{name:>14}" for name in samples))
    rows = [*table.items(), *((f"phi of {size} photos", cells) for size, cells in by_size.items())]
    for name, cells in rows:
        print(f"{name:<30}" + "".join(f"{cell:>14}" for cell in cells))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit((__doc__ or "").partition("\n\n")[0])
    given = [int(each) for each in sys.argv[3:] if each != "slow"]
    seeds, count = given + [3, 40][len(given) :]
    main(sys.argv[1], sys.argv[2], seeds, count, "slow" in sys.argv)

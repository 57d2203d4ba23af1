"""What 10,000 photos at 224 pixels take: memory, time and room on the disk, decoded for the first time and again, split
and trained on.

    python -m tests.benchmarks.photo_memory PHOTOS [--count 10000] [--side 224] [--steps 2] [--no-training]

PHOTOS is a folder with one sub-folder of JPEGs a class. Of these, mirrored, brightened and cut, as many JPEGs of 640 x
480 pixels as asked for are made in a temporary folder, with a cache of their own. Each step runs in a process of its
own; its largest resident memory is printed, which counts pages of mapped files too, though the system may take those
back at any time. Training takes memory for the network besides, however many photos there are.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from edgenas.data.image_folder import list_folder
from edgenas.host import cores

READ = """
import sys
from edgenas.data.images import load_images
for split in ("train", "test"):
    found = load_images(sys.argv[1], split, side=int(sys.argv[2]))
    print(split, len(found.labels), "photos", found.fingerprint[:12])
"""
EPOCH = """
import sys
import numpy as np
import torch
from edgenas.data.images import load_images
from edgenas.train.batches import augmented
images = load_images(sys.argv[1], side=int(sys.argv[2]))
pixels, random = torch.from_numpy(images.images), np.random.default_rng(0)
order = random.permutation(len(images.labels))
for start in range(0, len(order), 32):
    augmented(pixels, order[start : start + 32], random, True, 0.4, 0.2)
print(len(order), "photos seen once")
"""
SPLIT = """
import sys
from pathlib import Path
from edgenas.data.split import split
print(split(sys.argv[1], Path(sys.argv[1]).parent / "split.csv").counts)
"""
TRAIN = """
import sys
from edgenas.search.training import train
job = train(arch=sys.argv[4], space="efficientnet-lite0", dataset=sys.argv[1], folder=sys.argv[1] + "-run", epochs=1)
for step in job:
    if step == int(sys.argv[3]):
        break
print(step, "steps of", job.batch_size)
"""
FOLDER_MB = 1 << 20


def make(source: Path, folder: Path, count: int) -> None:
    """`count` JPEGs in `folder`, of the photos in `source`, each another."""
    found = list_folder(source)
    per_class = -(-count // len(found.class_names))

    def one(label: int, number: int) -> None:
        path = found.train[label][number % len(found.train[label])]
        random = np.random.default_rng([label, number])
        levels = np.clip(np.arange(256) * random.uniform(0.7, 1.3), 0, 255).astype(int).tolist()
        with Image.open(path) as image:
            left, top, right, bottom = random.uniform(0, 0.1, 4) * [*image.size, *image.size]
            box = (left, top, image.width - right, image.height - bottom)
            made = image.convert("RGB").resize((640, 480), box=box).point(levels * 3)
        if random.random() < 0.5:
            made = ImageOps.mirror(made)
        made.save(folder / found.class_names[label] / f"{number:05}.jpg", quality=85)

    for name in found.class_names:
        (folder / name).mkdir(parents=True)
    with ThreadPoolExecutor(cores()) as pool:
        every = [(label, number) for label in range(len(found.class_names)) for number in range(per_class)]
        for _ in pool.map(one, *zip(*every, strict=True)):
            pass


def run(name: str, code: str, *arguments: str) -> None:
    began_s = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read().replace("\n", "; ")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} failed with {process.returncode}")
    took_s = time.perf_counter() - began_s
    print(f"{name:<24} {took_s:7.1f} s   {usage.ru_maxrss / 1024:7.0f} MiB resident at most   {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--no-training", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "photos"
        os.environ["EDGENAS_CACHE_DIR"] = str(Path(work) / "cache")
        began_s = time.perf_counter()
        make(asked.photos, folder, asked.count)
        size = sum(path.stat().st_size for path in folder.rglob("*.jpg"))
        print(f"{asked.count:,} JPEGs, {size / FOLDER_MB:,.0f} MiB, made in {time.perf_counter() - began_s:.0f} s")
        given = (str(folder), str(asked.side), str(asked.steps))
        run("read, first time", READ, *given)
        run("read again", READ, *given)
        run("an epoch of batches", EPOCH, *given)
        run("split", SPLIT, *given)
        if not asked.no_training:
            from edgenas import plugins

            space = plugins.load("spaces", "efficientnet-lite0")()
            arch = space.describe(space.at_resolution(space.largest(), asked.side))
            run(f"train for {asked.steps} steps", TRAIN, *given, arch)
        kept = sum(path.stat().st_size for path in (Path(work) / "cache").rglob("*.pixels"))
        print(f"kept in the cache: {kept / FOLDER_MB:,.0f} MiB")


if __name__ == "__main__":
    main()

"""Tiny files in the layouts of the official ones, pickled as Python 2 did where those were."""

from __future__ import annotations

import io
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgenas.data import files


def python2_pickle(value: Any) -> bytes:
    """Protocol 2 as Python 2 writes it: every string, pixels included, is an 8-bit string."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: Any) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_python2(key) + _python2(each) for key, each in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_python2, value)) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        value = value.encode("latin-1")
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, np.ndarray):
        shape = b"(" + b"".join(map(_python2, value.shape)) + b"t"
        kind = b"cnumpy\ndtype\n(" + _python2("u1") + b"K\x00K\x01tR"
        kind += b"(K\x03" + _python2("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        new = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + _python2("b") + b"tR"
        return new + b"(K\x01" + shape + kind + b"\x89" + _python2(value.tobytes()) + b"tb"
    raise TypeError(type(value))


def pixels(count: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """(count, 3 * side * side) random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3 * side**2), np.uint8)


def official(monkeypatch: pytest.MonkeyPatch, path: Path) -> Path:
    """`path`, which bears the name of an official file, with the content that is taken for the official one."""
    for name, entry in files.KNOWN.items():
        if path.name in entry.digests:
            kind = entry.digests[path.name][0]
            digests = {**entry.digests, path.name: (kind, files.digest(path, kind))}
            monkeypatch.setitem(files.KNOWN, name, replace(entry, digests=digests))
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_cifar10(path: Path) -> Path:
    """Five batches of 20 images and a test batch of 10; image i of a batch has label i % 10."""
    folder = "cifar-10-batches-py"
    parts = {f"data_batch_{number}": pixels(20, 32, number) for number in range(1, 6)} | {"test_batch": pixels(10, 32)}
    members = {
        f"{folder}/{name}": python2_pickle({"data": data, "labels": [i % 10 for i in range(len(data))]})
        for name, data in parts.items()
    }
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    return write_tar(path, {f"{folder}/batches.meta": python2_pickle({"label_names": names}), **members})


def write_cifar100(path: Path) -> Path:
    """200 training and 100 test images; image i has the fine label i % 100 and the coarse label 0."""
    members = {
        f"cifar-100-python/{split}": python2_pickle(
            {"data": pixels(count, 32), "fine_labels": [i % 100 for i in range(count)], "coarse_labels": [0] * count}
        )
        for split, count in {"train": 200, "test": 100}.items()
    }
    names = [f"thing{number}" for number in range(100)]
    return write_tar(path, {**members, "cifar-100-python/meta": python2_pickle({"fine_label_names": names})})


def write_imagenet16(folder: Path) -> Path:
    """Eleven batches of 1,000 images, one of each class from 1 to 1,000."""
    folder.mkdir(parents=True)
    for name in [*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"]:
        batch = {"data": pixels(1000, 16), "labels": list(range(1, 1001)), "mean": pixels(1, 16)[0]}
        (folder / name).write_bytes(python2_pickle(batch))
    return folder


def official_accuracies(trials: dict[str, list[int]], long_key: str = "full") -> dict[str, Any]:
    """What NAS-Bench-201-v1_1 (`long_key` "full") or NATS-tss ("200") stores, cut to what is read, for 15,625 cells.

    `trials`: data set -> seeds. Cell i has at seed s, epoch 2 of 3, accuracy i / 200 + s % 10 % (x-test: 1 more,
    x-valid, which cifar10 itself has not: 1/2 more).
    """

    def trial(name: str, index: int, seed: int) -> dict[str, Any]:
        accuracy = index / 200 + seed % 10
        evaluated = {"ori-test@0": 1.0, "ori-test@2": accuracy, "x-test@2": np.float64(accuracy + 1)}
        if name != "cifar10":
            evaluated["x-valid@2"] = accuracy + 0.5
        return {"epochs": 3, "eval_acc1es": evaluated}

    return {
        "meta_archs": ["|none~0|"] * 15_625,
        "evaluated_indexes": [],
        "arch2infos": {
            index: {
                long_key: {
                    "dataset_seed": trials,
                    "all_results": {
                        (name, seed): trial(name, index, seed) for name, seeds in trials.items() for seed in seeds
                    },
                }
            }
            for index in range(15_625)
        },
    }

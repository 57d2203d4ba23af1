"""Writes a shipped table of scores from the scores of isomorphism classes: `python -m edgenas.fitness.make_table FILE`.

FILE (npz) holds `arch_idx` [classes], `class_of` [15625] (benchmark index -> the index that stands for its class),
`epochs` [e], `seeds` [s], and `phi`, `loss` [s, classes, e]. An isomorphism class lies in exactly one functional
class, so every functional class gets the mean over the isomorphism classes in it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgenas.fitness import FitnessSettings
from edgenas.fitness.table import FREE_SETTINGS, TABLES
from edgenas.spaces.nasbench201 import NASBench201

NAME = "nasbench201_cifar10_resnet20"
MADE_WITH = FitnessSettings(
    beta=0.8, batch_size=32, cells=1, channels=16, learning_rate=0.1, momentum=0.9, weight_decay=5e-4, centred=True
)


def functional_means(
    space: NASBench201, arch_idx: NDArray[np.int32], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Genes [functional, 6] of the canonical cells in gene order, and `scores` [s, classes, e] as their means
    [s, functional, e] over the classes (represented by `arch_idx`) in each."""
    keys = [space.canonical(space.from_index(int(index))).genes for index in arch_idx]
    genes, row, members = np.unique(np.array(keys, np.int8), axis=0, return_inverse=True, return_counts=True)
    sums = np.zeros((scores.shape[0], len(genes), scores.shape[2]))
    for seed, seed_scores in enumerate(scores):
        np.add.at(sums[seed], row.ravel(), seed_scores.astype(np.float64))
    return genes, (sums / members[:, None]).astype(np.float32)


def main(source: Path, folder: Path = TABLES) -> None:
    """Write `NAME`.npz and `NAME`.json to `folder`."""
    space = NASBench201()
    with np.load(source, allow_pickle=False) as arrays:
        arch_idx, class_of = arrays["arch_idx"], arrays["class_of"]
        epochs, seeds = arrays["epochs"].tolist(), arrays["seeds"].tolist()
        genes, phi = functional_means(space, arch_idx, arrays["phi"])
        _, loss = functional_means(space, arch_idx, arrays["loss"])
    canonical = [space.canonical(arch) for arch in space.all_architectures()]
    if any(canonical[index] != canonical[other] for index, other in enumerate(class_of.tolist())):
        raise SystemExit(f"{source}: an isomorphism class crosses functional classes")
    path = folder / f"{NAME}.npz"
    np.savez_compressed(path, genes=genes, phi=phi, loss=loss)
    description = {
        "space": space.name,
        "dataset": "cifar10",
        "settings": {name: value for name, value in asdict(MADE_WITH).items() if name not in FREE_SETTINGS},
        "epochs": epochs,
        "seeds": seeds,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": f"table of RMI scores, made on one H100 on 2026-11-23, {len(seeds)} seeds",
        "made": {
            "date": "2026-11-23",
            "hardware": "one NVIDIA H100",
            "program": "prototype of this project: all classes batched as grouped convolutions, bf16",
            "seconds_a_seed": 235,
            "images": "one batch of 32 lossless CIFAR-10 training images",
            "reference": "ResNet-20 of akamaster/pytorch_resnet_cifar10, resnet20-12fca82f.th",
            "optimiser": "SGD",
            "from_file": source.name,
            "from_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "isomorphism_classes": len(arch_idx),
            "functional_classes": len(genes),
            "written_by": "python -m edgenas.fitness.make_table: mean over the isomorphism classes in each"
            " functional class; seeds kept apart",
            "arrays": "genes int8 [class, 6]: the canonical cell; phi (Eq. 2, in [0, 3]) and loss (Eq. 3)"
            " float32 [seed, class, epochs]",
        },
    }
    (folder / f"{NAME}.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

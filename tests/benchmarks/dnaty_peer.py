"""The peer's side of tests.benchmarks.auto_peers, run by an interpreter that has dnaty.

`PYTHON dnaty_peer.py FOLDER` gives the network in FOLDER and its photos to `compress_cnn`, and leaves there what comes
of it: LAYERS and WEIGHTS, a chain of torch's own layers, and said.json.

`compress_cnn` takes generations and a population, no time. What training and evaluating one network takes is found on a
part of the photos; of its defaults, 30 generations of 15, so much is asked as fits, the generations being twice the
population as there. A call cannot be stopped with a result, and networks grow and shrink on the way, so it may take
another time than asked; which is said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

ROOT = Path(__file__).parents[2]
LAYERS, WEIGHTS = "layers.json", "weights.pt"
GENERATIONS, POPULATION = 30, 15  # by default
BATCH_SIZE = 64
PROBED = 8  # a part of so many photos
# The layers that a network may have, and what they are made with.
BUILT = {
    "Conv2d": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups"),
    "BatchNorm2d": ("num_features", "eps"),
    "ReLU": (),
    "AdaptiveAvgPool2d": ("output_size",),
    "Flatten": (),
    "Linear": ("in_features", "out_features"),
}


class Photos(Dataset[Any]):
    """uint8 images [n, h, w, 3], normalised one by one."""

    def __init__(self, folder: Path, mean: list[float], std: list[float]) -> None:
        self.images, self.labels = np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy")
        self.mean, self.std = (torch.tensor(each).view(3, 1, 1) for each in (mean, std))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        pixels = torch.from_numpy(np.array(self.images[index])).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std, int(self.labels[index])


def main(folder: Path) -> None:
    dnaty: Any = import_module("dnaty")
    task = json.loads((folder / "task.json").read_text())
    network = torch.load(folder / "network.pt", weights_only=False)  # which auto_peers.py wrote
    photos = Photos(folder, task["mean"], task["std"])

    def compressed(images: Dataset[Any], generations: int, population: int) -> Any:
        loader = DataLoader(images, BATCH_SIZE, shuffle=True)
        how = {"target_flops": task["target_flops"], "n_generations": generations, "n_pop": population}
        return dnaty.compress_cnn(network, loader, device="cpu", seed=task["seed"], verbose=True, **how)

    began_s = time.perf_counter()
    few = range(0, len(photos), PROBED)
    compressed(Subset(photos, few), 1, 1)
    took_s = time.perf_counter() - began_s
    networks = (task["seconds"] - took_s) / (took_s * len(photos) / len(few))
    generations, population = plan(networks)
    result = compressed(photos, generations, population)
    save(folder, result.model.cpu().eval(), photos[0][0].shape)
    said = {
        "version": metadata.version("dnaty"),
        "generations": generations,
        "population": population,
        "seconds": time.perf_counter() - began_s,
        "summary": result.summary(),
    }
    (folder / "said.json").write_text(json.dumps(said))


def plan(networks: float) -> tuple[int, int]:
    """Generations and population where so many networks can be trained; one at least is."""
    population = max(1, min(POPULATION, int((max(0.0, networks) * POPULATION / GENERATIONS) ** 0.5)))
    return max(1, min(GENERATIONS, int(networks / population))), population


def save(folder: Path, model: nn.Module, shape: torch.Size) -> None:
    """Write `model` as a chain of its layers, which it must be."""
    leaves: list[nn.Module] = []
    for each in model.modules():
        if not list(each.children()) and (type(each).__name__ in BUILT or list(each.parameters())):
            leaves.append(each)
            if isinstance(each, nn.AdaptiveAvgPool2d):
                leaves.append(nn.Flatten())
    chain = nn.Sequential(*leaves)
    images = torch.randn(2, *shape)
    with torch.no_grad():
        if not torch.allclose(chain(images), model(images), atol=1e-4):
            sys.exit("the network is no chain of the layers that it has")
    layers = []
    for each in leaves:
        kind = type(each).__name__
        how = {name: getattr(each, name) for name in BUILT[kind]}
        if isinstance(each, nn.Conv2d | nn.Linear):
            how["bias"] = each.bias is not None
        layers.append({"kind": kind, "how": how})
    (folder / LAYERS).write_text(json.dumps(layers))
    torch.save(chain.state_dict(), folder / WEIGHTS)


def assembled(folder: Path) -> nn.Module:
    """The network that `save` left in `folder`."""
    layers = json.loads((folder / LAYERS).read_text())
    network = nn.Sequential(*(getattr(nn, each["kind"])(**each["how"]) for each in layers))
    network.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    return network.eval().requires_grad_(False)


def run_peer(python: str, folder: Path, timeout_s: float) -> dict[str, Any]:
    """What this, run by `python`, says of what it leaves in `folder`; or a `problem`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)}  # what it may write in a home stays here
    log = folder / "peer.log"
    with log.open("w") as stream:
        command = [python, __file__, str(folder)]
        try:
            done = subprocess.run(
                command, env=environment, stdout=stream, stderr=stream, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return {"problem": f"stopped after {timeout_s / 60:.0f} min"}
        except OSError as error:
            return {"problem": f"{python} does not run ({error.strerror})"}
    if done.returncode:
        lines = log.read_text().strip().splitlines()
        return {"problem": f"it ended with: {lines[-1] if lines else done.returncode}"}
    said: dict[str, Any] = json.loads((folder / "said.json").read_text())
    return said


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

"""Stand-ins for the files of Once-for-all's authors, and settings by which searches on photos take seconds."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgenas.paper import job
from edgenas.paper.fig4 import fig4
from edgenas.paper.photo_plan import Recipe

# Of ofa-mbv3-w1.2 where the predictor knows the resolution, and where it does not; of another width, of another space.
NETWORKS: list[dict[str, Any]] = [
    {"net_id": "large", "space": "MobileNetV3", "first": 24, "r": 224, "top1": 79.0, "macs": 380.0, "e": 6, "ks": 5},
    {"net_id": "small", "space": "MobileNetV3", "first": 24, "r": 160, "top1": 75.0, "macs": 210.0, "e": 4, "ks": 3},
    {"net_id": "beaten", "space": "MobileNetV3", "first": 24, "r": 176, "top1": 74.0, "macs": 220.0, "e": 3, "ks": 3},
    {"net_id": "other side", "space": "MobileNetV3", "first": 24, "r": 236, "top1": 80, "macs": 390, "e": 6, "ks": 7},
    {"net_id": "narrow", "space": "MobileNetV3", "first": 16, "r": 224, "top1": 76.0, "macs": 230.0, "e": 6, "ks": 5},
    {"net_id": "proxyless", "space": "ProxylessNASNets", "first": 40, "r": 128, "top1": 72.6, "macs": 165.0},
]


def predictor() -> nn.Sequential:
    """As Once-for-all's, with made-up weights: 77 % and a bit."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    final = layers[4]
    assert isinstance(final, nn.Linear)
    final.bias.data += 0.77
    return layers.requires_grad_(False)


def write_predictor(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(predictor().state_dict(), path)
    return path


def write_networks(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for each in NETWORKS:
        blocks = {} if "e" not in each else {"d": [3] * 5, "ks": [each["ks"]] * 15, "e": [each["e"]] * 15}
        written.append({**each, **blocks})
    path.write_text(json.dumps(written))
    return path


# Searches on photos score two architectures each, by a step on few of them, and networks are trained for an epoch.
FEW = Recipe(steps=1, batch_size=8, min_budget=2, max_budget=2, max_epochs=1, whole_side=80)


def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """`edgenas paper` makes Fig. 4 by FEW."""
    monkeypatch.setitem(job._MAKERS, "fig4", partial(fig4, recipe=FEW))

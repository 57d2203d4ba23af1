"""Whether subnets of a Once-for-all checkpoint compute what the `ofa` package's own do: `python -m
tests.benchmarks.ofa_peer FOLDER [COUNT]`.

FOLDER has the peer: pip install --no-deps --target FOLDER ofa==0.1.0.post202307202001. It imports torchvision and
others that are not needed here, so stand-ins of these are given to it. Its networks have random weights, and
statistics and kernel matrices unlike those that a network begins with. Prints, for both widths, the worst difference of
logits over the largest logit, of COUNT (20) random subnets; asked are 1e-5.
"""

from __future__ import annotations

import random
import sys
import tempfile
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgenas.architecture import random_architecture
from edgenas.spaces.mobilenet import OFAMobileNetV3W10, OFAMobileNetV3W12
from edgenas.spaces.mobilenet.ofa import OFAMobileNetV3
from edgenas.spaces.mobilenet.supernet import Supernet
from edgenas.spaces.mobilenet.weights import read_ofa

ASKED = 1e-5
_STAND_INS = (
    *("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.datasets"),
    *("torchvision.transforms.transforms", "torchvision.datasets.folder", "gdown", "horovod", "horovod.torch"),
)


class StandIn(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012  # a package, as far as imports go

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def peer_class(folder: str) -> Any:
    for name in _STAND_INS:
        module = sys.modules[name] = StandIn(name)
        if "." in name:
            setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)
    sys.path.insert(0, folder)
    return import_module("ofa.imagenet_classification.elastic_nn.networks").OFAMobileNetV3


@torch.no_grad()
def worst(peers: Any, space: OFAMobileNetV3, width: float, count: int) -> float:
    torch.manual_seed(0)
    choices = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}
    peer = peers(n_classes=1000, bn_param=(0.1, 1e-5), dropout_rate=0, width_mult=width, **choices).eval()
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            for each in (module.weight, module.running_mean, module.running_var):
                assert each is not None
                each += 0.2 * torch.rand_like(each)
    for name, parameter in peer.named_parameters():
        if name.endswith("_matrix"):
            parameter += 0.02 * torch.randn_like(parameter)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint"
        torch.save({"state_dict": peer.state_dict()}, path)
        state, transforms = read_ofa(path, space)
    supernet = Supernet(space, state, "the peer", transforms, by_importance=False)
    rng, found = random.Random(0), 0.0
    for _ in range(count):
        arch = random_architecture(space, rng)
        config = space.config(arch)
        rows = [[*stage, *[(3, 3)] * (4 - len(stage))] for stage in config.stages[1:]]
        peer.set_active_subnet(
            ks=[kernel for row in rows for kernel, _ in row],
            e=[expand for row in rows for _, expand in row],
            d=[len(stage) for stage in config.stages[1:]],
        )
        images = torch.randn(2, 3, config.resolution, config.resolution)
        theirs = peer.get_active_subnet(preserve_weight=True).eval()(images)
        ours = supernet.subnet(arch)(images)
        found = max(found, float((ours - theirs).abs().max() / theirs.abs().max()))
    return found


def main(folder: str, count: int) -> int:
    peers = peer_class(folder)
    found = {}
    for space, width in ((OFAMobileNetV3W10(), 1.0), (OFAMobileNetV3W12(), 1.2)):
        found[space.name] = worst(peers, space, width, count)
        print(f"{space.name}: {count} subnets, worst difference {found[space.name]:.1e}, asked {ASKED:.0e}", flush=True)
    return int(max(found.values()) > ASKED)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit((__doc__ or "").partition("\n\n")[0])
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 20))

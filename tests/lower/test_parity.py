"""Every format computes what torch computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgenas.architecture import Architecture
from edgenas.data.files import locate
from edgenas.fitness.reference import ResNet
from edgenas.lower import lower
from edgenas.lower.onnx import to_onnx
from edgenas.lower.quantize import dynamic_int8, float16, full_int8
from edgenas.lower.tflite import to_tflite
from edgenas.lower.trace import torch_logits
from edgenas.lower.verify import compare, run_model
from edgenas.spaces.nasbench201 import NASBench201
from tests.benchmarks.parity import DEGENERATE, MAX_ERROR, errors
from tests.lower.networks import Mixed, MobileNetLike, with_statistics

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 32, 32), np.float32)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet-like": MobileNetLike,
    "mixed": Mixed,
    "resnet20": lambda: ResNet(20, 10),
}


@pytest.fixture(params=NETWORKS, scope="module")
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    return with_statistics(NETWORKS[request.param]())


@pytest.mark.parametrize("write", [to_onnx, to_tflite])
def test_float32_agrees_with_torch(network: nn.Module, write: Callable[..., bytes]) -> None:
    model = write(lower(network, torch.zeros(1, 3, 32, 32)), {})
    assert compare(run_model(model, IMAGES), torch_logits(network, IMAGES)).relative_error <= MAX_ERROR


@pytest.mark.parametrize("write", [to_onnx, to_tflite])
def test_batches_agree_with_torch(network: nn.Module, write: Callable[..., bytes]) -> None:
    model = write(lower(network, torch.zeros(4, 3, 32, 32)), {})
    assert compare(run_model(model, IMAGES), torch_logits(network, IMAGES)).relative_error <= MAX_ERROR


def test_small_formats_come_close_to_torch(network: nn.Module) -> None:
    graph, expected = lower(network, torch.zeros(1, 3, 32, 32)), torch_logits(network, IMAGES)
    single = to_tflite(graph, {})
    for model, limit in ((float16(single), 2e-3), (dynamic_int8(single), 0.05), (full_int8(graph, {}, IMAGES), 0.2)):
        assert compare(run_model(model, IMAGES), expected).relative_error <= limit


def test_small_formats_are_small() -> None:
    graph = lower(with_statistics(ResNet(20, 10)), torch.zeros(1, 3, 32, 32))
    single = to_tflite(graph, {})
    assert len(float16(single)) < 0.6 * len(single)
    assert len(dynamic_int8(single)) < 0.35 * len(single)
    assert len(full_int8(graph, {}, IMAGES)) < 0.35 * len(single)


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_cells_agree_with_torch(name: str) -> None:
    arch = Architecture("nasbench201", DEGENERATE[name])
    assert max(errors(arch, 1, IMAGES[:2]).values()) <= MAX_ERROR


@pytest.mark.parametrize("index", [0, 1462, 6111, 9930, 13714])
def test_cells_agree_with_torch(index: int) -> None:
    assert max(errors(NASBench201().from_index(index), index, IMAGES[:2]).values()) <= MAX_ERROR


def test_the_comparison_sees_a_wrong_weight() -> None:
    network = with_statistics(NASBench201().build(NASBench201().from_index(6111), 10, cells=1))
    expected = torch_logits(network, IMAGES)
    with torch.no_grad():
        next(network.parameters())[0] *= 1.01
    graph = lower(network, torch.zeros(1, 3, 32, 32))
    for model in (to_onnx(graph, {}), to_tflite(graph, {})):
        assert compare(run_model(model, IMAGES), expected).relative_error > MAX_ERROR


@pytest.mark.parametrize("genes", [(0, 0, 0, 0, 0, 0), (3, 3, 2, 0, 2, 3)])
def test_int8_keeps_biases_that_dwarf_their_inputs(genes: tuple[int, ...]) -> None:
    """Logits that are all bias: of a constant network, and of one whose activations vanish."""
    torch.manual_seed(3)
    network = NASBench201().build(Architecture("nasbench201", genes), 10).eval()
    with torch.no_grad():
        network.classifier.weight *= 1e-9
    model = full_int8(lower(network, torch.zeros(1, 3, 32, 32)), {}, IMAGES)
    parity = compare(run_model(model, IMAGES), torch_logits(network, IMAGES))
    assert parity.relative_error <= 0.01
    assert parity.top1_agreement == 1


@pytest.mark.real_data
def test_pretrained_resnet_survives_int8() -> None:
    """Real weights on real images: float32 within 1e-5, int8 with at least 98 % of torch's classes."""
    from edgenas.data.images import load_images
    from edgenas.fitness.reference import load_weights

    weights, sample = locate("resnet20"), locate("cifar10-sample")
    if weights is None or sample is None:
        pytest.skip("resnet20 and cifar10-sample are not here; run: edgenas data fetch resnet20 cifar10-sample")
    image_set = load_images("cifar10")
    pixels = (image_set.images[:264].transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)
    images, labels = pixels[64:], image_set.labels[64:264]
    network = load_weights(weights).eval()
    expected, graph = torch_logits(network, images), lower(network, torch.zeros(1, 3, 32, 32))
    assert compare(run_model(to_tflite(graph, {}), images), expected).relative_error <= MAX_ERROR
    parity = compare(run_model(full_int8(graph, {}, pixels[:64]), images), expected, labels)
    assert parity.top1_agreement >= 0.98
    assert parity.accuracy is not None
    assert parity.torch_accuracy is not None
    assert parity.accuracy >= parity.torch_accuracy - 0.02

"""A graph computed by torch gives what its network and its files give, in float and rounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.architecture import Architecture
from edgenas.lower import lower
from edgenas.lower.biases import as_integers, clipped, with_integer_biases
from edgenas.lower.compute import compute, rounded, rounded_weight, rounds_anew, tensor, weights_of
from edgenas.lower.corrections import with_measured_biases
from edgenas.lower.graph import Conv, Graph, Linear, Value
from edgenas.lower.quantize import Prepared, as_int8, full_int8, prepared
from edgenas.lower.ranges import Ranging
from edgenas.lower.trace import torch_logits
from edgenas.lower.verify import Logits, run_model
from edgenas.spaces.nasbench201 import NASBench201
from tests.lower.networks import MobileNetLike, with_statistics

IMAGES = np.random.default_rng(1).normal(size=(48, 3, 32, 32)).astype(np.float32)
ONE = np.ones((1, 1), np.float32)
EXAMPLE = torch.zeros(1, 3, 32, 32)


class Windows(nn.Module):
    """Windows of every kind over the edges; a concatenation, a product and a softmax."""

    def forward(self, x: Tensor) -> Tensor:
        parts = [
            F.max_pool2d(x - 2, 3, 2, 1),
            F.avg_pool2d(x, 3, 2, 1, count_include_pad=True),
            F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            F.avg_pool2d(F.pad(x, (2, 0, 1, 1)), (4, 4), 2),
        ]
        joined = torch.cat(parts, 1)
        return torch.softmax((joined * torch.sigmoid(joined)).mean((2, 3)), 1)


def cell(*genes: int) -> nn.Module:
    torch.manual_seed(0)
    return NASBench201().build(Architecture("nasbench201", genes), 10, cells=1, channels=8)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet": MobileNetLike,
    "convolutions and averages": lambda: cell(3, 2, 4, 1, 3, 4),
    "nothing but skips": lambda: cell(1, 1, 1, 1, 1, 1),
    "windows": Windows,
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(NETWORKS[name]())


@pytest.mark.parametrize("name", NETWORKS)
def test_it_gives_what_the_network_gives_for_many_images_at_once(name: str) -> None:
    module = network(name)
    graph, expected = lower(module, EXAMPLE), torch_logits(module, IMAGES)
    with torch.inference_mode():
        found = compute(graph, torch.from_numpy(IMAGES), weights_of(graph)).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def as_rounded(ready: Prepared, images: Logits) -> Logits:
    spans, anew = ready.spans, rounds_anew(ready.graph)

    def stored(value: Value, x: Tensor) -> Tensor:
        return rounded(x, spans[value]) if value in anew and value in spans else x

    weights = {op: (rounded_weight(op, w), b) for op, (w, b) in weights_of(ready.graph).items()}
    with torch.inference_mode():
        found: Logits = compute(ready.graph, torch.from_numpy(images), weights, stored).numpy()
    return found


@pytest.mark.parametrize("name", ["mobilenet", "convolutions and averages"])
def test_rounded_it_gives_what_the_int8_file_gives(name: str) -> None:
    """But for a step of the output: kernels round in the middle of an operator too."""
    module = network(name)
    ready = prepared(lower(module, EXAMPLE), {}, IMAGES)
    file = run_model(as_int8(ready, {}), IMAGES)
    low, high = ready.spans[ready.graph.output]
    assert np.abs(as_rounded(ready, IMAGES) - file).mean() < 0.75 * (high - low) / 255


def test_weights_are_rounded_as_the_file_has_them() -> None:
    graph = lower(network("mobilenet"), EXAMPLE)
    for op in graph.ops:
        if isinstance(op, Conv | Linear):
            found = rounded_weight(op, tensor(op.weight)).numpy()
            assert np.abs(found - as_integers(op.weight)).max() <= 1e-6 * np.abs(op.weight).max()


def test_the_gradient_passes_a_rounding_within_the_span_alone() -> None:
    x = torch.tensor([-1.0, 0.1234, 0.5, 7.0], requires_grad=True)
    found = rounded(x, (0.0, 6.0))
    torch.autograd.backward(found.sum())
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]
    assert found.tolist() == pytest.approx([0, 0.1176, 0.4941, 6], abs=1e-3)


def test_weights_far_out_are_cut_where_that_is_nearer_to_all_of_them() -> None:
    random = np.random.default_rng(0)
    even = random.normal(size=(4, 8, 3, 3)).astype(np.float32)
    linear = random.normal(size=(10, 64)).astype(np.float32)
    linear[0, 0] = 12.0
    for weight in (even, linear):
        cut = clipped(weight, np.ones((1,) * weight.ndim, np.float32))
        error = ((as_integers(cut) - weight) ** 2).sum()
        assert error <= ((as_integers(weight) - weight) ** 2).sum()
        assert (np.abs(cut) <= np.abs(weight)).all()
    few_steps = np.where(np.arange(64_000) == 0, 60.0, random.normal(size=64_000)).astype(np.float32).reshape(10, -1)
    assert np.abs(clipped(few_steps, ONE)).max() < 60
    assert clipped(np.zeros((3, 4), np.float32), ONE).tolist() == np.zeros((3, 4)).tolist()


@pytest.mark.parametrize("ranging", ["percentiles", "least error"])
def test_ranges_are_narrowed_within_what_was_seen(ranging: Ranging) -> None:
    """An image that is 30 times as bright as all others widens every range; few numbers lie there."""
    graph = lower(network("mobilenet"), EXAMPLE)
    images = IMAGES.copy()
    images[5] *= 30
    wide, narrow = (
        {
            value: (min(0.0, low), max(0.0, high))
            for value, (low, high) in prepared(graph, {}, images, kind).spans.items()
        }
        for kind in ("extremes", ranging)
    )
    assert wide.keys() == narrow.keys()
    assert all(
        wide[value][0] <= narrow[value][0] + 1e-6 and narrow[value][1] <= wide[value][1] + 1e-6 for value in wide
    )
    assert np.mean([narrow[value][1] < 0.9 * wide[value][1] for value in wide]) > 0.3


def test_calibration_is_by_extremes_and_the_same_bytes_as_ever() -> None:
    graph = lower(network("mobilenet"), EXAMPLE)
    assert full_int8(graph, {}, IMAGES) == as_int8(prepared(graph, {}, IMAGES, "extremes"), {})
    assert as_int8(prepared(graph, {}, IMAGES, "least error"), {}) != full_int8(graph, {}, IMAGES)


def test_measured_biases_bring_the_mean_output_back() -> None:
    module = network("mobilenet")
    graph = lower(module, EXAMPLE)
    ready = prepared(graph, {}, IMAGES)
    for op in ready.graph.ops:
        if isinstance(op, Conv | Linear):
            op.bias = op.bias + 0.05 * np.abs(op.bias).max()
    moved = with_measured_biases(ready, graph, IMAGES)
    expected = torch_logits(module, IMAGES).mean(0)
    before, after = (np.abs(as_rounded(each, IMAGES).mean(0) - expected).max() for each in (ready, moved))
    assert after < 0.2 * before
    as_it_was = lower(network("mobilenet"), EXAMPLE)
    weights = [op.weight for op in graph.ops if isinstance(op, Conv | Linear)]
    others = [op.weight for op in as_it_was.ops if isinstance(op, Conv | Linear)]
    assert all((one == other).all() for one, other in zip(weights, others, strict=True)), "the float graph stays"


def test_without_means_only_what_would_overflow_changes() -> None:
    graph = lower(network("mobilenet"), EXAMPLE)
    ready = prepared(graph, {}, IMAGES)
    same: Graph = with_integer_biases(ready.graph, ready.ranges, None)
    for one, other in zip(same.ops, ready.graph.ops, strict=True):
        if isinstance(one, Conv | Linear) and isinstance(other, Conv | Linear):
            assert (one.bias == other.bias).all()
            assert (one.weight == other.weight).all()

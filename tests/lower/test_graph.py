"""What the passes leave of a network: the canonical lowering."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.architecture import Architecture
from edgenas.lower import Graph, lower
from edgenas.lower.edgetpu import operator_counts
from edgenas.lower.graph import Activation, Conv, Mean, Pool
from edgenas.lower.tflite import to_tflite
from edgenas.lower.verify import run_model
from edgenas.spaces.nasbench201 import NASBench201
from tests.lower.networks import Mixed, MobileNetLike, with_statistics

EXAMPLE = torch.zeros(1, 3, 8, 8)


def lowered(*layers: nn.Module) -> Graph:
    return lower(with_statistics(nn.Sequential(*layers)), EXAMPLE)


def kinds(graph: Graph) -> list[str]:
    return [type(op).__name__ for op in graph.ops]


def cell(*genes: int) -> Graph:
    network = NASBench201().build(Architecture("nasbench201", genes), 10, cells=1)
    return lower(with_statistics(network), torch.zeros(1, 3, 32, 32))


def test_norm_and_activation_join_their_convolution() -> None:
    graph = lowered(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Identity())
    assert kinds(graph) == ["Conv"]
    assert isinstance(graph.ops[0], Conv)
    assert graph.ops[0].activation == "relu"


def test_a_norm_without_convolution_becomes_a_depthwise_one() -> None:
    graph = lowered(nn.AvgPool2d(2), nn.BatchNorm2d(3), nn.ReLU())
    assert kinds(graph) == ["Pool", "Conv"]
    conv = graph.ops[1]
    assert isinstance(conv, Conv)
    assert (conv.groups, conv.activation) == (3, "relu")


def test_flattening_joins_the_global_mean() -> None:
    graph = lowered(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    assert kinds(graph) == ["Conv", "Mean", "Linear"]
    assert isinstance(graph.ops[1], Mean)
    assert graph.ops[1].output.shape == (1, 4)


def test_zero_padding_joins_the_convolution() -> None:
    graph = lowered(nn.ZeroPad2d((1, 0, 2, 0)), nn.Conv2d(3, 4, 3, padding=1))
    assert kinds(graph) == ["Conv"]
    assert isinstance(graph.ops[0], Conv)
    assert graph.ops[0].padding == (3, 1, 2, 1)


def test_relu_after_relu_is_dropped() -> None:
    graph = lowered(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU())
    assert kinds(graph) == ["Conv", "Pool"]


def test_dead_branches_and_zeros_leave_nothing() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            y: Tensor = self.used(x)
            return y + torch.zeros_like(y) + y.mul(0.0)

    assert kinds(lower(Dead().eval(), EXAMPLE)) == ["Conv"]


def test_convolutions_of_zeros_become_one_offset_of_another_convolution() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.live = nn.Conv2d(3, 4, 1)
            self.dead = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.live(x) + self.dead(torch.zeros_like(x))
            return out

    assert kinds(lower(with_statistics(Constant()), EXAMPLE)) == ["Conv"]


def test_an_offset_before_an_average_pooling_joins_the_sum_behind_it() -> None:
    """Node 2 is the pooled input plus a convolution of zeros; its pooling goes into a sum with a convolution."""
    counts = Counter(operator_counts(to_tflite(cell(0, 4, 3, 2, 3, 4), {})))
    assert counts["DEPTHWISE_CONV_2D"] <= 1  # the last norm
    assert counts["ADD"] == 3 + 2  # one a cell and one a join


@pytest.mark.parametrize(("counts_padding", "order"), [(True, ["Conv", "Pool"]), (False, ["Pool", "Conv"])])
def test_only_an_average_without_padding_lets_an_offset_pass(counts_padding: bool, order: list[str]) -> None:
    class Offset(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.avg_pool2d(x * 2 + 1.5, 3, 2, 1, count_include_pad=counts_padding)

    network, images = Offset().eval(), np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)
    graph = lower(network, torch.zeros(1, 3, 8, 8))
    assert kinds(graph) == order
    logits = run_model(to_tflite(graph, {}), images)
    assert np.allclose(logits.transpose(0, 3, 1, 2), network(torch.from_numpy(images)).numpy(), atol=1e-6)


def test_a_disconnected_cell_keeps_input_and_output_and_little_else() -> None:
    assert kinds(cell(0, 0, 0, 0, 0, 0)) == ["Mean", "Linear"]


def test_edges_share_their_relu_and_pooling() -> None:
    graph = cell(3, 3, 0, 3, 4, 4)  # three convolutions read the input; each needs its ReLU
    relus = [op for op in graph.ops if isinstance(op, Activation)]
    first_stage = [op for op in relus if op.output.shape[1] == 16]
    assert len(first_stage) <= 2  # one in the cell, one before the join
    shared = cell(4, 4, 1, 0, 0, 1)
    assert sum(isinstance(op, Pool) and op.stride == (1, 1) for op in shared.ops) == 3  # one a cell, not two


def test_tflite_has_the_fewest_operators() -> None:
    """Counts of a skip-and-convolution cell, by hand: any growth is a change of the canonical lowering."""
    counts = Counter(operator_counts(to_tflite(cell(1, 0, 3, 0, 0, 1), {})))
    # Stem, 3 cells of one convolution, 2 joins of two and a shortcut; the last norm is a depthwise convolution.
    assert counts["CONV_2D"] == 1 + 3 + 2 * 3 - 0
    assert counts["DEPTHWISE_CONV_2D"] <= 1
    assert counts["ADD"] == 2
    assert counts["PAD"] == 2  # only the joins' convolutions of stride 2
    assert set(counts) <= {
        "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "PAD", "RELU", "AVERAGE_POOL_2D", "MEAN", "FULLY_CONNECTED"
    }  # fmt: skip


class Gated(nn.Module):
    """Images times three times what `gate` makes of them, then `last`."""

    def __init__(self, gate: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.gate, self.last = gate, last

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(x * (self.gate(x) * torch.tensor([3.0, 0.5, -2.0]).view(1, 3, 1, 1)))
        return out


@pytest.mark.parametrize(
    ("last", "order"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), ["Activation", "Mul", "Conv"]),
        (nn.Conv2d(3, 6, 3, groups=3), ["Activation", "Conv", "Mul", "Conv"]),  # a grouped one takes no scale in
        (nn.ReLU(), ["Activation", "Conv", "Mul"]),
    ],
)
def test_a_scale_goes_through_a_product_into_the_convolution_behind_it(last: nn.Module, order: list[str]) -> None:
    network, images = (
        Gated(nn.Sigmoid(), last).eval(),
        np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32),
    )
    graph = lower(network, EXAMPLE)
    assert kinds(graph) == order
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert np.allclose(run_model(to_tflite(graph, {}), images).transpose(0, 3, 1, 2), expected, atol=1e-5)


def test_a_scale_that_others_read_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            scaled = F.relu(x) * 2.5
            out: Tensor = self.first(scaled) + self.second(scaled)
            return out

    assert kinds(lower(Twice().eval(), EXAMPLE)) == ["Activation", "Conv", "Conv", "Conv", "Add"]


def test_squeeze_and_excite_takes_one_mean() -> None:
    counts = operator_counts(to_tflite(lower(with_statistics(MobileNetLike()), torch.zeros(1, 3, 32, 32)), {}))
    assert counts["DEPTHWISE_CONV_2D"] == 3  # none for the sixth of a hard sigmoid
    assert counts["MEAN"] == 4  # three squeezes and the last pooling
    assert "RESHAPE" not in counts


def test_no_affine_is_left() -> None:
    for network in (Mixed(), MobileNetLike()):
        graph = lower(with_statistics(network), torch.zeros(1, 3, 32, 32))
        assert "Affine" not in kinds(graph)


def test_lowering_leaves_the_module_alone() -> None:
    network = with_statistics(MobileNetLike())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lower(network, torch.zeros(1, 3, 32, 32))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

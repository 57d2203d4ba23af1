"""What cannot be lowered is named, with its place, in one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgenas.errors import ExportError
from edgenas.lower import lower

EXAMPLE = torch.zeros(1, 3, 8, 8)


class Calls(nn.Module):
    """Applies any function to its input, below the path `inner`."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def wrapped(function: Callable[[Tensor], Any]) -> nn.Module:
    outer = nn.Sequential()
    outer.add_module("inner", Calls(function))
    return outer.eval()


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.ConvTranspose2d(3, 4, 3), "ConvTranspose2d"),
        (nn.GroupNorm(1, 3), "GroupNorm"),
        (nn.Conv2d(4, 4, 3), "a convolution of 4 channels given 3"),
        (nn.BatchNorm2d(5), "a batch norm of 5 channels"),
        (nn.BatchNorm2d(3, track_running_stats=False), "running statistics"),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), "padding mode reflect"),
        (nn.Conv2d(3, 4, 9), "a window of 9x9 on an image of 8x8"),
        (nn.MaxPool2d(3, 2, ceil_mode=True), "ceil_mode"),
        (nn.AdaptiveAvgPool2d(3), "windows of unequal size"),
        (nn.Linear(3, 4), r"a linear layer on other than \[batch, features\]"),
        (nn.Conv2d(3, 4, 3).double(), "float64"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_module_is_named_with_its_place(layer: nn.Module, named: str) -> None:
    network = nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU(), layer)).eval()
    with pytest.raises(ExportError, match=f"{named}.*'1.1'") as caught:
        lower(network, EXAMPLE)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (torch.erf, "erf"),
        (lambda x: x.cumsum(1), "cumsum"),
        (lambda x: x @ x, "matmul"),
        (lambda x: x / x, "division by a computed value"),
        (lambda x: 1 / x, "division by a computed value"),
        (lambda x: x[:, 1:], "slice"),
        (lambda x: x.view(1, 7, -1), "a view of"),
        (lambda x: F.pad(x, (1, 1), mode="reflect"), "padding by other than a constant"),
        (lambda x: F.dropout(x), "dropout in training mode"),
        (lambda x: F.softmax(x, dim=2), "softmax over other than"),
        (lambda x: torch.cat([x, x[:, :, ::2, ::2]], dim=1), "cat of shapes"),
        (lambda x: x + torch.zeros(1, 3, 5, 5), "arithmetic between shapes"),
        (lambda x: x * float("nan"), "NaN"),
        (lambda x: x if x.sum() > 0 else -x, "mean over|sum"),
        (lambda x: x if bool(F.relu(x)) else -x, "cannot be traced"),
        (lambda x: x.numpy(), "numpy"),
    ],
)
def test_a_function_is_named_with_its_place(function: Callable[[Tensor], Any], named: str) -> None:
    with pytest.raises(ExportError, match=f"({named}).*'inner'|'inner'.*({named})"):
        lower(wrapped(function), EXAMPLE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    norm = nn.BatchNorm2d(4)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm).eval()
    with torch.no_grad():
        norm.bias[2] = value
    with pytest.raises(ExportError, match="NaN or infinite at '1'"):
        lower(network, EXAMPLE)


@pytest.mark.parametrize("example", [torch.zeros(3, 8, 8), torch.zeros(0, 3, 8, 8)])
def test_the_example_must_be_a_batch_of_images(example: Tensor) -> None:
    with pytest.raises(ExportError, match="the example has shape"):
        lower(nn.Sequential(nn.ReLU()).eval(), example)


def test_training_mode_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    network[0].train()
    with pytest.raises(ExportError, match=r"'0' is in training mode; call module.eval\(\)"):
        lower(network, EXAMPLE)


def test_hooks_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    network[0].register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(ExportError, match="forward hooks"):
        lower(network, EXAMPLE)


def test_one_tensor_in_and_one_out() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(ExportError, match="second input 'y'"):
        lower(Two().eval(), EXAMPLE)
    with pytest.raises(ExportError, match="returns a tuple"):
        lower(wrapped(lambda x: (F.relu(x), x)), EXAMPLE)
    with pytest.raises(ExportError, match="nothing to export"):
        lower(nn.Sequential(nn.Identity()).eval(), EXAMPLE)


def test_a_module_that_inherits_its_forward_is_known_and_one_that_changes_it_is_traced() -> None:
    class Named(nn.Conv2d):
        pass

    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    assert [type(op).__name__ for op in lower(nn.Sequential(Named(3, 4, 1)).eval(), EXAMPLE).ops] == ["Conv"]
    graph = lower(nn.Sequential(Doubled(3, 4, 1)).eval(), EXAMPLE)
    assert [type(op).__name__ for op in graph.ops] == ["Conv"]  # the factor is folded


@pytest.mark.parametrize("module", ["edgenas.lower", "edgenas.cli"])
def test_importing_is_light(module: str) -> None:
    heavy = "{'torch', 'onnx', 'onnxruntime', 'ai_edge_litert', 'ai_edge_quantizer', 'flatbuffers'}"
    code = f"import sys, {module}; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)

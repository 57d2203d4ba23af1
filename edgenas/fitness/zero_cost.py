"""Zero-cost proxies of a network before training: NASWOT and synflow, each a number for a torch network.

NASWOT: Mellor et al., Neural Architecture Search without Training (ICML 2021, arXiv:2006.04647).
Synflow: Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow (NeurIPS 2020,
arXiv:2006.05467), as a score of architectures by Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS (ICLR 2021,
arXiv:2101.08134).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# Modules call the functions of `F`. What follows ReLU's idea, that a unit is on or off, has codes as well.
_RELUS = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.hardtanh, F.relu6, F.hardswish}
_RELU_MODULES = (nn.ReLU, nn.ReLU6, nn.Hardswish)


class _Codes(TorchFunctionMode):
    """Adds up, over every ReLU that is computed, be it a module or a function, how alike the images' codes are."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.units = 0
        self.products = np.zeros((batch, batch))

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _RELUS:
            # Whole numbers, and so exact: a layer has fewer units than the 2^24 up to which float32 counts.
            signs = torch.where(args[0].flatten(1) > 0, 1.0, -1.0)
            self.units += signs.shape[1]
            self.products += (signs @ signs.T).double().numpy()
        return func(*args, **(kwargs or {}))


def kernel(network: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """K_H [batch, batch] of Mellor et al., section 3, for `images` [batch, 3, h, w] on the CPU.

    An image's code says of every unit before a ReLU, N_A in all, whether it is above 0; K_H is N_A less the Hamming
    distance of two images' codes. The network is in training mode: its batch norms normalise by the batch.
    """
    codes = _Codes(len(images))
    with torch.no_grad(), codes:
        network.train()(images)
    # The products of signs are N_A less twice the distance.
    return (codes.units + codes.products) / 2


def naswot(network: nn.Module, images: Tensor) -> float:
    """log |det K_H|; -inf where K_H is singular, as it is where two images have one code."""
    matrix = kernel(network, images)
    # By its rank first: rounding makes the determinant of a singular matrix any small number.
    if np.linalg.matrix_rank(matrix, hermitian=True) < len(matrix):
        return -math.inf
    return float(np.linalg.slogdet(matrix).logabsdet)


def synflow(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """log of the sum of |theta dR/dtheta| over the weights theta of convolutions and linear layers; -inf where it is 0.

    R is the sum of the outputs for one input of ones, of `shape` (channels, h, w), once every parameter is replaced by
    its absolute value (Tanaka et al., Eq. 3). Batch norms are left out, as Abdelfattah et al. do: each is an identity.
    So are ReLUs, for nothing is negative then; that of ReLU6 and hard-swish is meant to bound what is normalised.
    Biases count for R but are not summed over. In float64, for the sum outgrows float32 with depth. Changes `network`.
    """
    _linearise(network)
    network.eval().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    network.zero_grad()
    torch.autograd.backward(network(torch.ones(1, *shape, dtype=torch.float64)).sum())
    flow = 0.0
    for each in network.parameters():
        if each.dim() > 1 and each.grad is not None:
            flow += float((each.detach() * each.grad).abs().sum())
    return math.log(flow) if flow > 0 else -math.inf


def _linearise(network: nn.Module) -> None:
    for name, child in network.named_children():
        if isinstance(child, (*_NORMS, *_RELU_MODULES)):
            setattr(network, name, nn.Identity())
        else:
            _linearise(child)

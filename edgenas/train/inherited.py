"""Networks that begin with a part of a trained network's weights (edgenas.architecture.Inheriting)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgenas.errors import UsageError


def own(network: nn.Module) -> nn.Module:
    """`network` with weights of its own, which were a part of a supernet's."""
    # Other tensors, not only other memory: a view counts its changes together with what it is a view of, and by that
    # count autograd would take the steps of another network for changes of this one.
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().clone()))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.detach().clone())
    return network


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Estimate the statistics of `network`'s batch norms anew: the mean over `batches`, each [batch, 3, h, w]. Returns
    the number of images. `network` shares no statistics with others afterwards, and is in evaluation mode.

    Where memory is too short for a batch it is not halved, for halves are normalised by statistics of their own, and
    the estimate would be another. Raises UsageError where there is no image."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        assert norm.running_mean is not None
        norm.running_mean = torch.zeros_like(norm.running_mean)
        norm.running_var = torch.ones_like(norm.running_mean)
        norm.num_batches_tracked = torch.zeros((), dtype=torch.long, device=norm.running_mean.device)
        norm.momentum = None  # the mean over all batches, not a moving one
    network.train()
    count = 0
    for images in batches:
        network(images)
        count += len(images)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    if not count:
        raise UsageError("batch norms cannot be estimated without images; give some")
    return count

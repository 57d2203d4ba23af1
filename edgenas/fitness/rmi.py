"""RMI, how alike a candidate and the reference represent one batch of images.

Eq. 2 of HW-EvRSNAS; the score goes back to RMI-NAS (Zheng et al., CVPR 2022) and is a sum of linear CKA (Kornblith et
al., ICML 2019). The features of one batch, flattened to X [batch, features], enter only through their Gram matrix
K = X X^T [batch, batch], because ||X*^T X||_F^2 = <K*, K>_F.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Features whose spread over the batch is below this share of their size are constant but for rounding.
_CONSTANT = 1e-5


class _Gram(torch.autograd.Function):
    """X X^T, with the gradient (G + G^T) X in one product: autograd's own takes two, and a sum of two feature maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x.mT

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        result: Tensor = (gradient + gradient.mT) @ x
        return result


def unit_grams(x: Tensor, centred: bool = True) -> Tensor:
    """K / ||K||_F, [..., batch, batch], of features [..., batch, features]; `centred`: over the batch, as the authors
    of RMI do. Leading dimensions are networks, which do not see each other.

    All zeros, with zero gradient, where the features are zero or, if centred, do not differ between images: a network
    that distinguishes no images represents nothing.
    """
    # Centring the small K is exact whatever offset was taken from X, which therefore needs no gradient; taking the mean
    # from X first keeps the digits that K would lose to a large one.
    if centred:
        offset = x.detach().mean(dim=-2, keepdim=True)
        gram: Tensor = _Gram.apply(x - offset)  # type: ignore[no-untyped-call]
        gram = gram - gram.mean(-2, keepdim=True) - gram.mean(-1, keepdim=True) + gram.mean((-2, -1), keepdim=True)
        spread, size = _trace(gram), x.shape[-2] * (offset * offset).sum((-2, -1), keepdim=True)
    else:
        gram = _Gram.apply(x)  # type: ignore[no-untyped-call]
        spread = _trace(gram)
        size = torch.zeros_like(spread)
    constant = ~(spread > _CONSTANT**2 * (spread + size))
    # Scaled by its trace first, so that the norm's squares do not underflow; what is not finite stays so.
    gram = gram.masked_fill(constant & spread.isfinite(), 0.0) / torch.where(constant, 1.0, spread)
    return gram / torch.where(constant, 1.0, torch.linalg.vector_norm(gram, dim=(-2, -1), keepdim=True))


def _trace(gram: Tensor) -> Tensor:
    return gram.detach().diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]


def unit_gram(features: Tensor, centred: bool = True) -> Tensor:
    """As `unit_grams`, [batch, batch], of one network's feature map [batch, ...]."""
    # The order of the features within a row is free, so flatten them as they lie in memory.
    return unit_grams((features.permute(0, 2, 3, 1) if _channels_last(features) else features).flatten(1), centred)


def _channels_last(features: Tensor) -> bool:
    return features.dim() == 4 and features.is_contiguous(memory_format=torch.channels_last)


def rmi(reference: Sequence[Tensor], candidate: Sequence[Tensor]) -> Tensor:
    """phi of Eq. 2: the sum over L taps of <K*, K>_F / (||K*||_F ||K||_F), in [0, L].

    `reference`: L unit Gram matrices [batch, batch]; `candidate`: L of [..., batch, batch]; the result is [...].
    """
    return torch.stack([(ours * theirs).sum((-2, -1)) for theirs, ours in zip(reference, candidate, strict=True)]).sum(
        0
    )

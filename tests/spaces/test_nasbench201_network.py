"""The torch network: the definition's function, the table's parameters and MACs, traceable and repeatable."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import symbolic_trace
from torch.utils.flop_counter import FlopCounterMode

from edgenas.architecture import Architecture
from edgenas.errors import UsageError
from edgenas.spaces.nasbench201 import CONV1X1, CONV3X3, EDGES, SKIP, NASBench201
from edgenas.spaces.nasbench201.network import Cell, NASBench201Network
from tests.spaces.dataflow import dataflow

SPACE = NASBench201()
genes = st.tuples(*[st.integers(0, 4)] * 6)
# Every node live; a dead node 2; a zero node 1 that feeds convolutions; disconnected with and without operations.
CELLS = [(3, 2, 1, 4, 3, 2), (1, 3, 3, 2, 4, 0), (0, 2, 3, 1, 3, 3), (0, 0, 0, 0, 3, 1), (2, 0, 0, 0, 0, 3), (0,) * 6]


def cell(*values: int) -> Architecture:
    return Architecture("nasbench201", values)


def network(values: tuple[int, ...], num_classes: int = 7, **size: int) -> NASBench201Network:
    torch.manual_seed(0)
    return SPACE.build(cell(*values), num_classes, **{"channels": 4, "cells": 1, **size})


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@given(genes, st.integers(1, 9), st.integers(1, 3), st.integers(1, 12))
@settings(max_examples=25)
def test_parameters_are_those_of_the_formula(values: tuple[int, ...], channels: int, cells: int, classes: int) -> None:
    net = network(values, classes, channels=channels, cells=cells)
    counted = sum(parameter.numel() for parameter in net.parameters())
    assert round(SPACE.params_m(cell(*values), channels, cells, classes) * 1e6) == counted


@given(genes, st.integers(1, 9), st.integers(1, 3), st.integers(1, 12), st.sampled_from([8, 12, 32]))
@settings(max_examples=25)
def test_macs_are_those_torch_counts(
    values: tuple[int, ...], channels: int, cells: int, classes: int, side: int
) -> None:
    arch = SPACE.canonical(cell(*values))  # has no unused operation, which the formula counts and torch would not see
    net = SPACE.build(arch, classes, channels=channels, cells=cells)
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(2, 3, side, side))
    macs = round(SPACE.macs_m(arch, channels, cells, classes, side) * 1e6)
    assert counter.get_total_flops() == 2 * 2 * (macs - classes)  # two images, two operations a MAC, bias not counted


def by_definition(tested: Cell, values: tuple[int, ...], x: Tensor) -> Tensor:
    """Every edge, dead or not, zeros computed with: the definition word by word, on the weights of `tested`."""
    nodes = [x, torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)]
    for gene, (source, target) in zip(values, EDGES, strict=True):
        nodes[target] = nodes[target] + (tested.edges[f"{source}_{target}"](nodes[source]) if gene else 0.0)
    return nodes[3]


@given(genes, st.booleans())
@settings(max_examples=60)
def test_a_cell_computes_its_definition(values: tuple[int, ...], training: bool) -> None:
    torch.manual_seed(0)
    tested = Cell(values, 3).double().train(training)
    for module in tested.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)  # what a zero input turns into
    x = images(2, 3, 8, 8).double()
    torch.testing.assert_close(tested(x), by_definition(tested, values, x))


@given(genes, st.booleans())
@settings(max_examples=60)
def test_a_cell_and_its_representative_compute_the_same_by_the_same_weights(
    values: tuple[int, ...], training: bool
) -> None:
    """Batch norms that have no offset keep zero at zero."""
    torch.manual_seed(0)
    tested = Cell(values, 3).double().train(training)
    canonical = SPACE.canonical(cell(*values)).genes
    transferred = Cell(canonical, 3).double().train(training)
    names = next(dataflow(canonical).matchings(dataflow(values)))
    for ours, theirs in names.items():
        source, target = (f"{EDGES[edge][0]}_{EDGES[edge][1]}" for edge in (theirs, ours))
        transferred.edges[target].load_state_dict(tested.edges[source].state_dict())
    x = images(2, 3, 8, 8).double()
    torch.testing.assert_close(tested(x), transferred(x))


def test_operations_are_those_of_the_benchmark() -> None:
    x = images(2, 3, 8, 8)
    assert torch.equal(Cell((0, 0, 0, SKIP, 0, 0), 3)(x), x)
    ones = torch.ones(1, 3, 8, 8)
    torch.testing.assert_close(Cell((0, 0, 0, 4, 0, 0), 3)(ones), ones)  # padding is not counted in the mean
    for gene, kernel in ((CONV1X1, 1), (CONV3X3, 3)):
        tested = Cell((0, 0, 0, gene, 0, 0), 3)
        convolution = next(module for module in tested.modules() if isinstance(module, nn.Conv2d))
        assert convolution.weight.shape == (3, 3, kernel, kernel)
        assert torch.equal(tested(-x.abs()), torch.zeros_like(x))  # ReLU comes first
    assert torch.equal(x, images(2, 3, 8, 8))  # ... and not in place


@pytest.mark.parametrize("values", CELLS)
def test_features_are_the_ends_of_the_stages(values: tuple[int, ...]) -> None:
    net = network(values, 7, channels=4, cells=2).eval()
    maps, logits = net.features(images(2, 3, 16, 16))
    assert [tuple(each.shape) for each in maps] == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 16, 4, 4)]
    assert logits.shape == (2, 7)
    assert torch.equal(logits, net(images(2, 3, 16, 16)))


@pytest.mark.parametrize("values", CELLS)
def test_every_cell_trains(values: tuple[int, ...]) -> None:
    net = network(values)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    x, labels = images(8, 3, 8, 8), torch.arange(8) % 7
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(x), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] or not SPACE.is_connected(cell(*values))
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert (net.stem[0].weight.grad is not None) == SPACE.is_connected(cell(*values))


@pytest.mark.parametrize("values", CELLS)
def test_the_network_is_traceable(values: tuple[int, ...]) -> None:
    net = network(values).eval()
    traced = symbolic_trace(net)
    assert torch.equal(traced(images(2, 3, 8, 8)), net(images(2, 3, 8, 8)))
    assert torch.equal(traced(images(5, 3, 16, 16)), net(images(5, 3, 16, 16)))


def test_the_seed_of_torch_decides_the_weights() -> None:
    first, again = network((3, 2, 1, 4, 3, 2)).state_dict(), network((3, 2, 1, 4, 3, 2)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = SPACE.build(cell(3, 2, 1, 4, 3, 2), 7, channels=4, cells=1).state_dict()
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])


@pytest.mark.parametrize("size", [{"channels": 0}, {"cells": 0}, {"depth": 3}])
def test_impossible_networks_are_refused(size: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="--size"):
        SPACE.build(cell(3, 2, 1, 4, 3, 2), 10, **size)
    with pytest.raises(UsageError, match="six genes"):
        SPACE.build(cell(3, 2), 10)

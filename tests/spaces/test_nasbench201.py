"""The space without its network: notation, order, canonical form, MACs and parameters."""

from __future__ import annotations

import csv
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgenas.architecture import Architecture, SearchSpace
from edgenas.errors import UnknownNameError, UsageError
from edgenas.spaces.nasbench201 import EDGES, NONE, SIZE, NASBench201
from tests.spaces.dataflow import dataflow, nameless

SPACE = NASBench201()
genes = st.tuples(*[st.integers(0, 4)] * 6)


def cell(*values: int) -> Architecture:
    return Architecture("nasbench201", values)


def data_file(name: str, what: str) -> Path:
    path = Path(os.environ.get("EDGENAS_DATA_DIR", "")) / name
    if "EDGENAS_DATA_DIR" not in os.environ or not path.is_file():
        pytest.skip(f"needs {name} ({what}): put it in a folder and set EDGENAS_DATA_DIR to that folder")
    return path


def test_is_a_search_space() -> None:
    space: SearchSpace = SPACE
    assert len(space.choices) == 6
    assert 5 ** len(space.choices) == SIZE == 15_625


@given(genes)
def test_arch_strings_and_indexes_go_both_ways(values: tuple[int, ...]) -> None:
    arch = cell(*values)
    assert SPACE.parse(SPACE.describe(arch)) == arch
    assert SPACE.from_index(SPACE.index_of(arch)) == arch


def test_arch_strings_are_the_benchmark_s() -> None:
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"
    assert SPACE.parse(text) == cell(4, 2, 1, 2, 0, 3)
    assert SPACE.describe(cell(4, 2, 1, 2, 0, 3)) == text


def test_the_shipped_order_holds_every_cell_once() -> None:
    archs = SPACE.all_architectures()
    assert len(archs) == len(set(archs)) == SIZE
    assert [SPACE.index_of(arch) for arch in archs] == list(range(SIZE))
    assert SPACE.describe(archs[0]) == (
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )


def test_the_caller_s_list_is_its_own() -> None:
    SPACE.all_architectures().clear()
    assert len(SPACE.all_architectures()) == SIZE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "|none~0|",
        "|none~0|+|none~0|none~1|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|",
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+",
        "|none~1|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none~0|+|none~0|none~1|+|none~1|none~0|none~2|",
        "none~0+none~0|none~1+none~0|none~1|none~2",
        "|none|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none~0|+|none~0||none~1|+|none~0|none~1|none~2|",
        "|none~\u0660|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|" * 1_000_000,
    ],
)
def test_a_malformed_arch_string_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(UsageError, match=r"write it like '\|op~0\|\+\|op~0\|op~1\|\+") as caught:
        SPACE.parse(text)
    assert len(str(caught.value)) < 300


@given(st.text(alphabet="|+~012 noneskip_", max_size=80))
def test_parse_never_fails_otherwise(text: str) -> None:
    try:
        arch = SPACE.parse(text)
    except UsageError:
        return
    assert SPACE.parse(SPACE.describe(arch)) == arch


def test_an_unknown_operation_gets_a_guess() -> None:
    with pytest.raises(UnknownNameError, match="'nor_conv_3x4'; did you mean nor_conv_3x3"):
        SPACE.parse("|nor_conv_3x4~0|+|none~0|none~1|+|none~0|none~1|none~2|")


@pytest.mark.parametrize(
    "arch",
    [cell(0, 0, 0, 0, 0, 5), cell(0, -1, 0, 0, 0, 0), cell(1, 2, 3), cell(), Architecture("ofa", (0, 0, 0, 0, 0, 0))],
)
def test_genes_outside_the_space_are_refused(arch: Architecture) -> None:
    methods: list[Callable[[Architecture], object]] = [
        SPACE.describe, SPACE.index_of, SPACE.canonical, SPACE.is_connected, SPACE.macs_m, SPACE.params_m, SPACE.draw
    ]  # fmt: skip
    for method in methods:
        with pytest.raises(UsageError, match="six genes from 0 to 4"):
            method(arch)


@pytest.mark.parametrize("index", [-1, SIZE])
def test_an_index_outside_the_benchmark_is_refused(index: int) -> None:
    with pytest.raises(UsageError, match="from 0 to 15624"):
        SPACE.from_index(index)


# --- canonical form ---------------------------------------------------------------------------------------------------


def all_genes() -> NDArray[np.int64]:
    """[15625, 6], in benchmark order."""
    return np.array([arch.genes for arch in SPACE.all_architectures()])


def representatives() -> list[Architecture]:
    return [SPACE.canonical(arch) for arch in SPACE.all_architectures()]


def test_there_are_5425_functional_classes() -> None:
    assert len(set(representatives())) == 5_425


def test_cells_are_of_one_class_where_their_dataflows_are_equal_but_for_names() -> None:
    """That is, up to renaming of nodes, pruning and skips; over the whole space, and by a way of its own."""
    flows = [nameless(dataflow(arch.genes)) for arch in SPACE.all_architectures()]
    assert len(set(flows)) == len(set(zip(flows, representatives(), strict=True))) == len(set(representatives()))


def test_no_member_of_a_class_has_other_macs_or_parameters_than_its_representative() -> None:
    for arch in SPACE.all_architectures():
        canonical = SPACE.canonical(arch)
        edges = {edge for edge, _, _ in dataflow(arch.genes).operations}
        pruned = cell(*(gene if edge in edges else NONE for edge, gene in enumerate(arch.genes)))
        assert SPACE.macs_m(pruned) == SPACE.macs_m(canonical) <= SPACE.macs_m(arch)
        assert SPACE.params_m(pruned) == SPACE.params_m(canonical) <= SPACE.params_m(arch)


def test_a_value_used_twice_is_not_two_operations() -> None:
    once, twice = cell(3, 0, 1, 0, 1, 3), cell(0, 3, 0, 3, 0, 3)  # the output adds one conv3x3(in), or another one
    assert SPACE.canonical(once) != SPACE.canonical(twice)
    assert SPACE.macs_m(SPACE.canonical(once)) == pytest.approx(78.6, abs=0.1)
    assert SPACE.macs_m(SPACE.canonical(twice)) == pytest.approx(114, abs=0.1)


def test_a_representative_is_its_own() -> None:
    for arch in set(representatives()):
        assert SPACE.canonical(arch) == arch


def test_a_representative_has_no_dead_operation() -> None:
    for arch in set(representatives()):
        edges = [edge for gene, edge in zip(arch.genes, EDGES, strict=True) if gene != NONE]
        assert all(source == 0 or any(target == source for _, target in edges) for source, _ in edges)
        assert all(target == 3 or any(source == target for source, _ in edges) for _, target in edges)


def test_a_representative_is_the_simplest_of_its_class() -> None:
    def simplicity(arch: Architecture) -> tuple[int, tuple[int, ...]]:
        return 6 - arch.genes.count(NONE), arch.genes

    simplest: dict[Architecture, Architecture] = {}
    for arch in SPACE.all_architectures():
        key = SPACE.canonical(arch)
        simplest[key] = min(arch, simplest.get(key, arch), key=simplicity)
    assert all(key == least for key, least in simplest.items())


@given(genes)
def test_parallel_nodes_may_swap(values: tuple[int, ...]) -> None:
    a, b, _, c, d, e = values
    assert SPACE.canonical(cell(a, b, 0, c, d, e)) == SPACE.canonical(cell(b, a, 0, c, e, d))


@given(genes, st.integers(0, 4))
def test_operations_without_effect_do_not_count(values: tuple[int, ...], other: int) -> None:
    a, b, c, d, e, f = values
    assert SPACE.canonical(cell(a, b, c, d, e, 0)) == SPACE.canonical(cell(a, other, c, d, e, 0))  # node 2 unused
    assert SPACE.canonical(cell(0, b, c, d, e, f)) == SPACE.canonical(cell(0, b, other, d, e, f))  # node 1 is zero


def test_connected_means_a_path_from_input_to_output() -> None:
    on = all_genes().T != NONE
    paths = on[3] | (on[0] & on[4]) | (on[1] & on[5]) | (on[0] & on[2] & on[5])
    connected = [SPACE.is_connected(arch) for arch in SPACE.all_architectures()]
    assert connected == paths.tolist()
    assert connected.count(False) == 341
    empty = {SPACE.canonical(arch) for arch in SPACE.all_architectures() if not SPACE.is_connected(arch)}
    assert empty == {cell(0, 0, 0, 0, 0, 0)}


# --- MACs and parameters ----------------------------------------------------------------------------------------------


def test_costs_of_a_known_cell() -> None:
    arch = SPACE.from_index(1)  # figures of the benchmark's own table
    assert arch.genes.count(3) == 3
    assert SPACE.macs_m(arch) == pytest.approx(113.95137, abs=1e-9)
    assert SPACE.params_m(arch) == pytest.approx(0.802426, abs=1e-12)


def test_macs_scale_with_pixels_and_not_with_the_classifier() -> None:
    arch = cell(3, 3, 3, 3, 3, 3)
    small, large = (SPACE.macs_m(arch, image_size=side) * 1e6 - 650 for side in (16, 32))
    assert large == pytest.approx(4 * small)


@pytest.mark.parametrize("size", [{"channels": 0}, {"cells": -1}, {"num_classes": 0}, {"image_size": 30}])
def test_impossible_sizes_are_refused(size: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="give"):
        SPACE.macs_m(cell(3, 3, 3, 3, 3, 3), **size)


@pytest.mark.real_data
def test_order_macs_and_params_are_the_benchmark_s() -> None:
    path = data_file("nb201_cifar10.csv.xz", "the NAS-Bench-201 table of accuracy, MACs and parameters")
    with lzma.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == SIZE
    for row, arch in zip(rows, SPACE.all_architectures(), strict=True):
        assert SPACE.index_of(SPACE.parse(row["arch_str"])) == int(row["arch_idx"])
        assert SPACE.describe(arch) == row["arch_str"]
        assert SPACE.macs_m(arch) == float(row["macs_M"])
        assert SPACE.params_m(arch) == float(row["params_M"])


@pytest.mark.real_data
def test_isomorphism_classes_lie_within_functional_ones_but_where_they_mix_networks() -> None:
    """The published classes are of equal strings, in which a value that is used twice is written twice: 644 of them
    hold cells that do not run the same operations, 430 cells of different MACs. What runs the same lies in one of
    ours."""
    path = data_file("rmi_nb201_cifar10_prototype.npz", "the prototype's table of RMI scores")
    with np.load(path, allow_pickle=False) as table:
        class_of = table["class_of"].tolist()
    ours: dict[int, set[Architecture]] = {}
    alike: dict[tuple[int, tuple[int, ...]], set[Architecture]] = {}
    for published, arch in zip(class_of, SPACE.all_architectures(), strict=True):
        run = tuple(sorted(gene for _, gene, _ in dataflow(arch.genes).operations))
        ours.setdefault(published, set()).add(SPACE.canonical(arch))
        alike.setdefault((published, run), set()).add(SPACE.canonical(arch))
    assert len(ours) == 6_466
    assert all(len(classes) == 1 for classes in alike.values())
    assert sum(len(classes) > 1 for classes in ours.values()) == 644
    assert sum(len({SPACE.macs_m(arch) for arch in classes}) > 1 for classes in ours.values()) == 430


# --- drawing ----------------------------------------------------------------------------------------------------------


def test_a_cell_is_drawn_node_by_node() -> None:
    assert SPACE.draw(cell(3, 2, 1, 4, 0, 3)) == (
        "node 1 = conv3x3(in)\nnode 2 = conv1x1(in) + skip(node 1)\nout    = avgpool3x3(in) + conv3x3(node 2)"
    )


def test_idle_nodes_are_marked() -> None:
    assert SPACE.draw(cell(0, 2, 3, 1, 3, 0)) == (
        "node 1 = 0   (no input reaches it)\n"
        "node 2 = conv1x1(in) + conv3x3(node 1)   (unused)\n"
        "out    = skip(in) + conv3x3(node 1)"
    )


def test_the_space_is_light() -> None:
    program = (
        "import sys; from edgenas.spaces.nasbench201 import NASBench201 as S; s = S(); s.canonical(s.from_index(7));"
        "print(sorted({'torch', 'numpy', 'sklearn', 'scipy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

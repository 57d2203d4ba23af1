"""What latencies of elastic MobileNets are predicted from, and the parts that are timed by themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgenas.architecture import Architecture
from edgenas.cost.predictor import genes_of
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W12
from edgenas.spaces.mobilenet.family import Config, ElasticMobileNet
from edgenas.spaces.mobilenet.features import MobileNetFeatures
from edgenas.spaces.mobilenet.table import half
from tests import ofa_latencies

SPACES: list[ElasticMobileNet] = [OFAMobileNetV3W12(), EfficientNetLite0()]
every_space = pytest.mark.parametrize("space", SPACES, ids=lambda each: each.name)


def archs_of(space: ElasticMobileNet, count: int) -> list[Architecture]:
    rows = np.random.default_rng(0).integers(0, space.choices, (count, len(space.choices))).tolist()
    return [space.smallest(), space.largest(), *(Architecture(space.name, tuple(row)) for row in rows)]


@every_space
def test_macs_by_operation_are_those_of_the_network(space: ElasticMobileNet) -> None:
    """But for the stem, squeezes and the head, which are of the image and of the stages."""
    archs = archs_of(space, 20)
    stages = len(space.table.stages)
    roles = space.features.dense(genes_of(archs))[:, : 10 * stages].reshape(len(archs), stages, 10)
    table = space.table
    for arch, row in zip(archs, roles, strict=True):
        blocks = [block for stage in space.blocks(arch) for block in stage]
        side = half(space.resolution(arch))
        others = 27 * table.stem_width * side**2 + sum(2 * each.middle * (each.squeeze or 0) for each in blocks)
        for block in blocks:
            side = half(side) if block.stride == 2 else side
        others += table.stages[-1].width * table.head_width * side**2 + table.head_width * (table.mix_width or 0)
        others += (table.mix_width or table.head_width) * 1000
        assert row[:, 1:6].sum() * 10 + others / 1e6 == pytest.approx(space.macs_m(arch), rel=1e-9)
        assert row[:, 0].sum() == len(blocks)


@every_space
def test_genes_of_missing_blocks_do_not_count(space: ElasticMobileNet) -> None:
    archs = archs_of(space, 30)
    canonical = [space.canonical(arch) for arch in archs]
    assert np.array_equal(space.features.dense(genes_of(archs)), space.features.dense(genes_of(canonical)))


@every_space
def test_the_parts_of_a_network_are_all_of_it(space: ElasticMobileNet) -> None:
    """At a resolution where parts are timed, their parameters sum to the network's; between two of these a block counts
    in shares that sum to one."""
    parts = space.features.parts(7)
    assert len({part.name for part in parts}) == len(parts)
    resolutions = sorted({int(part.name.rpartition(" ")[2]) for part in parts})
    params = np.array([sum(each.numel() for each in part.build().parameters()) for part in parts])
    for arch in archs_of(space, 5):
        blocks = len([block for stage in space.blocks(arch) for block in stage])
        there = space.architecture(Config(resolutions[1], space.config(arch).stages))
        for each in (arch, there):
            counts = space.features.dense(genes_of([each]))[0, -len(parts) :]
            assert counts.sum() == pytest.approx(blocks + 2)
            assert counts @ params / 1e6 == pytest.approx(space.params_m(each, num_classes=7), rel=1e-9)
        assert set(counts.tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}


@every_space
def test_each_part_runs_by_itself(space: ElasticMobileNet) -> None:
    parts = space.features.parts(7)
    for part in parts[:: len(parts) // 40]:
        with torch.no_grad():
            output = part.build().eval()(torch.zeros(2, *part.shape))
        assert output.ndim == 2
        assert len(output) == 2


@pytest.mark.real_data
def test_parts_of_the_note10s_table_sum_to_its_latencies() -> None:
    space = ofa_latencies.SPACE
    features = MobileNetFeatures(space.name, space.table, space.gene, (160, 192, 224))
    costs = np.array([ofa_latencies.note10_part_ms(part) for part in features.parts(1000)])
    archs = ofa_latencies.note10_archs(100, 3)
    summed = features.dense(genes_of(archs))[:, -len(costs) :] @ costs
    off = summed / np.array([ofa_latencies.note10_ms(arch) for arch in archs]) - 1
    measured = np.array([space.resolution(arch) in (160, 192, 224) for arch in archs])
    assert np.abs(off[measured]).max() < 1e-9
    assert 0 < np.abs(off[~measured]).max() < 0.01


@pytest.mark.real_data
def test_the_note10s_table_is_read_as_ofa_reads_it() -> None:
    golden = ofa_latencies.SPACE.from_choices(
        192,
        (2, 2, 3, 4, 3),
        (5, 3, 5, 3, 7, 7, 3, 5, 5, 7, 3, 3, 3, 5),
        (3, 3, 4, 4, 6, 3, 4, 4, 4, 4, 3, 6, 6, 6),
    )
    assert ofa_latencies.note10_ms(golden) == pytest.approx(24.730, abs=5e-4)

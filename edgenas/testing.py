"""Conformance checks for plug-ins: call them from your own tests; each raises AssertionError naming what is broken.

from edgenas.testing import check_space
def test_my_space(): check_space(MySpace())
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from edgenas.architecture import (
    Architecture,
    CostProvider,
    Countable,
    Drawable,
    Enumerable,
    Featured,
    Features,
    Fitness,
    NetworkSize,
    Parsable,
    SearchSpace,
    Stackable,
    Versioned,
    network_size,
)
from edgenas.architecture import random_architecture as random_architecture
from edgenas.board.conformance import check_session as check_session
from edgenas.board.conformance import check_transport as check_transport
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings, RefineSettings
from edgenas.train import TrainSettings
from edgenas.units import METRICS

if TYPE_CHECKING:
    from torch import Tensor

# A size stands beside these in files and fingerprints: settings, and what model.pt holds.
_SETTINGS = (FitnessSettings, RefineSettings, TrainSettings)
_RESERVED_SIZES = {each.name for settings in _SETTINGS for each in fields(settings)} | {
    *("version", "space", "genes", "arch_str", "dataset", "dataset_fingerprint", "teacher", "test_accuracy"),
    *("test_images", "network", "mean", "std", "class_names", "image_size"),
}


def check_space(
    space: SearchSpace, samples: int = 100, seed: int = 0, num_classes: int = 10, image_size: int = 32
) -> None:
    """The promises of SearchSpace that need no torch, on `samples` random architectures, and those of each optional
    ability of edgenas.architecture that the space has. What it counts is for images of `image_size` pixels a side."""
    rng = random.Random(seed)
    assert space.name, "a space needs a name"
    assert space.choices, "a space needs genes"
    assert min(space.choices) >= 1, "each gene needs an option"
    _check_sizes(space)
    archs = [random_architecture(space, rng) for _ in range(samples)]
    for arch in archs:
        canonical = space.canonical(arch)
        assert canonical.space == space.name, f"canonical({arch}) is of another space"
        assert len(canonical.genes) == len(space.choices), f"canonical({arch}) has another number of genes"
        assert all(0 <= gene < options for gene, options in zip(canonical.genes, space.choices, strict=True)), (
            f"canonical({arch}) = {canonical} has a gene out of range"
        )
        assert space.canonical(canonical) == canonical, f"canonical is not idempotent at {arch}"
        assert space.is_connected(arch) == space.is_connected(canonical), f"{arch} and its canonical form disagree"
        assert space.describe(arch), f"{arch} has no description"
        assert space.describe(arch).isprintable(), f"the description of {arch} is not one line of printable text"
        assert json.loads(json.dumps(arch.genes)) == list(arch.genes), f"{arch} does not survive JSON"
    for ability in (Enumerable, Countable, Parsable, Drawable, Stackable, Featured):
        members = [name for name in vars(ability) if not name.startswith("_")]
        lacking = [name for name in members if not hasattr(space, name)]
        assert lacking in ([], members), f"a space that is to be {ability.__name__} needs {' and '.join(lacking)} too"
    if isinstance(space, Versioned):
        assert type(space.classes_version) is int, f"classes_version is {space.classes_version!r}, not a whole number"
        assert space.classes_version >= 2, f"classes_version is {space.classes_version}; spaces without it have 1"
    if isinstance(space, Enumerable):
        _check_enumerable(space, [*archs, *map(space.canonical, archs)])
    if isinstance(space, Countable):
        _check_countable(space, archs, num_classes, image_size)
    if isinstance(space, Parsable):
        _check_parsable(space, {arch: space.describe(arch) for arch in archs})
    if isinstance(space, Drawable):
        for arch in archs:
            drawing = space.draw(arch)
            assert drawing.strip(), f"{arch} is drawn as nothing"
            assert all(line.isprintable() for line in drawing.split("\n")), f"{arch} is drawn by what cannot be printed"
    if isinstance(space, Featured):
        _check_features(space.features, archs, rng)


def _check_sizes(space: SearchSpace) -> None:
    for name, option in space.sizes.items():
        assert re.fullmatch("[a-z][a-z0-9_]*", name), f"size '{name}' is no keyword of `build` in small letters"
        assert name not in _RESERVED_SIZES, f"size '{name}' has a name that settings have already"
        bounds = (option.minimum, option.scored, option.deployed, option.maximum)
        assert all(type(value) is int for value in bounds), f"size '{name}' is no whole number"
        assert option.minimum <= option.maximum, f"size '{name}' has no value from {option.minimum} to {option.maximum}"
        for value in (option.scored, option.deployed):
            assert option.minimum <= value <= option.maximum, f"size '{name}' is {value}, which is out of its bounds"
        assert option.what, f"size '{name}' does not say what it is"


def _check_enumerable(space: Enumerable, archs: Sequence[Architecture]) -> None:
    listed = space.all_architectures()
    assert listed == space.all_architectures(), "all_architectures has another order when asked again"
    assert len(set(listed)) == len(listed), "all_architectures names one twice"
    for index, arch in enumerate(listed):
        assert space.index_of(arch) == index, f"index_of({arch}) is not its place, {index}"
    for arch in set(archs) - set(listed):
        raise AssertionError(f"all_architectures lacks {arch}")


def _check_countable(space: Countable, archs: Sequence[Architecture], num_classes: int, image_size: int) -> None:
    for arch in archs:
        macs_m = space.macs_m(arch, num_classes=num_classes, image_size=image_size)
        for what, count in (("MACs", macs_m), ("parameters", space.params_m(arch, num_classes=num_classes))):
            assert math.isfinite(count), f"{arch} has {count} M {what}"
            assert count >= 0, f"{arch} has {count} M {what}"


def _check_parsable(space: Any, described: Mapping[Architecture, str]) -> None:
    for arch, written in described.items():
        read = space.parse(written)
        assert space.canonical(read) == space.canonical(arch), f"'{written}' is read as {read}, not {arch}"
    for nonsense in ("", " ", "?", f"{written}?", written[:-1], written * 2, "\0"):
        try:
            found: object = space.parse(nonsense)
        except UsageError:
            continue
        except Exception as error:
            found = f"raising {error!r}"
        raise AssertionError(f"parse answers {nonsense!r} by {found}, not by a UsageError")


@dataclass(frozen=True)
class _Model:
    features: str
    intercept: float
    coefficients: tuple[float, ...]


def _check_features(features: Features, archs: Sequence[Architecture], rng: random.Random) -> None:
    import numpy as np

    genes = np.array([arch.genes for arch in archs], dtype=np.int64)
    n = len(genes)
    assert features.counts, "features need a set with a name"
    assert features.image_size >= 1, f"features are of images of {features.image_size} pixels a side"
    dense = features.dense(genes)
    last, width = list(features.counts.items())[-1]
    assert dense.shape == (n, width), f"dense gives {dense.shape}, not {(n, width)} as {last}, the last of counts, says"
    assert np.isfinite(dense).all(), "some features are not finite"
    models = [
        _Model(name, rng.gauss(0, 1), tuple(rng.gauss(0, 1) for _ in range(count)))
        for name, count in features.counts.items()
    ]
    predicted = features.linear(models, genes)
    assert [each.shape for each in predicted] == [(n,)] * len(models), "linear needs a number of each model for each"
    exact = models[-1].intercept + dense @ np.array(models[-1].coefficients)
    assert np.allclose(predicted[-1], exact), f"a linear model of {last} says something else than its features do"
    used = features.all_used(genes)
    assert used.shape == (n,), f"all_used gives {used.shape}, not {(n,)}"
    assert used.dtype == bool, "all_used is yes or no"
    for row in range(n):
        one = genes[row : row + 1]
        alone = [features.dense(one)[0], features.all_used(one)[0], *(each[0] for each in features.linear(models, one))]
        among = [dense[row], used[row], *(each[row] for each in predicted)]
        same = all(np.array_equal(ours, theirs) for ours, theirs in zip(alone, among, strict=True))
        assert same, f"{archs[row]} alone has other features than among others"
    blocks = features.blocks(dense)
    assert blocks, "features need a block"
    for block in blocks:
        assert block.ndim == 2, f"a block is {block.shape}, not (d, k)"
        assert len(block) == width, f"a block is of {len(block)} features, not {width}"
        assert np.isfinite(block).all(), "a block is not finite"
    some = genes[: -(-n // 2)]
    for alike in features.likeness(genes, some):
        assert alike.shape == (n, len(some)), f"likeness gives {alike.shape}, not {(n, len(some))}"
        assert np.isfinite(alike).all(), "a likeness is not finite"


def check_networks(
    space: SearchSpace, samples: int = 6, seed: int = 0, num_classes: int = 10, image_size: int = 32
) -> None:
    """What `build` and `stack` promise, on `samples` random architectures and random images of `image_size` pixels a
    side; needs torch. That an architecture computes what its canonical form does is not checked: their weights
    differ."""
    import torch

    rng = random.Random(seed)
    archs = [random_architecture(space, rng) for _ in range(samples)]
    scored, deployed = (network_size(space, {}, deployed=each) for each in (False, True))
    images = torch.randn(3, 3, image_size, image_size, generator=torch.Generator().manual_seed(seed))

    def built(arch: Architecture, size: NetworkSize) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return space.build(arch, num_classes, **size)

    def shapes(arch: Architecture, size: NetworkSize) -> dict[str, tuple[int, ...]]:
        """Of the weights; a network of any size takes no memory so."""
        with torch.device("meta"):
            network = built(arch, size)
        return {name: tuple(each.shape) for name, each in network.state_dict().items()}

    maps_of: set[int] = set()
    for arch in archs:
        network, again = built(arch, scored), built(arch, scored)
        is_module = isinstance(network, torch.nn.Module)  # apart, for the checker of types makes a Tensor of `features`
        assert is_module, f"the network of {arch} is no torch module"
        state, other = network.state_dict(), again.state_dict()
        assert shapes(arch, scored) == {name: tuple(each.shape) for name, each in state.items()}, (
            f"the network of {arch} has other weights on torch's meta device, on which files are checked"
        )
        assert all(torch.equal(state[name], other[name]) for name in state), (
            f"the first weights of {arch} do not follow from torch's generator"
        )
        with torch.no_grad():
            logits, found = network.eval()(images), network.features(images)
        assert isinstance(logits, torch.Tensor), f"the network of {arch} gives no tensor"
        wanted = (len(images), num_classes)
        assert tuple(logits.shape) == wanted, f"the logits of {arch} are {list(logits.shape)}, not {list(wanted)}"
        assert torch.isfinite(logits).all(), f"the logits of {arch} are not finite"
        assert isinstance(found, tuple) and len(found) == 2, f"features of {arch} gives no maps and logits"  # noqa: PT018
        maps, tapped = found
        assert isinstance(maps, list) and maps, f"features of {arch} gives no list of maps"  # noqa: PT018
        for each in maps:
            assert each.dim() == 4, f"a feature map of {arch} is {list(each.shape)}, not [b, c, h, w]"
            assert len(each) == len(images), f"a feature map of {arch} is of {len(each)} images, not {len(images)}"
        assert isinstance(tapped, torch.Tensor), f"features of {arch} gives no tensor of logits"
        assert torch.equal(tapped, logits), f"the logits of {arch} in features are not those of the module"
        maps_of.add(len(maps))
        assert shapes(arch, {}) == shapes(arch, deployed), f"{arch} is not built as deployed where no size is given"
        if isinstance(space, Countable):
            with torch.device("meta"):
                count = sum(each.numel() for each in built(arch, deployed).parameters())
            params_m = space.params_m(arch, num_classes=num_classes)
            assert math.isclose(params_m, count / 1e6, rel_tol=1e-9), f"{arch} has {count / 1e6} M parameters"
    assert len(maps_of) == 1, f"networks have different numbers of feature maps: {sorted(maps_of)}"
    for name, option in space.sizes.items():
        ends = [shapes(archs[0], {**scored, name: value}) for value in (option.minimum, option.maximum)]
        assert option.minimum == option.maximum or ends[0] != ends[1], f"size '{name}' changes nothing"
    try:
        built(archs[0], {"no_such_size": 1})
    except (UsageError, TypeError):
        pass
    else:
        raise AssertionError("build takes a size that the space does not have")
    if isinstance(space, Stackable):
        for some in (archs, archs[:1]):
            _check_stack(space, [built(arch, scored).double().train() for arch in some], images.double())


def _check_stack(space: Stackable, networks: Sequence[Any], images: Tensor) -> None:
    """In float64. The order of a map's features is the stack's own, so maps are compared by their Gram matrices."""
    import torch

    with torch.no_grad():
        maps, logits = space.stack(networks).features(images)
        found = [network.features(images) for network in networks]
    alone = torch.stack([each for _, each in found])
    assert logits.shape == alone.shape, f"stacked logits are {list(logits.shape)}, not {list(alone.shape)}"
    assert torch.allclose(logits, alone, rtol=1e-9, atol=1e-9), "stacked networks have other logits than one by one"
    assert len(maps) == len(found[0][0]), "stacked networks have another number of feature maps than one by one"
    for together, single in zip(maps, zip(*(each for each, _ in found), strict=True), strict=True):
        flat = torch.stack([each.flatten(1) for each in single])
        assert together.shape == flat.shape, f"stacked maps are {list(together.shape)}, not {list(flat.shape)}"
        ours, theirs = together @ together.mT, flat @ flat.mT
        close = torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()) + 1e-12)
        assert close, "stacked networks have other feature maps than one by one"


def check_cost(provider: CostProvider, space: SearchSpace, samples: int = 100, seed: int = 0) -> None:
    """The promises of CostProvider on `samples` random architectures: a cost for each metric, or an error."""
    rng = random.Random(seed)
    archs = [random_architecture(space, rng) for _ in range(samples)]
    costs = provider(archs)
    assert provider.kind, "a provider needs a kind"
    assert provider.fingerprint, "a provider needs a fingerprint"
    assert provider.metrics <= frozenset(METRICS), f"{set(provider.metrics)} are not all known metrics"
    assert len(costs) == len(archs), "as many costs as architectures, in order"
    assert provider(archs[::-1]) == costs[::-1], "a cost must not depend on the neighbours or their order"
    assert provider([]) == [], "no architectures, no costs"
    for arch, cost in zip(archs, costs, strict=True):
        if cost.error is not None:
            continue
        assert set(cost.values) == provider.metrics, f"{arch} has costs in {set(cost.values)}"
        for metric, value in cost.values.items():
            assert math.isfinite(value), f"{arch} costs {value} in {metric}"
            assert value >= 0, f"{arch} costs {value} in {metric}"
            assert cost.sources.get(metric), f"{metric} of {arch} has no source"


def check_fitness(fitness: Fitness, space: SearchSpace, samples: int = 20, seed: int = 0) -> None:
    """The promises of Fitness on `samples` random architectures: one score each, the same in any company."""
    rng = random.Random(seed)
    archs = [random_architecture(space, rng) for _ in range(samples)]
    scores = list(fitness(archs))
    assert fitness.source, "a fitness needs a source"
    assert fitness.fingerprint, "a fitness needs a fingerprint"
    assert len(scores) == len(archs), "as many scores as architectures, in order"
    assert list(fitness(archs[::-1])) == scores[::-1], "a score must not depend on the neighbours or their order"
    for arch, score in zip(archs, scores, strict=True):
        assert (score.value is None) == (score.error is not None), f"{arch} needs a score or a reason, not both"
        assert score.value is None or math.isfinite(score.value), f"{arch} scores {score.value}"

"""The conformance suites pass on the built-ins and catch a liar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgenas import cost
from edgenas import device as devices
from edgenas.architecture import Architecture, Cost, LinearCoefficients, SearchSpace, SizeOption
from edgenas.fitness import FitnessSettings, table
from edgenas.spaces.nasbench201 import NASBench201
from edgenas.spaces.nasbench201.features import CellFeatures
from edgenas.testing import check_cost, check_fitness, check_networks, check_space
from tests.search.worlds import Digits, Sum, Weighted
from tests.toy_space import ToySpace

SPACE = NASBench201()


@pytest.mark.parametrize("space", [SPACE, ToySpace(), Digits()], ids=lambda space: space.name)
def test_spaces(space: SearchSpace) -> None:
    check_space(space)


@pytest.mark.parametrize("space", [SPACE, ToySpace()], ids=lambda space: space.name)
def test_networks(space: SearchSpace) -> None:
    check_networks(space)


@pytest.mark.parametrize("device", devices.names())
def test_costs_of_every_device(device: str) -> None:
    check_cost(cost.create("auto", SPACE, "cifar10", devices.load(device)), SPACE)


def test_fitness_by_table() -> None:
    check_fitness(table.create(SPACE, "cifar10", FitnessSettings()), SPACE)


def test_a_made_up_cost_is_caught() -> None:
    class Liar(Weighted):
        def __call__(self, archs: Sequence[Architecture]) -> list[Cost]:
            return [Cost({"latency": -1.0}, {"latency": "guess"}) for _ in archs]

    check_cost(Weighted(), Digits())
    with pytest.raises(AssertionError, match=r"costs -1\.0 in latency"):
        check_cost(Liar(), Digits())


def test_a_canonical_form_that_wanders_is_caught() -> None:
    class Wandering(Digits):
        def canonical(self, arch: Architecture) -> Architecture:
            return Architecture(self.name, arch.genes[1:] + arch.genes[:1])

    with pytest.raises(AssertionError, match="not idempotent"):
        check_space(Wandering())


def test_a_forgetful_fitness_is_caught() -> None:
    class Forgetful(Sum):
        def __call__(self, archs: Sequence[Architecture]):  # type: ignore[no-untyped-def]
            return list(super().__call__(archs))[1:]

    check_fitness(Sum(), Digits())
    with pytest.raises(AssertionError, match="as many scores"):
        check_fitness(Forgetful(), Digits())


def lying(of: type[Any], **lies: Any) -> Any:
    """One of `of` with other members, each given the original object first."""

    def lie(change: Any) -> Any:
        return (lambda self, *given, **named: change(of(), *given, **named)) if callable(change) else change

    return type(f"Lying{of.__name__}", (of,), {name: lie(change) for name, change in lies.items()})()


WIDTH = ToySpace.sizes["width"]


@pytest.mark.parametrize(
    ("lies", "problem"),
    [
        ({"sizes": {"width": SizeOption(16, 8, 10, 256, "channels")}}, "size 'width' is 8, which is out of its bounds"),
        ({"sizes": {"width": SizeOption(16, 300, 1, 256, "channels")}}, "size 'width' is 300, which is out of its"),
        ({"sizes": {"width": SizeOption(16, 8, 256, 1, "channels")}}, "size 'width' has no value from 256 to 1"),
        ({"sizes": {"width": SizeOption(16, 8, 1, 256, "")}}, "size 'width' does not say what it is"),
        ({"sizes": {"Wide net": WIDTH}}, "size 'Wide net' is no keyword"),
        ({"sizes": {"epochs": WIDTH}}, "size 'epochs' has a name that settings have"),
        ({"sizes": {"network": WIDTH}}, "size 'network' has a name that settings have"),
        ({"describe": lambda toy, arch: f"{toy.describe(arch)}\n"}, "is not one line of printable text"),
        ({"all_architectures": lambda toy: toy.all_architectures() * 2}, "names one twice"),
        ({"all_architectures": lambda toy: toy.all_architectures()[:40]}, "all_architectures lacks"),
        ({"index_of": lambda toy, arch: toy.index_of(arch) // 2}, r"index_of\(.*\) is not its place, 1"),
        ({"classes_version": "2"}, "classes_version is '2', not a whole number"),
        ({"classes_version": 1}, "classes_version is 1; spaces without it have 1"),
        ({"macs_m": lambda toy, arch, **how: float("nan")}, "has nan M MACs"),
        ({"params_m": lambda toy, arch, **how: -1.0}, r"has -1\.0 M parameters"),
        ({"parse": lambda toy, text: toy.all_architectures()[toy.index_of(toy.parse(text)) // 2]}, "is read as"),
        ({"parse": lambda toy, text: toy.parse(text[:26].strip("?"))}, r"parse answers '.*\?' by Architecture"),
        ({"parse": lambda toy, text: {toy.describe(a): a for a in toy.all_architectures()}[text]}, "raising KeyError"),
        ({"draw": lambda toy, arch: "\n"}, "is drawn as nothing"),
        ({"draw": lambda toy, arch: "\x1b[1m"}, "is drawn by what cannot be printed"),
    ],
)
def test_a_space_that_lies_is_caught(lies: dict[str, Any], problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        check_space(lying(ToySpace, **lies))


def test_a_list_in_another_order_is_caught() -> None:
    class Shuffled(ToySpace):
        def all_architectures(self) -> list[Architecture]:
            self.turn = getattr(self, "turn", 0) + 1
            return super().all_architectures()[:: 1 if self.turn % 2 else -1]

    with pytest.raises(AssertionError, match="another order"):
        check_space(Shuffled())


def test_half_an_ability_is_caught() -> None:
    class Half(Digits):
        def all_architectures(self) -> list[Architecture]:
            return []

    with pytest.raises(AssertionError, match="Enumerable needs index_of too"):
        check_space(Half())


def summed_at_once(true: CellFeatures, models: Sequence[LinearCoefficients], genes: NDArray[np.int64]) -> list[Any]:
    """numpy adds up a row in another order where it is alone."""
    dense = np.asfortranarray(true.dense(genes))
    return [
        model.intercept + (dense[:, : len(model.coefficients)] * np.array(model.coefficients)).sum(axis=1)
        for model in models
    ]


@pytest.mark.parametrize(
    ("lies", "problem"),
    [
        ({"counts": {}}, "features need a set"),
        ({"image_size": 0}, "features are of images of 0 pixels"),
        ({"dense": lambda true, genes: true.dense(genes)[:, 1:]}, r"dense gives \(100, 757\), not \(100, 758\)"),
        ({"dense": lambda true, genes: true.dense(genes) * np.inf}, "not finite"),
        ({"linear": lambda true, models, genes: true.linear(models[1:], genes)}, "a number of each model"),
        ({"linear": lambda true, models, genes: [each + 1 for each in true.linear(models, genes)]}, "something else"),
        ({"linear": summed_at_once}, "alone has other features than among others"),
        ({"all_used": lambda true, genes: true.all_used(genes)[:1]}, r"all_used gives \(1,\), not \(100,\)"),
        ({"all_used": lambda true, genes: true.all_used(genes) * 1.0}, "yes or no"),
        ({"all_used": lambda true, genes: true.all_used(genes) & (len(genes) > 1)}, "alone has other features"),
        ({"blocks": lambda true, dense: []}, "features need a block"),
        ({"blocks": lambda true, dense: [each.T for each in true.blocks(dense)]}, "a block is of 4 features"),
        ({"likeness": lambda true, genes, others: true.likeness(others, genes)}, r"gives \(50, 100\), not \(100, 50\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_features_that_lie_are_caught(lies: dict[str, Any], problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        check_space(lying(NASBench201, features=property(lambda space: lying(CellFeatures, **lies))))


def with_features(change: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A `build` whose networks' features go through `change`: of maps and logits."""

    def build(toy: ToySpace, arch: Architecture, num_classes: int, **size: int) -> Any:
        class Changed(type(toy.build(arch, num_classes, **size))):  # type: ignore[misc]
            def features(self, images: Any) -> Any:
                return change(*super().features(images))

            def forward(self, images: Any) -> Any:
                return super().features(images)[1]

        return Changed()

    return build


@pytest.mark.parametrize(
    ("lies", "problem"),
    [
        (
            {"build": lambda toy, arch, classes, **size: toy.build(arch, classes + 1, **size)},
            r"\[3, 11\], not \[3, 10\]",
        ),
        ({"build": lambda toy, arch, classes, **size: "a network"}, "is no torch module"),
        ({"build": with_features(lambda maps, logits: logits)}, "gives no maps and logits"),
        ({"build": with_features(lambda maps, logits: (tuple(maps), logits))}, "gives no list of maps"),
        ({"build": with_features(lambda maps, logits: ([], logits))}, "gives no list of maps"),
        (
            {"build": with_features(lambda maps, logits: ([each.flatten(1) for each in maps], logits))},
            "not .b, c, h, w",
        ),
        ({"build": with_features(lambda maps, logits: ([each[:1] for each in maps], logits))}, "is of 1 images, not 3"),
        ({"build": with_features(lambda maps, logits: (maps, logits + 1))}, "are not those of the module"),
        ({"build": with_features(lambda maps, logits: (maps, None))}, "gives no tensor of logits"),
        ({"build": lambda toy, arch, classes, width=8: toy.build(arch, classes, width=width)}, "not built as deployed"),
        (
            {"build": lambda toy, arch, classes, width=16, **more: toy.build(arch, classes, width=width)},
            "build takes a size that the space does not have",
        ),
        ({"params_m": lambda toy, arch, **how: 0.001}, "M parameters"),
    ],
)
def test_networks_that_lie_are_caught(lies: dict[str, Any], problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        check_networks(lying(ToySpace, **lies))


def test_a_size_that_changes_nothing_is_caught() -> None:
    with pytest.raises(AssertionError, match="size 'width' changes nothing"):
        check_networks(
            lying(ToySpace, build=lambda toy, arch, classes, width=16: toy.build(arch, classes), params_m=None)
        )


def test_weights_that_do_not_follow_from_the_seed_are_caught() -> None:
    import torch

    def build(toy: ToySpace, arch: Architecture, num_classes: int, **size: int) -> Any:
        network = toy.build(arch, num_classes, **size)
        bias = network.get_parameter("classifier.bias")
        torch.nn.init.uniform_(bias, generator=generator if bias.device.type == "cpu" else None)
        return network

    generator = torch.Generator().manual_seed(0)
    with pytest.raises(AssertionError, match="do not follow from torch's generator"):
        check_networks(lying(ToySpace, build=build))


def test_different_numbers_of_maps_are_caught() -> None:
    def fewer(toy: ToySpace, arch: Architecture, num_classes: int, **size: int) -> Any:
        keep = arch.genes[3] + 1
        return with_features(lambda maps, logits: (maps[:keep], logits))(toy, arch, num_classes, **size)

    with pytest.raises(AssertionError, match=r"different numbers of feature maps: \[1, 2\]"):
        check_networks(lying(ToySpace, build=fewer))


class Upside:
    """A stack that gives its networks in another order."""

    def __init__(self, stack: Any, logits_too: bool) -> None:
        self._stack, self._logits_too = stack, logits_too

    def features(self, images: Any) -> Any:
        maps, logits = self._stack.features(images)
        return [each.flip(0) for each in maps], logits.flip(0) if self._logits_too else logits


@pytest.mark.parametrize(("logits_too", "problem"), [(True, "other logits"), (False, "other feature maps")])
def test_a_stack_that_mixes_networks_up_is_caught(logits_too: bool, problem: str) -> None:
    with pytest.raises(AssertionError, match=f"stacked networks have {problem} than one by one"):
        check_networks(lying(NASBench201, stack=lambda true, networks: Upside(true.stack(networks), logits_too)))

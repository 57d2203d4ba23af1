"""Training that knows of int8: it mends what rounding broke, and leaves the float network alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgenas.data.images import held_out, load_images
from edgenas.lower.graph import Conv, Graph, Linear
from edgenas.lower.quantize import Prepared, as_int8, prepared
from edgenas.lower.verify import run_model
from edgenas.package.golden import normalised
from edgenas.train.files import Trained
from edgenas.train.quantised import QuantisedSettings, QuantisedTraining
from tests.package.hard import graph_of, held_back, learnt, with_uneven_channels

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = QuantisedSettings(steps=60, learning_rate=3e-4)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return learnt()


def weights(graph: Graph) -> list[Any]:
    return [part.copy() for op in graph.ops if isinstance(op, Conv | Linear) for part in (op.weight, op.bias)]


def begun(trained: Trained, graph: Graph, settings: QuantisedSettings = SETTINGS) -> tuple[Prepared, QuantisedTraining]:
    images, given = load_images("digits"), trained.given
    free = np.flatnonzero(~held_out(images.labels))
    ready = prepared(graph, {}, normalised(images.images[free[:128]], given))
    return ready, QuantisedTraining(ready, graph, images, free, given.mean, given.std, settings)


def accuracy(trained: Trained, ready: Prepared) -> float:
    test = held_back()
    logits = run_model(as_int8(ready, {}), normalised(test.images, trained.given))
    return float((logits.argmax(1) == test.labels).mean())


def test_it_mends_what_rounding_broke(trained: Trained) -> None:
    graph = with_uneven_channels(graph_of(trained), most=9)
    before = weights(graph)
    ready, training = begun(trained, graph)
    as_it_began = weights(ready.graph)
    assert list(training) == list(range(1, SETTINGS.steps + 1))
    assert accuracy(trained, training.trained) > accuracy(trained, ready) + 0.03
    for graph_then, graph_now in ((before, graph), (as_it_began, ready.graph)):
        assert all((one == other).all() for one, other in zip(graph_then, weights(graph_now), strict=True))


def test_it_is_the_same_each_time_and_another_by_another_seed(trained: Trained) -> None:
    def came_to(settings: QuantisedSettings) -> bytes:
        training = begun(trained, graph_of(trained), settings)[1]
        for _ in training:
            pass
        return as_int8(training.trained, {})

    few = replace(SETTINGS, steps=3)
    assert came_to(few) == came_to(few)
    assert came_to(few) != came_to(replace(few, seed=1))


def test_before_the_first_step_it_is_what_it_began_with(trained: Trained) -> None:
    ready, training = begun(trained, graph_of(trained))
    pairs = zip(weights(training.trained.graph), weights(ready.graph), strict=True)
    assert all(np.allclose(one, other, rtol=1e-5, atol=1e-7) for one, other in pairs)
    assert training.trained.ranges == ready.ranges

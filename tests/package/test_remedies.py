"""What is tried where int8 is less accurate than float: in order, measured, no more than it takes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from edgenas.data.images import ImageSet, load_images
from edgenas.errors import DataError, ExportError, UnknownNameError
from edgenas.lower.quantize import as_int8, full_int8, prepared
from edgenas.lower.verify import INT8, Parity, require, run_model
from edgenas.package import remedies as module
from edgenas.package.golden import normalised
from edgenas.package.remedies import MAX_DROP, Quantised, check_remedies, quantise
from edgenas.report.package import int8_lines
from edgenas.schema import checked
from edgenas.schema.types import _Int8
from edgenas.train.files import Trained
from edgenas.train.quantised import QuantisedSettings
from tests.package.hard import (
    graph_of,
    held_back,
    learnt,
    with_outlying_weight,
    with_uneven_channels,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = QuantisedSettings(steps=60, learning_rate=3e-4)
ORDER = ["none", "calibration", "calibration", "calibration", "clipping", "biases", "training"]


@pytest.fixture(scope="module")
def trained() -> Trained:
    return learnt()


def found(
    trained: Trained, graph: Any, count: int = 128, asked: str = "training", max_drop: float = MAX_DROP
) -> Quantised:
    made = quantise(trained, graph, {}, count, asked, SETTINGS, max_drop)
    assert checked(_Int8, made.record) == made.record
    return made


def accuracy(trained: Trained, model: bytes) -> float:
    test = held_back()
    return float((run_model(model, normalised(test.images, trained.given)).argmax(1) == test.labels).mean())


def test_where_int8_loses_nothing_it_is_the_file_as_ever(trained: Trained) -> None:
    made, plain = found(trained, graph_of(trained), max_drop=0.05), found(trained, graph_of(trained), asked="none")
    assert made.model == plain.model
    (only,) = made.record["tries"]
    assert only["remedy"] == "none"
    assert made.record["held_out_images"] == 287
    assert made.record["weights"] == "the trained network's"
    assert plain.record["tries"] == []
    assert "as was asked" in plain.record["note"]


def test_they_are_tried_in_order_up_to_what_is_asked_and_the_best_is_kept(trained: Trained) -> None:
    graph = with_uneven_channels(graph_of(trained), most=10)
    made = found(trained, graph)
    tries = made.record["tries"]
    assert [each["remedy"] for each in tries] == ORDER
    best = max(each["accuracy"] for each in tries)
    assert tries[made.record["chosen"]]["accuracy"] == best
    learnt_on = tries[made.record["chosen"]]["remedy"] == "training"
    assert learnt_on == ("fine-tuned for int8" in made.record["weights"])
    assert best > tries[0]["accuracy"]
    assert "stays" in made.record["note"]
    assert all(each["accuracy_drop"] > MAX_DROP for each in tries)
    plain = found(trained, graph, asked="none")
    assert accuracy(trained, made.model) > accuracy(trained, plain.model)
    without = found(trained, graph, asked="calibration")
    assert [each["remedy"] for each in without.record["tries"]] == ORDER[:-1]
    assert without.record["weights"] == "the trained network's"
    text = "\n".join(int8_lines(made.record))
    assert text.count("(kept)") == 1
    assert "287 training images held out" in text


def test_more_images_are_the_first_remedy_and_nothing_more_is_tried_than_it_takes(trained: Trained) -> None:
    """One image that is next to black sets ranges that cut off what all others give."""
    real = module._Tried._calibration

    def dark(self: Any, count: int) -> Any:
        return real(self, count) * np.float32(0.1 if count == 1 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Tried, "_calibration", dark)
        made = found(trained, graph_of(trained), count=1, max_drop=0.02)
    tries = made.record["tries"]
    assert tries[0]["accuracy_drop"] > 0.02
    assert [each["remedy"] for each in tries] == ["none", "calibration"]
    assert made.record["chosen"] == 1
    assert made.record["note"] is None


def test_a_weight_far_out_is_cut_off(trained: Trained) -> None:
    """One scale for all weights of the last layer: one of them, which does nothing, leaves no steps to the others."""
    graph = with_outlying_weight(graph_of(trained), 60.0)
    images = normalised(load_images("digits").images[:64], trained.given)
    plain, cut = (as_int8(prepared(graph, {}, images, clips=clips), {}) for clips in (False, True))
    assert accuracy(trained, cut) >= accuracy(trained, plain)
    float_logits = run_model(full_int8(graph_of(trained), {}, images), images)
    errors = [np.abs(run_model(each, images) - float_logits).mean() for each in (plain, cut)]
    assert errors[1] < 0.7 * errors[0]


def test_the_test_part_chooses_nothing(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(dataset: str, split: str = "train", **how: Any) -> ImageSet:
        asked.append(split)
        return load_images(dataset, split, **how)

    monkeypatch.setattr(module, "load_images", load)
    found(trained, with_uneven_channels(graph_of(trained), most=9), asked="calibration")
    assert asked == ["train"]


def test_too_few_images_to_tell_a_point_are_said(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_images("digits")
    few = dataclasses.replace(whole, images=whole.images[:200], labels=whole.labels[:200])
    monkeypatch.setattr(module, "load_images", lambda *_, **__: few)
    made = found(trained, with_uneven_channels(graph_of(trained), most=9))
    assert made.record["tries"] == []
    assert made.record["note"].startswith("only 40 training images can be held out")
    assert "\n".join(int8_lines(made.record)).startswith("int8: only 40")


def test_images_that_are_gone_are_said_with_what_can_be_done(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> ImageSet:
        raise DataError("there is no folder photos")

    monkeypatch.setattr(module, "load_images", gone)
    with pytest.raises(DataError, match="no folder photos; bring those images back, or leave tflite-int8"):
        found(trained, graph_of(trained))


def test_other_remedies_are_unknown() -> None:
    with pytest.raises(UnknownNameError, match="did you mean training"):
        check_remedies("train")


@pytest.mark.parametrize(
    ("images", "agreement", "accuracy", "fits"),
    [
        (1000, 0.98, 0.5, True),  # classes alone
        (1000, 0.95, 0.80, True),
        (1000, 0.95, 0.79, True),  # a point
        (1000, 0.95, 0.789, False),  # more
        (1000, 0.89, 0.90, False),  # too far from the network to be it
        (40, 0.95, 0.775, True),  # one image
        (40, 0.925, 0.75, False),  # two
    ],
)
def test_int8_is_kept_by_classes_or_by_labels(images: int, agreement: float, accuracy: float, fits: bool) -> None:
    parity = Parity(images, 0.5, agreement, accuracy, 0.8)
    if fits:
        require(parity, INT8, "model_int8.tflite")
    else:
        with pytest.raises(ExportError, match=r"agrees on .* of .* images, not 98%.*accurate"):
            require(parity, INT8, "model_int8.tflite")
    with pytest.raises(ExportError):
        require(Parity(images, 0.5, 0.95), INT8, "without labels")

"""How well each class of a test split is recognised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_WEAKEST = 3


@dataclass(frozen=True)
class ClassAccuracy:
    """How many of the test images of a class are right, in %, None without any; `mistaken`: for which class most of the
    others were taken, in words."""

    name: str
    images: int
    percent: float | None
    mistaken: str = ""


def class_accuracies(result: Mapping[str, Any]) -> list[ClassAccuracy]:
    """Of a training's result.json; none where it was made before these were counted."""
    classes, confusion = result.get("classes", []), result.get("confusion") or []
    if any(len(row) != len(classes) for row in confusion) or len(confusion) not in (0, len(classes)):
        confusion = []
    found = []
    for label, each in enumerate(classes):
        row = [0 if other == label else count for other, count in enumerate(confusion[label])] if confusion else []
        most = max(row, default=0)
        mistaken = f"{most} taken for {classes[row.index(most)]['class']}" if most else ""
        percent = 100 * each["right"] / each["images"] if each["images"] else None
        found.append(ClassAccuracy(each["class"], each["images"], percent, mistaken))
    return found


def weakest_text(result: Mapping[str, Any]) -> str:
    """The classes that are recognised worst, in a line; "" where there is nothing to say."""
    found = [(each.percent, each) for each in class_accuracies(result) if each.percent is not None]
    weakest = sorted((pair for pair in found if pair[0] < 100), key=lambda pair: pair[0])[:_WEAKEST]
    texts = [
        f"{each.name} {percent:.1f} % of {each.images}" + (f" ({each.mistaken})" if each.mistaken else "")
        for percent, each in weakest
    ]
    return f"weakest classes: {', '.join(texts)}" if texts else ""

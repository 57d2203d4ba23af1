"""How a network was trained, and what it gets right, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgenas.report.fields import at, count, items, number, words
from edgenas.report.page.charts import Drawings, axis, series
from edgenas.report.page.markup import Markup, element, joined, section, table
from edgenas.report.subjects import Subject

MAX_MATRIX = 60  # classes of a confusion matrix that is shown whole


def sections(subject: Subject, drawings: Drawings) -> list[Markup]:
    found = [_curves(subject, drawings), _files(subject), _classes(subject), _confusion(subject)]
    return [each for each in found if each is not None]


def _curves(subject: Subject, drawings: Drawings) -> Markup | None:
    epochs = [each for each in subject.epochs if count(each, "epoch") is not None]
    if not epochs:
        return None
    xs = [number(each, "epoch") for each in epochs]
    header = ["epoch", "training loss", "validation accuracy (%)", "learning rate", "seconds"]
    keys = ("train_loss", "val_accuracy", "learning_rate", "seconds")
    rows = [[count(each, "epoch"), *(number(each, key) for key in keys)] for each in epochs]
    figures = []
    for key, label, role in (
        ("train_loss", "training loss", "first"),
        ("val_accuracy", "validation accuracy (%)", "second"),
    ):
        known = [(x, y) for x, each in zip(xs, epochs, strict=True) if (y := number(each, key)) is not None]
        if not known:
            continue
        points = [x for x, _ in known], [y for _, y in known]
        (first, began), (last, ended) = known[0], known[-1]
        sentence = f"From {began:.4g} after epoch {first:.0f} to {ended:.4g} after epoch {last:.0f}."
        chart = {
            "xs": [axis("epoch", whole=True)],
            "y": axis(label, zero=key == "train_loss"),
            "series": [{**series(label, role, *points, "line"), "signs": len(known) <= 60}],
        }
        figures.append(drawings.figure(f"Training: {label}", sentence, chart, table(header, rows, "Epochs")))
    return section("Learning curves", element("div", *figures, class_="pair")) if figures else None


def _files(subject: Subject) -> Markup | None:
    """The model files, each as it compares with torch."""
    rows = []
    for model in items(subject.export, "models"):
        accuracy, full = number(model, "checked", "accuracy"), number(model, "checked", "torch_accuracy")
        agrees = number(model, "checked", "top1_agreement")
        size = number(model, "bytes")
        rows.append(
            [
                words(model, "file"),
                words(model, "format"),
                None if size is None else size / 1024,
                None if accuracy is None else 100 * accuracy,
                None if full is None else 100 * full,
                None if agrees is None else 100 * agrees,
                number(model, "checked", "relative_error"),
                (words(model, "sha256") or "-")[:12],
            ]
        )
    if not rows:
        return None
    header = [
        "file",
        "format",
        "KiB",
        "accuracy (%)",
        "torch's accuracy (%)",
        "same class (%)",
        "relative error",
        "sha256",
    ]
    images = count(at(subject.export, "models", 0), "checked", "images")
    sentence = f"Checked against torch on {images or 'some'} test images."
    return section("Model files", element("p", sentence), table(header, rows, "Model files"))


def _per_class(training: Mapping[str, Any]) -> list[tuple[str, float | None, int | None]]:
    """Class, accuracy in % and test images, from whichever form a result has."""
    found: list[tuple[str, float | None, int | None]] = []
    names = [
        str(each) for each in items(training, "class_names") or items(training, "classes") if isinstance(each, str)
    ]
    for key in ("per_class", "per_class_accuracy", "class_accuracies", "classes"):
        value = at(training, key)
        if isinstance(value, dict):
            value = [
                {"name": name, **each} if isinstance(each, dict) else {"name": name, "accuracy": each}
                for name, each in value.items()
            ]
        for place, each in enumerate(value if isinstance(value, list) else []):
            if isinstance(each, dict):
                name = (
                    words(each, "name") or words(each, "class") or (names[place] if place < len(names) else str(place))
                )
                images, right = count(each, "images"), number(each, "right")
                accuracy = number(each, "accuracy")
                if accuracy is None and right is not None and images:
                    accuracy = 100 * right / images
                found.append((name, accuracy, images))
            elif number(each) is not None or each is None:
                found.append((names[place] if place < len(names) else str(place), number(each), None))
        if found:
            break
    return found or _from_matrix(training)


def _matrix(training: Mapping[str, Any]) -> tuple[list[str], list[list[int]]]:
    """The names of the classes, and how often an image of the first was put into the second; nothing where that is not
    known."""
    source = at(training, "confusion_matrix")
    source = at(training, "confusion") if source is None else source
    counts = items(source) or items(source, "counts") or items(source, "matrix")
    if not counts or not all(isinstance(row, list) and len(row) == len(counts) for row in counts):
        return [], []
    if not all(count(each) is not None for row in counts for each in row):
        return [], []
    given = items(source, "classes") or items(training, "class_names") or items(training, "classes")
    called = (each if isinstance(each, str) else words(each, "name") or words(each, "class") for each in given)
    names = [each or str(i) for i, each in enumerate(called)]
    names += [str(i) for i in range(len(names), len(counts))]
    return names[: len(counts)], counts


def _from_matrix(training: Mapping[str, Any]) -> list[tuple[str, float | None, int | None]]:
    names, counts = _matrix(training)
    found: list[tuple[str, float | None, int | None]] = []
    for place, (name, row) in enumerate(zip(names, counts, strict=True)):
        found.append((name, 100 * row[place] / sum(row) if sum(row) else None, sum(row)))
    return found


def _classes(subject: Subject) -> Markup | None:
    found = _per_class(subject.training)
    if not found:
        return None
    known = sorted((accuracy, name) for name, accuracy, _ in found if accuracy is not None)
    sentence = ""
    if known:
        sentence = f"From {known[0][0]:.1f} % ({known[0][1]}) to {known[-1][0]:.1f} % ({known[-1][1]})."
    rows = [[name, images, accuracy, bar(accuracy)] for name, accuracy, images in found]
    return section(
        "Accuracy by class",
        element("p", sentence),
        table(["class", "test images", "accuracy (%)", "share"], rows, "Accuracy by class"),
    )


def bar(percent: float | None) -> Markup:
    share = min(100.0, max(0.0, percent or 0.0))
    return element("span", class_="bar", style=f"--share:{share:.1f}%", aria_hidden="true")


def _confusion(subject: Subject) -> Markup | None:
    names, counts = _matrix(subject.training)
    if not counts:
        return None
    mixed = [(row[j], names[i], names[j]) for i, row in enumerate(counts) for j in range(len(row)) if i != j and row[j]]
    mixed.sort(key=lambda each: -each[0])
    sentence = (
        f"{mixed[0][1]} was taken for {mixed[0][2]} most often, {mixed[0][0]:,} times."
        if mixed
        else "No image was put into another class."
    )
    parts: list[Any] = [element("p", sentence)]
    if len(names) <= MAX_MATRIX:
        heads = [element("th", "is, put into", scope="col"), *(element("th", name, scope="col") for name in names)]
        lines = []
        for i, (name, row) in enumerate(zip(names, counts, strict=True)):
            whole = sum(row) or 1
            cells = [
                element(
                    "td",
                    value if value else "",
                    class_="right" if i == j else "wrong",
                    style=f"--share:{100 * value / whole:.0f}%",
                )
                for j, value in enumerate(row)
            ]
            lines.append(element("tr", element("th", name, scope="row"), *cells))
        caption = "Images of each class (rows) by the class they were put into (columns)"
        made = element(
            "table",
            element("caption", caption),
            element("thead", element("tr", *heads)),
            element("tbody", *lines),
            class_="confusion",
        )
        parts.append(element("div", made, class_="wide", tabindex="0", role="region", aria_label=caption))
    else:
        rows = [[true, put, times] for times, true, put in mixed[:MAX_MATRIX]]
        parts.append(table(["is", "put into", "images"], rows, "The classes that are mixed up most often"))
    return section("Confusion", joined(parts))

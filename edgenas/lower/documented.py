"""A finished model file, described for who opens it: what goes in, what comes out, and what the classes are called.

Viewers such as Netron and the tools of each format's makers look for this in its own places. Nothing that is computed
changes, and models that are only timed go without it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import edgenas

LABELS = "labels.txt"  # inside of a TFLite file, whose end is a zip archive
_TFLITE_METADATA, _SCHEMA, _MIN_PARSER = "TFLITE_METADATA", b"M001", "1.0.0"
# Of TFLite's metadata schema: kinds in its unions and enumerations.
_IMAGE, _FEATURE, _NORMALISATION, _RGB, _AXIS_LABELS = 2, 1, 1, 1, 2
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Classifier:
    """Of images: `title` names it in a few words, `description` says more; `mean` and `std` are those of channels, of
    values in [0, 1]; `classes` in the order of the output."""

    title: str
    description: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: Sequence[str]

    @property
    def input(self) -> str:
        mean, std = ([round(each, 6) for each in values] for values in (self.mean, self.std))
        return f"RGB image: values scaled to [0, 1], then less the mean {mean}, divided by the deviation {std}"

    @property
    def output(self) -> str:
        return f"a score (logit) for each of {len(self.classes)} classes; the largest is the answer"


def documented(model: bytes, classifier: Classifier) -> bytes:
    """`model`, a file of ONNX or TFLite that EdgeNAS wrote, with what `classifier` says. The same arguments give the
    same bytes."""
    return _tflite(model, classifier) if model[4:8] == b"TFL3" else _onnx(model, classifier)


def _onnx(content: bytes, classifier: Classifier) -> bytes:
    """With the shapes of all tensors, too."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content), check_type=True, strict_mode=True)
    model.doc_string = classifier.description
    model.graph.name = classifier.title
    model.graph.input[0].doc_string = classifier.input
    model.graph.output[0].doc_string = classifier.output
    return bytes(model.SerializeToString(deterministic=True))


def _tflite(content: bytes, classifier: Classifier) -> bytes:
    from ai_edge_litert import schema_py_generated as schema

    from edgenas.lower.tflite import pack

    model = schema.ModelT.InitFromPackedBuf(content)
    buffer = schema.BufferT()
    buffer.data = _tflite_metadata(classifier)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), schema.MetadataT(_TFLITE_METADATA, len(model.buffers) - 1)]
    file = io.BytesIO()
    file.write(pack(model))
    with zipfile.ZipFile(file, "a") as archive:
        label_file = zipfile.ZipInfo(LABELS, _ZIP_EPOCH)
        archive.writestr(label_file, "".join(f"{name}\n" for name in classifier.classes))
    return file.getvalue()


def _tflite_metadata(classifier: Classifier) -> bytes:
    import flatbuffers

    tables = _Tables(flatbuffers.Builder(1024))
    text, table, numbers = tables.text, tables.table, tables.numbers
    # A table's fields in the order of the schema; a union takes two: its kind and its value.
    image = table(("byte", _RGB))
    # The schema's normalisation is of values in [0, 255].
    scaled = [numbers([255 * each for each in values]) for values in (classifier.mean, classifier.std)]
    normalisation = table(*(("offset", each) for each in scaled))
    unit = table(("byte", _NORMALISATION), ("offset", normalisation))
    content = table(("byte", _IMAGE), ("offset", image))
    source = table(
        ("offset", text("image")), ("offset", text(classifier.input)), None,
        ("offset", content), ("offset", tables.tables([unit])),
    )  # fmt: skip
    labels = table(
        ("offset", text(LABELS)), ("offset", text("a class a line, as ordered in the output")), ("byte", _AXIS_LABELS)
    )
    content = table(("byte", _FEATURE), ("offset", table()))
    scores = table(
        ("offset", text("scores")), ("offset", text(classifier.output)), None,
        ("offset", content), None, None, ("offset", tables.tables([labels])),
    )  # fmt: skip
    graph = table(None, None, ("offset", tables.tables([source])), ("offset", tables.tables([scores])))
    return tables.finish(table(
        ("offset", text(classifier.title)), ("offset", text(classifier.description)),
        ("offset", text(f"edgenas {edgenas.__version__}")), ("offset", tables.tables([graph])),
        None, None, None, ("offset", text(_MIN_PARSER)),
    ))  # fmt: skip


class _Tables:
    """Tables of a flatbuffer, field by field: the classes that its compiler makes of this schema come with no package
    that is needed otherwise."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def text(self, text: str) -> int:
        return int(self._builder.CreateString(text))

    def table(self, *fields: tuple[str, int] | None) -> int:
        """None: a field that is left out."""
        self._builder.StartObject(len(fields))
        for slot, each in enumerate(fields):
            if each is not None:
                kind, value = each
                put = self._builder.PrependInt8Slot if kind == "byte" else self._builder.PrependUOffsetTRelativeSlot
                put(slot, value, 0)
        return int(self._builder.EndObject())

    def tables(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for each in reversed(offsets):
            self._builder.PrependUOffsetTRelative(each)
        return int(self._builder.EndVector())

    def numbers(self, values: Sequence[float]) -> int:
        self._builder.StartVector(4, len(values), 4)
        for each in reversed(values):
            self._builder.PrependFloat32(each)
        return int(self._builder.EndVector())

    def finish(self, root: int) -> bytes:
        self._builder.Finish(root, _SCHEMA)
        return bytes(self._builder.Output())

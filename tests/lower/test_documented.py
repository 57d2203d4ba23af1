"""What a finished model file says to those who open it; that it computes the same; and that Netron shows it."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.table import Table

from edgenas.lower import lower
from edgenas.lower.documented import LABELS, Classifier, documented
from edgenas.lower.onnx import to_onnx
from edgenas.lower.quantize import float16, full_int8, read_metadata
from edgenas.lower.tflite import to_tflite
from edgenas.lower.verify import run_model
from tests.lower.networks import Mixed, with_statistics

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 32, 32), np.float32)
METADATA = {"class_names": ["Katze", "小犬"], "genes": [1, 2]}
WHAT = Classifier(
    "EdgeNAS net, 2 classes", "An image classifier of 2 classes", (0.5, 0.4, 0.3), (0.25, 0.2, 0.1), ["Katze", "小犬"]
)
FORMATS = ("onnx", "tflite", "tflite-f16", "tflite-int8")


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    """By format, as they are lowered."""
    torch.manual_seed(0)
    graph = lower(with_statistics(Mixed()), torch.zeros(1, 3, 32, 32))
    single = to_tflite(graph, METADATA)
    made = (to_onnx(graph, METADATA), single, float16(single), full_int8(graph, METADATA, IMAGES))
    return dict(zip(FORMATS, made, strict=True))


@pytest.mark.parametrize("form", FORMATS)
def test_it_computes_the_same_and_stays_the_same(form: str, models: dict[str, bytes]) -> None:
    made = documented(models[form], WHAT)
    assert made == documented(models[form], WHAT)
    assert np.array_equal(run_model(made, IMAGES), run_model(models[form], IMAGES))
    assert 0 < len(made) - len(models[form]) < 20_000


def test_onnx_says_what_goes_in_and_out_and_every_shape(models: dict[str, bytes]) -> None:
    model = onnx.load_from_string(documented(models["onnx"], WHAT))
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 13)
    assert model.producer_name == "edgenas"
    assert model.graph.name == WHAT.title
    assert model.doc_string == WHAT.description
    assert "[0.5, 0.4, 0.3]" in model.graph.input[0].doc_string
    assert "2 classes" in model.graph.output[0].doc_string
    assert [each.name for each in (*model.graph.input, *model.graph.output)] == ["input", "output"]
    known = {each.name for each in (*model.graph.value_info, *model.graph.output)}
    assert known == {name for node in model.graph.node for name in node.output}
    assert all(dim.dim_value > 0 for each in model.graph.value_info for dim in each.type.tensor_type.shape.dim)
    assert {each.key: each.value for each in model.metadata_props}["genes"] == "[1, 2]"


def field(table: Table, slot: int) -> int:
    """Where the field in `slot` of a table lies; 0: left out."""
    offset = table.Offset(4 + 2 * slot)
    return int(offset + table.Pos) if offset else 0


def inner(table: Table, slot: int, index: int | None = None) -> Table:
    """The table that a field is, or that it has at `index`."""
    at = field(table, slot)
    assert at
    found = Table(table.Bytes, 0)
    start = table.Vector(at - table.Pos) + 4 * index if index is not None else at
    found.Pos = table.Indirect(start)
    return found


def text(table: Table, slot: int) -> str:
    return str(table.String(field(table, slot)).decode())


def numbers(table: Table, slot: int) -> list[float]:
    offset = field(table, slot) - table.Pos
    return list(struct.unpack_from(f"<{table.VectorLen(offset)}f", table.Bytes, table.Vector(offset)))


@pytest.mark.parametrize("form", FORMATS[1:])
def test_tflite_s_metadata_is_that_of_its_schema(form: str, models: dict[str, bytes]) -> None:
    made = documented(models[form], WHAT)
    model = schema.Model.GetRootAs(made)
    entries = {
        model.Metadata(i).Name(): model.Buffers(model.Metadata(i).Buffer()) for i in range(model.MetadataLength())
    }
    content = entries[b"TFLITE_METADATA"].DataAsNumpy().tobytes()
    assert content[4:8] == b"M001"
    root = Table(content, 0)
    root.Pos = struct.unpack_from("<I", content)[0]
    assert (text(root, 0), text(root, 1)) == (WHAT.title, WHAT.description)
    assert text(root, 7) == "1.0.0"
    graph = inner(root, 3, 0)
    source, scores = inner(graph, 2, 0), inner(graph, 3, 0)
    assert (text(source, 0), text(source, 1)) == ("image", WHAT.input)
    assert (text(scores, 0), text(scores, 1)) == ("scores", WHAT.output)
    unit = inner(source, 4, 0)
    assert content[field(unit, 0)] == 1
    normalisation = inner(unit, 1)
    assert numbers(normalisation, 0) == pytest.approx([127.5, 102, 76.5])
    assert numbers(normalisation, 1) == pytest.approx([63.75, 51, 25.5])
    labels = inner(scores, 6, 0)
    assert text(labels, 0) == LABELS
    assert content[field(labels, 2)] == 2
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.read(LABELS).decode().splitlines() == list(WHAT.classes)
    assert read_metadata(made)["genes"] == [1, 2], "EdgeNAS's own is still there"


SHOWN = {
    "onnx": ["ONNX v8", "edgenas", "genes", "[1, 2]", "float32[1,3,32,32]"],
    "tflite": ["TensorFlow Lite v3", "float32[1,32,32,3]", "Image(RGB)"],
    "tflite-f16": ["float32[1,32,32,3]"],
    "tflite-int8": ["int8[1,32,32,3]", "quantization: linear"],
}


@pytest.mark.parametrize("form", FORMATS)
def test_netron_shows_it(form: str, models: dict[str, bytes], tmp_path: Path) -> None:
    netron = pytest.importorskip("netron", reason="netron is not installed (optional): pip install netron")
    from tests.report.browser import started

    path = tmp_path / f"model.{'onnx' if form == 'onnx' else 'tflite'}"
    path.write_bytes(documented(models[form], WHAT))
    address = netron.start(str(path), ("127.0.0.1", 0), browse=False)
    try:
        with started(tmp_path / "profile") as browser:
            url = f"http://{address[0]}:{address[1]}/"
            browser.send("Network.enable")
            browser.send("Network.setBlockedURLs", urls=["https://*"])  # it would tell its makers of each use
            browser.send("Network.setCookie", name="consent", value="1", url=url)
            browser.visit(url, drawn=False)
            said = browser.wait(
                """const said = document.body.innerText;
                return (document.body.className === 'default' || said.includes('update to the newest')) && ` ${said}`"""
            )
            if "update to the newest" in said:
                pytest.skip("this netron thinks that it is too old; update it")
            edges = said.replace("\N{MULTIPLICATION SIGN}", "x")
            panels = ""
            for panel in ("model", "target"):
                browser.run(f"document.getElementById('sidebar-{panel}-button').click()")
                panels += browser.wait(
                    """const found = document.querySelector('.sidebar-content');
                    const names = found ? [...found.querySelectorAll('input')].map(each => each.value) : [];
                    return names.includes(arguments[0]) && names.join(' ') + found.innerText""",
                    "format" if panel == "model" else "input",
                )
            expected = [*SHOWN[form], WHAT.title, WHAT.description, WHAT.input, WHAT.output]
            assert [each for each in expected if each not in panels] == []
            assert edges.count("x32x32") > 2, "the shapes of tensors between"
            assert [each for each in browser.logged() if "ERR_BLOCKED" not in each] == []
    finally:
        netron.stop(address)

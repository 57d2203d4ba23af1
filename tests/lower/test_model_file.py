"""What a model file is, by its content; its open sides; and input that is made up for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from edgenas.errors import DataError, EdgeNASError, ExportError, UsageError
from edgenas.lower import onnx_file, tflite_file
from edgenas.lower.model_file import Description, Tensor, close, describe, format_of, made_up, of_a_batch
from edgenas.lower.runtimes import explained, open_model
from tests.lower.made import add_scaled, end, one, onnx_model, small_cnn, tflite_model, with_second_file

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty; get it again"),
        (LFS, "is a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "is a web page; download the file itself"),
        (b"\xef\xbb\xbf \r\n<HTML lang=en>", "is a web page"),
        (b"PK\x03\x04" + bytes(60), "zip archive, as checkpoints of PyTorch and Keras are; export"),
        (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5 file, as Keras writes; export"),
        (b"\x80\x02}q\x00." + bytes(60), "Python pickle"),
        (b"\x1f\x8b\x08" + bytes(60), "gzip archive; unpack it.*edgenas deploy"),
        (b"\x20\x00\x00\x00ORTM" + bytes(60), "ORT format; give the ONNX file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a": {}}', "safetensors"),
        (b"GGUF" + bytes(60), "GGUF"),
        (b"ftrt" + bytes(60), "engine of TensorRT"),
        (b"hello, this is some text", "neither ONNX nor TFLite; export the network"),
        (bytes(range(256)), "neither ONNX nor TFLite"),
        (b"\x08\x08\x12\x04", "begins as an ONNX file does, but is cut short"),
        (small_cnn()[:200], "begins as an ONNX file does, but is cut short"),
        (onnx.ModelProto(ir_version=8, producer_name="p").SerializeToString(), "neither ONNX nor TFLite"),
        (b"\x08\x00\x08" * 20, "cut short|neither"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_model_is_recognised_by_its_content(content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=f"^it {says}" if says.startswith(("is", "begins")) else says):
        format_of(content, "it")


@pytest.mark.parametrize(("content", "form"), [(small_cnn(), "onnx"), (tflite_model(), "tflite")])
def test_format_of_models(content: bytes, form: str) -> None:
    assert format_of(content, "it") == form


@pytest.mark.parametrize("length", [9, 40, 100, 200])
def test_a_cut_tflite_file_is_damaged(length: int) -> None:
    with pytest.raises(DataError, match="cut short or damaged"):
        describe(tflite_model()[:length], "it")


def test_what_onnx_files_hold() -> None:
    found = describe(add_scaled(), "it")
    assert found.inputs == (Tensor("x", "float32", (2, 3)), Tensor("n", "int64", (2, 3)))
    assert [each.dtype for each in found.outputs] == ["float32", "int64"]
    assert found.operators == ("Add", "Cast", "ReduceSum")
    assert (found.custom_operators, found.ir_version, found.opsets) == ((), 8, {"ai.onnx": 13})
    assert Description.of(json.loads(json.dumps(found.record()))) == found
    assert describe(one("Fancy", [1, 3], domain="com.acme"), "it").custom_operators == ("com.acme:Fancy",)
    assert describe(one("Gelu", [1, 3], domain="com.microsoft"), "it").custom_operators == ()
    assert describe(one("RandomNormalLike", [1, 3]), "it").random_operators == ("RandomNormalLike",)
    assert describe(with_second_file("w.bin"), "it").second_files == ("w.bin",)
    assert describe(one("Relu", [1, 3], TensorProto.FLOAT16), "it").float16


def test_operators_in_branches_and_functions_count() -> None:
    branch = helper.make_graph([helper.make_node("Fancy", ["x"], ["z"], domain="com.acme")], "b", [], [end("z", [1])])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    inputs = [end("x", [1]), end("c", [], TensorProto.BOOL)]
    content = onnx_model([node], inputs, [end("y", [1])], opsets={"": 13, "com.acme": 1})
    assert describe(content, "it").custom_operators == ("com.acme:Fancy",)
    model = onnx.ModelProto.FromString(content)
    body = [helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("com.acme", "Fancy", ["a"], ["b"], body, [helper.make_opsetid("", 13)]))
    assert describe(model.SerializeToString(), "it").custom_operators == ()


def test_what_tflite_files_hold() -> None:
    found = describe(tflite_model((1, 8, 8, 3), schema.TensorType.INT8, scale=0.5, signature=(-1, 8, 8, 3)), "it")
    assert found.inputs == (Tensor("in", "int8", ("?", 8, 8, 3), 0.5, 0),)
    assert (found.quantised, found.layout, found.operators) == (True, "NHWC", ("RELU",))
    compiled = describe(tflite_model(operator=32, custom="edgetpu-custom-op"), "it")
    assert compiled.for_edgetpu
    assert describe(tflite_model(()), "it").inputs[0].shape == ()


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((1, 3, 8, 8), "NCHW"), ((1, 8, 8, 3), "NHWC"), ((1, 3, 8, 3), None), ((1, 9, 8, 8), None), ((1, 8), None)],
)
def test_layouts(shape: tuple[int, ...], layout: str | None) -> None:
    assert Description("onnx", (Tensor("x", "float32", shape),), ()).layout == layout


# Open sides.


def closed(shapes: dict[str, tuple[int, ...]], *inputs: Tensor) -> tuple[list[tuple[int, ...]], list[str]]:
    found, notes = close(Description("onnx", inputs, ()), shapes, "it")
    return [each.fixed() for each in found], notes


def tensor(*shape: int | str, name: str = "x", dtype: str = "float32") -> Tensor:
    return Tensor(name, dtype, shape)


def test_an_open_batch_is_one_and_said() -> None:
    for side in ("batch", "?"):
        shapes, notes = closed({}, tensor(side, 3, 8, 8))
        assert shapes == [(1, 3, 8, 8)]
        assert notes == [f"the batch is open in the file: 1 was taken for x ({side} x 3 x 8 x 8)"]
    assert closed({}, tensor(1, 3, 8, 8)) == ([(1, 3, 8, 8)], [])
    assert closed({}, tensor()) == ([()], [])


def test_shapes_that_are_given() -> None:
    assert closed({"x": (4, 3, 16, 8)}, tensor("n", 3, "h", "w")) == ([(4, 3, 16, 8)], [])
    assert closed({"": (1, 3, 16, 8)}, tensor("?", 3, "?", "?")) == ([(1, 3, 16, 8)], [])
    assert closed({"x": (1, 3)}, Tensor("x", "float32", None)) == ([(1, 3)], [])
    assert closed({"x": (5,)}, tensor("n")) == ([(5,)], [])


def test_a_name_of_a_side_holds_for_all_inputs() -> None:
    mask, ids = tensor("batch", "length", name="mask"), tensor("batch", "length", name="ids")
    assert closed({"ids": (2, 7)}, mask, ids)[0] == [(2, 7), (2, 7)]
    assert closed({}, tensor("n", name="lengths"), tensor("n", 5))[0] == [(1,), (1, 5)]
    # "?" is no name: what one exporter writes for all of them
    with pytest.raises(UsageError, match=r"mask \(\? x \? float32\)"):
        closed({"ids": (2, 7)}, tensor("?", "?", name="mask"), tensor("?", "?", name="ids"))


@pytest.mark.parametrize(
    ("shapes", "inputs", "kind", "says"),
    [
        ({}, [tensor("b", 3, "h", "w")], UsageError, r"x \(b x 3 x h x w float32\).*--input-shape x=1,3,224,224$"),
        ({}, [tensor("n")], UsageError, "--input-shape x=128$"),
        ({}, [Tensor("a b", "float32", None)], UsageError, "'a b'=1,3,224,224$"),
        ({"y": (1, 3)}, [tensor("n", 3)], UsageError, r"has no input y; there are: x \(n x 3 float32\)"),
        ({"x": (1, 4)}, [tensor("n", 3)], UsageError, r"1 x 4 does not fit the input x \(n x 3 float32\)"),
        ({"x": (1, 3, 1)}, [tensor("n", 3)], UsageError, "does not fit"),
        ({"": (1, 3)}, [tensor("n", 3), tensor("n", 3, name="z")], UsageError, "2 inputs, so say whose shape it is"),
        ({"": (1, 3)}, [], UsageError, "0 inputs"),
        ({}, [tensor(0, 3)], DataError, "side of 0"),
        ({}, [tensor(1, 2**20, 2**20)], DataError, "MiB"),
        ({}, [tensor(2**40, 2**40, 2**40)], DataError, "MiB"),
        ({}, [tensor(1, dtype="string")], ExportError, "takes string"),
        ({}, [Tensor("s", "sequence", None)], ExportError, "takes sequence"),
    ],
)
def test_what_cannot_be_closed(shapes: Any, inputs: list[Tensor], kind: type[EdgeNASError], says: str) -> None:
    with pytest.raises(kind, match=says):
        closed(shapes, *inputs)


def test_what_the_latency_is_of() -> None:
    assert of_a_batch([tensor(1, 3, 8, 8)]) is None
    assert of_a_batch([tensor(8)]) is None
    assert of_a_batch([tensor()]) is None
    assert "batch of 8 images" in str(of_a_batch([tensor(8, 3, 8, 8)]))
    assert "whole input, 4 x 16" in str(of_a_batch([tensor(4, 16)]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int16", "uint16"])
def test_made_up_numbers(dtype: str) -> None:
    (array,) = made_up([tensor(4, 1000, dtype=dtype)])
    assert (array.dtype, array.shape) == (np.dtype(dtype), (4, 1000))
    low, high = (0, 1) if dtype.startswith("float") else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    assert low <= array.min() < array.max() <= high
    assert len(np.unique(array)) > 200
    np.testing.assert_array_equal(array, made_up([tensor(4, 1000, dtype=dtype)])[0])


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 9)])
def test_made_up_places_and_masks(dtype: str, shape: tuple[int, ...]) -> None:
    (array,) = made_up([tensor(*shape, dtype=dtype)])
    assert (array.dtype, array.shape) == (np.dtype(dtype), shape)
    assert set(array.ravel().tolist()) <= {0, 1}
    assert (array.reshape(-1, shape[-1] if shape else 1)[:, 0] == 1).all()


# The same model without open sides.


def test_onnx_files_get_their_shapes() -> None:
    model = onnx_file.parse(small_cnn(("n", 3, "h", "w")), "it")
    inputs, _ = close(onnx_file.describe(model), {"x": (2, 3, 6, 5)}, "it")
    onnx_file.fix_shapes(model, inputs)
    content = onnx_file.serialised(model, "it")
    assert describe(content, "it").inputs == inputs
    ((_, output),) = open_model(content)(made_up(inputs))
    assert output.shape == (2, 4)
    assert content == onnx_file.serialised(onnx_file.parse(content, "it"), "it")


def test_tflite_files_get_their_shapes() -> None:
    content = tflite_model((1, 1, 1, 3), signature=(-1, -1, -1, 3))
    inputs, _ = close(describe(content, "it"), {"in": (2, 6, 5, 3)}, "it")
    changed = tflite_file.fix_shapes(content, inputs)
    assert describe(changed, "it").inputs == inputs
    ((_, output),) = open_model(changed)(made_up(inputs))
    assert output.shape == (2, 6, 5, 3)
    same = tflite_model(signature=(-1, 4, 4, 3))
    assert tflite_file.fix_shapes(same, close(describe(same, "it"), {}, "it")[0]) is same


# Weights in second files.

WEIGHTS = np.arange(6, dtype="<f4").tobytes()


def embedded(path: Path) -> bytes:
    model = onnx_file.parse(path.read_bytes(), "it")
    onnx_file.embed(model, path, "it")
    assert describe(model.SerializeToString(), "it").second_files == ()
    return bytes(model.graph.initializer[0].raw_data)


def put(folder: Path, content: bytes, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "it.onnx").write_bytes(content)
    return folder / "it.onnx"


def test_weights_are_embedded(tmp_path: Path) -> None:
    assert embedded(put(tmp_path, with_second_file("w"), w=WEIGHTS)) == WEIGHTS
    assert embedded(put(tmp_path, with_second_file("w", 4, 24), w=b"head" + WEIGHTS + b"tail")) == WEIGHTS
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "w").write_bytes(WEIGHTS)
    assert embedded(put(tmp_path, with_second_file("below/w"))) == WEIGHTS


def test_links_of_a_store_of_models_are_followed(tmp_path: Path) -> None:
    """As the cache of Hugging Face lays them out."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    model = put(blobs, with_second_file("model.onnx_data"), weights=WEIGHTS)
    snapshot.mkdir(parents=True)
    (snapshot / "model.onnx").symlink_to(os.path.relpath(model, snapshot))
    (snapshot / "model.onnx_data").symlink_to(os.path.relpath(blobs / "weights", snapshot))
    assert embedded(snapshot / "model.onnx") == WEIGHTS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (with_second_file("gone"), "keeps its weights in gone, which is not beside it"),
        (with_second_file("w", 12), "w is cut short: it needs 36 bytes of it, it has 24"),
        (with_second_file("w", 0, 20), "do not lie in w as the file says"),
        (with_second_file("w", count=5, length=24), "do not lie in w as the file says"),
        (with_second_file("w", length=-1), "do not lie in w as the file says"),
        (with_second_file(""), "outside of its own folder"),
        (with_second_file("/etc/passwd"), "/etc/passwd, outside of its own folder; do not trust it"),
        (with_second_file("../w"), "outside of its own folder"),
        (with_second_file("below/../../w"), "outside of its own folder"),
        (with_second_file("C:\\w"), "outside of its own folder"),
        (with_second_file("..\\w"), "outside of its own folder"),
        (with_second_file("link"), "outside of its own folder"),
        (with_second_file("a\0b"), "outside of its own folder"),
        (with_second_file("."), "is no regular file"),
        (with_second_file("pipe"), "is no regular file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_that_are_not_taken(tmp_path: Path, content: bytes, says: str) -> None:
    path = put(tmp_path / "folder", content, w=WEIGHTS)
    (tmp_path / "w").write_bytes(WEIGHTS)
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "w")
    os.mkfifo(tmp_path / "folder" / "pipe")
    with pytest.raises(DataError, match=says.replace("\\", "\\\\")):
        embedded(path)


def test_too_many_weights_are_reported(tmp_path: Path) -> None:
    path = put(tmp_path, with_second_file("w"), w=WEIGHTS)
    with pytest.raises(DataError, match="larger than the 20 bytes"):
        onnx_file.embed(onnx_file.parse(path.read_bytes(), "it"), path, "it", max_bytes=20)
    with pytest.raises(DataError, match="that are brought to a board"):
        onnx_file.serialised(onnx_file.parse(small_cnn(), "it"), "it", max_bytes=20)


# What runtimes say.

PLACE = (
    "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model("
    "onnx::ModelProto&&, const onnxruntime::PathString&, const onnxruntime::ModelOptions&) "
)
OPSET = (
    "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 99 is"
    " under development and support for this is limited. The operator schemas and or other functionality may change"
    " before next ONNX release and in this case ONNX Runtime will not guarantee backward compatibility. Current"
    " official support for domain ai.onnx is till opset 15."
)


@pytest.mark.parametrize(
    ("said", "begin"),
    [
        (
            PLACE + "Unsupported model IR version: 9, max supported IR version: 8\n",
            "the file has ONNX IR version 9 and this onnxruntime takes 8 at most: ",
        ),
        (PLACE + OPSET, "the file is of opset 99 and this onnxruntime takes opset 15 of ai.onnx at most: "),
        # as an agent cuts it
        (
            OPSET[:150] + " ... " + OPSET[-185:],
            "the file is of opset 99 and this onnxruntime takes opset 15 of ai.onnx",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Fatal error: com.acme:Fancy(-1) is not a registered function/op",
            "there is no operator com.acme:Fancy in onnxruntime: ",
        ),
        (
            "Encountered unresolved custom op: Fancy.\nSee instructions: https://example.org/x Node number 0 (Fancy)"
            " failed to prepare.",
            "there is no operator Fancy in this runtime: ",
        ),
        (
            "Didn't find op for builtin opcode 'CONV_2D' version '9'. An older version of this builtin might be",
            "this runtime is too old for version 9 of the operator CONV_2D: ",
        ),
        ("something  else\nis wrong", "something else is wrong"),
    ],
)
def test_words_of_runtimes(said: str, begin: str) -> None:
    assert explained(said).startswith(begin)
    quoted = "pi: onnxruntime rejects the model: "
    assert explained(quoted + said).startswith(quoted + begin)

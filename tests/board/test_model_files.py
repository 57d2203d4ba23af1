"""Model files that users bring, made here: read and run once apart from this program, then timed on this computer."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto

from edgenas.board.measure import Failed, Measured
from edgenas.board.model import Model, is_tflite, read, with_golden
from edgenas.board.registry import Board
from edgenas.board.session import Session
from edgenas.cli import main
from edgenas.errors import DataError, ExportError, UsageError
from edgenas.package.build import FOLDER
from edgenas.package.verify import verify
from tests.agents.conftest import Models, models  # noqa: F401  # real model files
from tests.board.timing_here import timed
from tests.lower.made import CUSTOM, add_scaled, end, one, onnx_model, small_cnn, tflite_model, with_second_file
from tests.test_package import packed, unpacked, vouched

TYPES = schema.TensorType
DETECTION = "TFLite_Detection_PostProcess"  # a custom operator that runtimes have, which crashes on nonsense


def put(folder: Path, content: bytes, name: str = "model") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def command(text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(text))
    captured = capsys.readouterr()
    return ended.value.code if isinstance(ended.value.code, int) else 0, captured.out, captured.err


@pytest.mark.parametrize("form", ["onnx", "tflite", "int8"])
def test_a_model_file_gets_a_golden_output(models: Models, tmp_path: Path, form: str) -> None:  # noqa: F811
    path = put(tmp_path, getattr(models, form))
    model = read(path)
    assert model.format == ("onnx" if form == "onnx" else "tflite")
    assert is_tflite(model.content) == (form != "onnx")
    assert model.golden is not None
    dtype = "int8" if form == "int8" else "<f4"
    assert len(np.frombuffer(model.golden.source, dtype)) == 3 * 32 * 32
    assert len(np.frombuffer(model.golden.target, dtype)) == 10
    assert model.golden.relative_error == (0.1 if form == "int8" else 1e-3)
    assert read(path) == model


@pytest.mark.parametrize("content", [small_cnn(), tflite_model()], ids=["onnx", "tflite"])
@pytest.mark.parametrize("name", ["MODEL.ONNX", "model.TFLITE", "a name (1) ü.onnx", "noending", "renamed.tflite"])
def test_names_do_not_matter(tmp_path: Path, content: bytes, name: str) -> None:
    assert read(put(tmp_path, content, name)).content == content


# Of each kind: what goes in, as it is made up, and what comes out.
KINDS = {
    "float16": (one("Relu", [1, 3, 4, 4], TensorProto.FLOAT16), [("float16", (1, 3, 4, 4))], ["float16"]),
    "float64": (one("Relu", [1, 3], TensorProto.DOUBLE), [("float64", (1, 3))], ["float64"]),
    "int8": (one("Identity", [1, 3], TensorProto.INT8), [("int8", (1, 3))], ["int8"]),
    "uint8": (one("Identity", [1, 3, 4, 4], TensorProto.UINT8), [("uint8", (1, 3, 4, 4))], ["uint8"]),
    "int16": (one("Identity", [1, 3], TensorProto.INT16), [("int16", (1, 3))], ["int16"]),
    "int32": (one("Identity", [1, 3], TensorProto.INT32), [("int32", (1, 3))], ["int32"]),
    "int64": (one("Identity", [1, 3], TensorProto.INT64), [("int64", (1, 3))], ["int64"]),
    "uint64": (one("Identity", [1, 3], TensorProto.UINT64), [("uint64", (1, 3))], ["uint64"]),
    "bool": (one("Not", [1, 3], TensorProto.BOOL), [("bool", (1, 3))], ["bool"]),
    "rank 0": (one("Relu", []), [("float32", ())], ["float32"]),
    "rank 1": (one("Relu", [7]), [("float32", (7,))], ["float32"]),
    "rank 3": (one("Relu", [1, 16, 8]), [("float32", (1, 16, 8))], ["float32"]),
    "rank 5": (one("Relu", [1, 2, 3, 4, 5]), [("float32", (1, 2, 3, 4, 5))], ["float32"]),
    "two inputs": (add_scaled(), [("float32", (2, 3)), ("int64", (2, 3))], ["float32", "int64"]),
    "argmax": (
        onnx_model([oh.make_node("ArgMax", ["x"], ["y"], axis=1)], [end("x", [1, 9])], [end("y", None, 7)]),
        [("float32", (1, 9))],
        ["int64"],
    ),
    "open batch": (small_cnn(("batch", 3, 8, 8)), [("float32", (1, 3, 8, 8))], ["float32"]),
    "tflite float16": (tflite_model((1, 4), TYPES.FLOAT16), [("float16", (1, 4))], ["float16"]),
    "tflite int8": (tflite_model((1, 4), TYPES.INT8, scale=0.1), [("int8", (1, 4))], ["int8"]),
    "tflite uint8": (tflite_model((1, 4), TYPES.UINT8, scale=0.1), [("uint8", (1, 4))], ["uint8"]),
    "tflite int16": (tflite_model((1, 4), TYPES.INT16, scale=0.1), [("int16", (1, 4))], ["int16"]),
    "tflite rank 1": (tflite_model((5,)), [("float32", (5,))], ["float32"]),
    "tflite rank 5": (tflite_model((1, 2, 3, 4, 5)), [("float32", (1, 2, 3, 4, 5))], ["float32"]),
    "tflite open batch": (tflite_model(signature=(-1, 4, 4, 3)), [("float32", (1, 4, 4, 3))], ["float32"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_timed_with_made_up_input(this_board: Session, tmp_path: Path, kind: str) -> None:
    content, inputs, outputs = KINDS[kind]
    model = read(put(tmp_path, content))
    assert [(each.dtype, each.shape) for each in model.inputs] == inputs
    assert model.golden is not None
    assert [each.dtype for each in model.golden.outputs] == outputs
    found = timed(this_board, model, tmp_path / "store")
    assert isinstance(found, Measured), found
    assert found.record["checked"] is True
    assert all(0 <= each["golden_error"] <= 1e-6 for each in found.record["attempts"][-1]["processes"])
    assert bool(model.notes) == ("open" in kind or kind == "two inputs")


def test_a_wrong_output_is_seen_on_the_board_whatever_its_type(this_board: Session, tmp_path: Path) -> None:
    for content in (add_scaled(), one("Not", [1, 3], TensorProto.BOOL), tflite_model((1, 4), TYPES.INT8, scale=0.1)):
        model = read(put(tmp_path, content))
        assert model.golden is not None
        target = bytearray(model.golden.target)
        target[-len(target) // 2 :] = bytes(
            255 - each if each > 1 else 1 - each for each in target[-len(target) // 2 :]
        )
        golden = type(model.golden)(**{**vars(model.golden), "target": bytes(target)})
        wrong = Model(model.content, model.format, golden)
        found = timed(this_board, wrong, tmp_path / "store")
        assert isinstance(found, Failed)
        assert "the output differs" in found.error or "not finite" in found.error


def test_the_runtime_of_the_board_says_what_is_too_new(this_board: Session, tmp_path: Path) -> None:
    """Where this computer cannot tell, as without a runtime, the board does, in words that are whole."""
    content = onnx_model([oh.make_node("Relu", ["x"], ["y"])], [end("x", [1])], [end("y", [1])], opsets={"": 99})
    found = timed(this_board, Model(content, "onnx"), tmp_path)
    assert isinstance(found, Failed)
    assert "the file is of opset 99 and this onnxruntime takes opset" in found.error
    newer = onnx_model([oh.make_node("Relu", ["x"], ["y"])], [end("x", [1])], [end("y", [1])], ir_version=99)
    found = timed(this_board, Model(newer, "onnx"), tmp_path)
    assert isinstance(found, Failed)
    assert "ONNX IR version 99 and this onnxruntime takes" in found.error


def test_without_golden_values_the_board_makes_input_up(this_board: Session, tmp_path: Path) -> None:
    for kind in ("float16", "bool", "rank 0", "two inputs", "open batch", "tflite int8"):
        content = KINDS[kind][0]
        found = timed(this_board, Model(content, "tflite" if is_tflite(content) else "onnx"), tmp_path)
        assert isinstance(found, Measured), (kind, found)
        assert found.record["checked"] is False


def without_opset() -> bytes:
    model = onnx.ModelProto.FromString(small_cnn())
    del model.opset_import[:]
    return bytes(model.SerializeToString())


REFUSED: dict[str, tuple[bytes, type[Exception], str]] = {
    "empty": (b"", DataError, "is empty"),
    "text": (b"hello", DataError, "neither ONNX nor TFLite"),
    "cut onnx": (small_cnn()[:150], DataError, "cut short or damaged"),
    "cut tflite": (tflite_model()[:100], DataError, "cut short or damaged"),
    "short tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(20), DataError, "cut short or damaged"),
    "without opset": (without_opset(), DataError, "cut short or damaged"),
    "without operators": (onnx_model([], [end("x", [1])], [end("x", [1])]), DataError, "holds no network"),
    "without outputs": (
        onnx_model([oh.make_node("Relu", ["x"], ["y"])], [end("x", [1])], []),
        DataError,
        "holds no network",
    ),
    "zero side": (one("Relu", [0, 3]), DataError, "a side of 0"),
    "random": (one("RandomNormalLike", [1, 3]), DataError, r"random numbers \(RandomNormalLike\)"),
    "open sides": (one("Relu", [1, "length"]), UsageError, "--input-shape x=1,128"),
    "not finite": (
        onnx_model(
            [oh.make_node("Neg", ["x"], ["a"]), oh.make_node("Sqrt", ["a"], ["y"])],
            [end("x", [1, 9])],
            [end("y", [1, 9])],
        ),
        ExportError,
        "NaN or infinite",
    ),
    "text in": (one("Identity", [1, 3], TensorProto.STRING), ExportError, "takes string"),
    "custom": (one("Fancy", [1, 3], domain="com.acme"), ExportError, "no operator com.acme:Fancy"),
    "unknown": (one("Unknown", [1, 3]), ExportError, "Unknown"),
    "custom tflite": (tflite_model(operator=CUSTOM, custom="Fancy"), ExportError, "no operator Fancy"),
    "crash": (tflite_model(operator=CUSTOM, custom=DETECTION), ExportError, DETECTION),
    "type": (tflite_model(dtype=TYPES.INT32), ExportError, "Only float32, uint8, int8 and int16 are supported"),
    "opset": (
        onnx_model([oh.make_node("Relu", ["x"], ["y"])], [end("x", [1])], [end("y", [1])], opsets={"": 99}),
        ExportError,
        "opset 99 and this onnxruntime takes opset",
    ),
    "no weights": (with_second_file("gone"), DataError, "gone, which is not beside it"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(tmp_path: Path, kind: str) -> None:
    content, error, says = REFUSED[kind]
    with pytest.raises(error, match=says) as raised:
        read(put(tmp_path, content))
    assert len(str(raised.value).splitlines()) == 1
    assert "model" in str(raised.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read.*give an \.onnx or \.tflite file"):
        read(tmp_path / "gone.onnx")
    with pytest.raises(DataError, match="give an"):
        read(tmp_path)


def test_weights_of_second_files_go_to_the_board(this_board: Session, tmp_path: Path) -> None:
    weights = np.arange(6, dtype="<f4").tobytes()
    (tmp_path / "w.bin").write_bytes(weights)
    model = read(put(tmp_path, with_second_file("w.bin")))
    assert weights in model.content
    assert model.notes == ("its weights were taken from w.bin",)
    found = timed(this_board, model, tmp_path / "store")
    assert isinstance(found, Measured)
    assert found.record["fingerprint"]["model_sha256"] == model.sha256


def test_a_model_with_random_numbers_from_a_seed_is_measured(this_board: Session, tmp_path: Path) -> None:
    model = read(put(tmp_path, one("RandomNormalLike", [1, 3], seed=3.0)))
    assert isinstance(timed(this_board, model, tmp_path / "store"), Measured)


def test_outputs_that_are_no_numbers_are_left_out(this_board: Session, tmp_path: Path) -> None:
    nodes = [oh.make_node("SequenceConstruct", ["x", "x"], ["s"]), oh.make_node("Relu", ["x"], ["y"])]
    sequence = oh.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    model = read(put(tmp_path, onnx_model(nodes, [end("x", [1, 4])], [sequence, end("y", [1, 4])])))
    assert model.golden is not None
    assert [each.name for each in model.golden.outputs] == ["y"]
    assert isinstance(timed(this_board, model, tmp_path / "store"), Measured)
    alone = read(put(tmp_path, onnx_model(nodes[:1], [end("x", [1, 4])], [sequence])))
    assert (alone.golden, alone.note) == (None, "its output is no numbers, so it was not checked")
    assert isinstance(timed(this_board, alone, tmp_path / "store"), Measured)


def test_a_large_output_is_not_brought_to_a_board(tmp_path: Path) -> None:
    shape = oh.make_tensor("shape", TensorProto.INT64, [3], [20, 1000, 1000])
    node = oh.make_node("Expand", ["x", "shape"], ["y"])
    model = read(put(tmp_path, onnx_model([node], [end("x", [1])], [end("y", None)], [shape])))
    assert model.golden is None
    assert "76 MiB is too large to be checked on a board" in model.note


def test_what_wants_more_memory_than_there_is(tmp_path: Path) -> None:
    shape = oh.make_tensor("shape", TensorProto.INT64, [3], [10**4, 10**4, 10**4])
    node = oh.make_node("Expand", ["x", "shape"], ["y"])
    with pytest.raises(ExportError, match="more memory than this computer has"):
        read(put(tmp_path, onnx_model([node], [end("x", [1])], [end("y", None)], [shape])))


def endless() -> bytes:
    """ONNX: a loop of 2^62 turns."""
    body = oh.make_graph(
        [oh.make_node("Identity", ["c"], ["d"]), oh.make_node("Add", ["a", "a"], ["b"])],
        "body",
        [end("i", [], TensorProto.INT64), end("c", [], TensorProto.BOOL), end("a", [1])],
        [end("d", [], TensorProto.BOOL), end("b", [1])],
    )
    turns = oh.make_tensor("turns", TensorProto.INT64, [], [2**62])
    true = oh.make_tensor("true", TensorProto.BOOL, [], [True])
    node = oh.make_node("Loop", ["turns", "true", "x"], ["y"], body=body)
    return onnx_model([node], [end("x", [1])], [end("y", [1])], [turns, true])


def test_a_model_that_never_ends_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not run here: its process was ended after 10 s"):
        read(put(tmp_path, endless()), timeout_s=10.0)


def test_without_libraries_a_file_is_timed_unchecked(
    this_board: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for missing in ("onnxruntime", "onnx", "ai_edge_litert"):
        fakes = tmp_path / f"without {missing}"
        fakes.mkdir()
        (fakes / f"{missing}.py").write_text(f"raise ModuleNotFoundError('gone', name={missing!r})")
        with monkeypatch.context() as context:
            context.setattr(sys, "path", [str(fakes), *sys.path])
            path = put(tmp_path, tflite_model() if missing == "ai_edge_litert" else small_cnn(("n", 3, 8, 8)))
            model = read(path)
            assert model.golden is None
            assert model.note == f"{missing} is not installed here, so its output was not checked"
            if missing == "onnx":
                with pytest.raises(UsageError, match=r"onnx is not installed.*pip install 'edgenas\[export\]'"):
                    read(path, {"x": (1, 3, 8, 8)})
        assert isinstance(timed(this_board, model, tmp_path / "store"), Measured)


def test_no_room_for_temporary_files_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, small_cnn())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ExportError, match=r"no room for a model in .*gone.*TMPDIR"):
        read(path)


def test_a_file_compiled_for_the_edge_tpu_is_described_and_not_run_here(
    here: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(tmp_path, tflite_model((1, 4), TYPES.UINT8, operator=CUSTOM, custom="edgetpu-custom-op", scale=0.1))
    model = read(path)
    assert (model.compiled, model.golden) == (True, None)
    assert model.description is not None
    assert model.description.for_edgetpu
    assert "Edge TPU" in model.note
    code, out, err = command(f"measure {path} --board here", capsys)
    assert (code, out) == (2, "")
    assert "compiled for an Edge TPU" in err


# Packages hold models of others too.


def test_a_package_whose_model_crashes_is_refused(archive: Path, tmp_path: Path) -> None:
    crash = tflite_model(operator=CUSTOM, custom=DETECTION)
    content = {**unpacked(archive), f"{FOLDER}/model.tflite": crash}
    with pytest.raises(DataError, match=r"model\.tflite in .* does not run \("):
        verify(packed(tmp_path / "bad.tar.gz", vouched(content)))


def test_a_model_of_a_package_is_run_apart() -> None:
    images = np.zeros((2, 3, 4, 4), np.float32)
    with pytest.raises(ExportError, match=rf"does not run here.*{DETECTION}"):
        with_golden(tflite_model((2, 4, 4, 3), operator=CUSTOM, custom=DETECTION), images)
    golden = with_golden(tflite_model((1, 4, 4, 3)), images).golden
    assert golden is not None
    assert (len(golden.source), golden.inputs) == (4 * images.size, ())
    with pytest.raises(DataError, match="cut short or damaged"):
        with_golden(tflite_model()[:100], images)


# The command.


def test_a_shape_is_asked_for_and_given(here: Board, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("open.onnx").write_bytes(small_cnn(("batch", 3, "h", "w")))
    code, out, err = command("measure open.onnx --board here --tier screen", capsys)
    assert (code, out) == (2, "")
    assert err == (
        "edgenas: open.onnx leaves sides of its input open: x (batch x 3 x h x w float32); give them, for example by:"
        " --input-shape x=1,3,224,224\n"
    )
    for shape in ("x=2,3,16,12", "2,3,16,12", "2x3x16x12"):
        code, out, err = command(f"measure open.onnx --board here --tier screen --json --input-shape {shape}", capsys)
        assert code in (0, 5), err
        fact: dict[str, Any] = json.loads(out)
        assert fact["inputs"] == [{"name": "x", "shape": [2, 3, 16, 12], "dtype": "float32"}]
        assert fact["layout"] == "NCHW"
        assert fact["notes"] == ["the latency is that of a batch of 2 images, not of one"]
        assert fact["from_store"] is (shape != "x=2,3,16,12" and code == 0)


@pytest.mark.parametrize(
    "shape", ["x", "x=", "x=1,a", "x=0,3", "x=-1,3", "1,,3", "x=1;3", "=", "x=1.5", "x=9999999999"]
)
def test_what_is_no_shape(here: Board, workplace: Path, shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.onnx").write_bytes(small_cnn())
    code, _, err = command(f"measure model.onnx --board here --input-shape '{shape}'", capsys)
    assert code == 2
    assert "is no shape; write it like NAME=1,3,224,224" in err


def test_a_shape_is_given_once(here: Board, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.onnx").write_bytes(small_cnn())
    code, _, err = command("measure model.onnx --board here --input-shape x=1,3 --input-shape x=1,3", capsys)
    assert code == 2
    assert "once for an input" in err

"""Awkward model files, as real tools make them, through `edgenas measure` on this computer: what is right for each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgenas.board.measure import Measured
from edgenas.board.model import read
from edgenas.board.registry import Board
from edgenas.board.session import Session
from edgenas.cli import main
from tests.board.timing_here import timed

CASES = Path(__file__).parents[3] / "shared" / "cases" / "models"
pytestmark = [
    pytest.mark.skipif(not CASES.is_dir(), reason=f"the collection of awkward model files is not at {CASES}"),
]

# File -> its input, and words of the notes that come with the latency.
MEASURED: dict[str, tuple[str, str]] = {
    "ok.onnx": ("1x3x32x32 float32", ""),
    "ok2.onnx": ("1x3x32x32 float32", ""),
    "ok3.onnx": ("1x3x32x32 float32", ""),
    "ok_copy.onnx": ("1x3x32x32 float32", ""),
    "name with spaces (1) é.onnx": ("1x3x32x32 float32", ""),
    "ok.tflite": ("1x32x32x3 float32", ""),
    "ok.TFLITE": ("1x32x32x3 float32", ""),
    "noext": ("1x32x32x3 float32", ""),
    "renamed.onnx": ("1x32x32x3 float32", ""),
    "dyn_batch.onnx": ("1x3x32x32 float32", "1 was taken for x (batch x 3 x 32 x 32)"),
    "minus1.onnx": ("1x3x32x32 float32", "1 was taken for x (? x 3 x 32 x 32)"),
    "dyn_batch.tflite": ("1x32x32x3 float32", "1 was taken for in (? x 32 x 32 x 3)"),
    "batch8.onnx": ("8x3x32x32 float32", "a batch of 8 images"),
    "batch4.tflite": ("4x32x32x3 float32", "a batch of 4 images"),
    "f16.onnx": ("1x3x32x32 float16", ""),
    "double.onnx": ("1x3x32x32 float64", ""),
    "uint8.onnx": ("1x3x32x32 uint8", ""),
    "int64.onnx": ("1x3x32x32 int64", ""),
    "f16io.tflite": ("1x32x32x3 float16", ""),
    "int8_q.tflite": ("1x32x32x3 int8", ""),
    "uint8_q.tflite": ("1x32x32x3 uint8", ""),
    "int16_q.tflite": ("1x32x32x3 int16", ""),
    "two_inputs.onnx": ("1x3x32x32 float32, 1 float32", ""),
    "two_inputs.tflite": ("1x32x32x3 float32, 1x32x32x3 float32", ""),
    "audio3d.onnx": ("1x16000 float32", ""),
    "rank2.tflite": ("1x128 float32", ""),
    "nhwc.onnx": ("1x32x48x3 float32", ""),
    "external.onnx": ("1x3x32x32 float32", "its weights were taken from external.onnx.data"),
    "argmax.onnx": ("1x3x32x32 float32", ""),
    "scalar.onnx": ("1x3x32x32 float32", ""),
    "thirdparty_ad01_int8.tflite": ("1x640 int8", "1 was taken for input_1 (? x 640)"),
    "thirdparty_kws_ref_model.tflite": ("1x49x10x1 int8", "1 was taken"),
    "thirdparty_mobilenet_v1_0.25_128_quant.tflite": ("1x128x128x3 uint8", ""),
    "thirdparty_pretrainedResnet_quant.tflite": ("1x32x32x3 int8", "1 was taken"),
    "thirdparty_segmentation.tflite": ("1x256x256x3 float32", ""),
    "thirdparty_vww_96_int8.tflite": ("1x96x96x3 int8", "1 was taken"),
}
# Measured once the open sides are given.
SHAPED = {
    "dyn_all.onnx": ("batch x 3 x h x w", "--input-shape x=1,3,224,224", "x=1,3,48,40", "1x3x48x40 float32"),
    "dyn_none.onnx": ("? x 3 x ? x ?", "--input-shape x=1,3,224,224", "2x3x48x40", "2x3x48x40 float32"),
    "thirdparty_textangle_mobilenetv3.onnx": (
        "? x 3 x ? x ?", "--input-shape x=1,3,224,224", "x=1,3,48,192", "1x3x48x192 float32",
    ),
}  # fmt: skip
REFUSED: dict[str, tuple[int, str]] = {
    "bool.tflite": (6, "Only float32, uint8, int8 and int16 are supported currently, got BOOL"),
    "int32.tflite": (6, "Only float32, uint8, int8 and int16 are supported currently, got INT32"),
    "ir99.onnx": (6, "ONNX IR version 99 and this onnxruntime takes"),
    "opset99.onnx": (6, "opset 99 and this onnxruntime takes opset"),
    "nan.onnx": (6, "NaN or infinite"),
    "zero.onnx": (7, "a side of 0"),
    "customop.onnx": (6, "com.acme:MyFancyOp"),
    "detect_custom.tflite": (6, "TFLite_Detection_PostProcess"),
    "edgetpu.tflite": (2, "compiled for an Edge TPU"),
    "corrupt.tflite": (7, "cut short or damaged; get it again"),
    "truncated.tflite": (7, "cut short or damaged; get it again"),
    "truncated.onnx": (7, "cut short or damaged; get it again"),
    "random.onnx": (7, "random numbers (RandomNormalLike)"),
    "lfs.onnx": (7, "Git LFS pointer, not the file itself; fetch the file by: git lfs pull"),
    "empty.onnx": (7, "is empty; get it again"),
    "external.onnx.data": (7, "neither ONNX nor TFLite"),
}


def command(capsys: pytest.CaptureFixture[str], name: str, *options: str) -> tuple[int, dict[str, Any], str]:
    with pytest.raises(SystemExit) as end:
        main(["measure", str(CASES / name), "--board", "here", "--tier", "screen", "--json", *options])
    code = end.value.code if isinstance(end.value.code, int) else 0
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else {}, captured.err


def shown(fact: Mapping[str, Any]) -> str:
    return ", ".join(f"{'x'.join(map(str, each['shape']))} {each['dtype']}" for each in fact["inputs"])


def test_every_file_has_its_place_here() -> None:
    assert {path.name for path in CASES.iterdir()} == {*MEASURED, *SHAPED, *REFUSED}


@pytest.mark.parametrize("name", MEASURED)
def test_is_measured(this_board: Session, tmp_path: Path, name: str) -> None:
    inputs, note = MEASURED[name]
    model = read(CASES / name)
    facts = model.facts()
    assert shown(facts) == inputs
    assert note in " ".join(facts["notes"])
    assert bool(facts["notes"]) == bool(note)
    outcome = timed(this_board, model, tmp_path)
    assert isinstance(outcome, Measured), outcome
    assert outcome.record["checked"] is True
    assert outcome.summary.median_ms > 0


@pytest.mark.parametrize("name", SHAPED)
def test_is_measured_with_a_shape(here: Board, capsys: pytest.CaptureFixture[str], name: str) -> None:
    sides, option, shape, inputs = SHAPED[name]
    code, fact, err = command(capsys, name)
    assert (code, fact) == (2, {})
    assert sides in err
    assert option in err
    code, fact, err = command(capsys, name, "--input-shape", shape)
    assert code in (0, 5), err  # a busy machine may not settle
    assert shown(fact) == inputs
    assert fact["output_checked"] is True


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_by_a_sentence(here: Board, capsys: pytest.CaptureFixture[str], name: str) -> None:
    expected, says = REFUSED[name]
    code, fact, err = command(capsys, name)
    assert (code, fact) == (expected, {}), err
    assert says in err
    assert err.startswith("edgenas: ")
    assert len(err.splitlines()) == 1


def test_weights_whose_file_is_missing_are_named(
    here: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "external.onnx"
    alone.write_bytes((CASES / alone.name).read_bytes())
    code, _, err = command(capsys, str(alone))
    assert code == 7
    assert "external.onnx.data, which is not beside it" in err

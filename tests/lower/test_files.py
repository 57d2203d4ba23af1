"""What is in the files, and what happens when they cannot or must not be written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import nn

from edgenas.errors import ExportError
from edgenas.lower import LOWERING_VERSION, lower
from edgenas.lower.edgetpu import COMPILER, check_edgetpu, is_compiled, parse_log
from edgenas.lower.onnx import to_onnx
from edgenas.lower.quantize import dynamic_int8, float16, full_int8, read_metadata
from edgenas.lower.tflite import to_tflite
from edgenas.lower.trace import torch_logits
from edgenas.lower.verify import FLOAT32, INT8, UNTRAINED, Limits, Parity, compare, require, run_model, write_checked
from tests.lower.networks import Mixed, with_statistics

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 16, 16), np.float32)
METADATA = {"genes": [1, 2], "normalisation": {"mean": [0.5], "std": [0.25]}, "class_names": ["Katze", "小犬"]}


class Small(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
        )  # fmt: skip


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(Small())


EXAMPLE = torch.zeros(1, 3, 16, 16)


def test_onnx_is_old_enough_for_old_runtimes(network: nn.Module) -> None:
    model = onnx.load_from_string(to_onnx(lower(network, EXAMPLE), METADATA))
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 13)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]


def test_every_operator_is_valid_onnx() -> None:
    graph = lower(with_statistics(Mixed()), torch.zeros(1, 3, 32, 32))
    onnx.checker.check_model(onnx.load_from_string(to_onnx(graph, {})), full_check=True)


def test_metadata_is_in_every_file(network: nn.Module) -> None:
    graph = lower(network, EXAMPLE)
    properties = onnxruntime.InferenceSession(to_onnx(graph, METADATA)).get_modelmeta()
    assert properties.producer_name == "edgenas"
    assert properties.custom_metadata_map["genes"] == "[1, 2]"
    assert properties.custom_metadata_map["lowering_version"] == str(LOWERING_VERSION)
    single = to_tflite(graph, METADATA)
    for model in (single, float16(single), dynamic_int8(single), full_int8(graph, METADATA, IMAGES)):
        read = read_metadata(model)
        assert read.pop("producer").startswith("edgenas ")
        assert read == {**METADATA, "lowering_version": LOWERING_VERSION}


def test_the_same_network_gives_the_same_bytes(network: nn.Module) -> None:
    def files() -> list[bytes]:
        graph = lower(network, EXAMPLE)
        single = to_tflite(graph, METADATA)
        return [to_onnx(graph, METADATA), single, float16(single), dynamic_int8(single), full_int8(graph, {}, IMAGES)]

    assert files() == files()


def test_integers_go_in_and_out_of_full_int8(network: nn.Module) -> None:
    interpreter = Interpreter(model_content=full_int8(lower(network, EXAMPLE), {}, IMAGES))
    ends = interpreter.get_input_details() + interpreter.get_output_details()
    assert [end["dtype"] for end in ends] == [np.int8, np.int8]


@pytest.mark.parametrize(
    "images",
    [IMAGES[:0], IMAGES[:, :, :8], IMAGES[0], IMAGES.astype(np.float64), np.full_like(IMAGES, np.nan)],
    ids=["none", "size", "rank", "type", "nan"],
)
def test_bad_calibration_images_are_refused(network: nn.Module, images: NDArray[Any]) -> None:
    with pytest.raises(ExportError, match="calibration images"):
        full_int8(lower(network, EXAMPLE), {}, images)


def test_a_checked_file_is_written_whole(network: nn.Module, tmp_path: Path) -> None:
    model, path = to_tflite(lower(network, EXAMPLE), {}), tmp_path / "new" / "model.tflite"
    expected = torch_logits(network, IMAGES)
    parity = write_checked(path, model, IMAGES, expected, FLOAT32, labels=expected.argmax(axis=1))
    assert path.read_bytes() == model
    assert parity.images == 8
    assert parity.accuracy == parity.torch_accuracy == 1
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600


@pytest.mark.parametrize("limits", [FLOAT32, INT8])
def test_a_file_that_disagrees_is_not_kept(network: nn.Module, tmp_path: Path, limits: Limits) -> None:
    model = to_onnx(lower(network, EXAMPLE), {})
    wrong = -torch_logits(network, IMAGES)
    with pytest.raises(ExportError, match="not kept") as caught:
        write_checked(tmp_path / "model.onnx", model, IMAGES, wrong, limits)
    assert caught.value.exit_code == 6
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", [b"", b"junk" * 9, b"....TFL3" + bytes(64)], ids=["empty", "onnx", "tflite"])
def test_a_damaged_file_is_not_kept(model: bytes, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not run"):
        write_checked(tmp_path / "model", model, IMAGES, np.zeros((8, 2), np.float32), UNTRAINED)
    assert not list(tmp_path.iterdir())


def test_images_of_the_wrong_size_are_refused(network: nn.Module) -> None:
    graph = lower(network, EXAMPLE)
    for model in (to_onnx(graph, {}), to_tflite(graph, {})):
        with pytest.raises(ExportError, match="give a multiple of 1 of shape"):
            run_model(model, IMAGES[:, :, :8])


def test_a_full_disk_leaves_nothing(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "model.tflite"
    path.write_bytes(b"earlier")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        write_checked(path, to_tflite(lower(network, EXAMPLE), {}), IMAGES, torch_logits(network, IMAGES), FLOAT32)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("model.tflite", b"earlier")]


def test_nan_logits_never_pass() -> None:
    parity = compare(np.full((2, 3), np.nan, np.float32), np.ones((2, 3), np.float32))
    assert parity.relative_error == float("inf")


def test_edgetpu_wants_integers_and_known_operators(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    graph = lower(network, EXAMPLE)
    good = check_edgetpu(full_int8(graph, {}, IMAGES))
    assert good.ready
    assert good.problems == ()
    assert f"{COMPILER} is not on PATH" in good.note
    assert good.operators == {"CONV_2D": 1, "FULLY_CONNECTED": 1, "MEAN": 1}
    assert any("is not int8" in problem for problem in check_edgetpu(to_tflite(graph, {})).problems)
    swish = lower(with_statistics(nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.Hardswish())), EXAMPLE)
    assert any("HARD_SWISH" in problem for problem in check_edgetpu(full_int8(swish, {}, IMAGES)).problems)


LOG = """Edge TPU Compiler version 16.0.384591198
Model compiled successfully in 1013 ms.

Input model: model.tflite
Output model: model_edgetpu.tflite
On-chip memory used for caching model parameters: 4.50MiB
On-chip memory remaining for caching model parameters: 3.50MiB
Off-chip memory used for streaming uncached model parameters: 128.00KiB
Number of Edge TPU subgraphs: 1
Total number of operations: 4
Operation log: model_edgetpu.log

Operator                       Count      Status

CONV_2D                        2          Mapped to Edge TPU
HARD_SWISH                     1          Operation not supported
FULLY_CONNECTED                1          Mapped to Edge TPU
"""


def test_the_compilers_log_is_read() -> None:
    compilation = parse_log(LOG)
    assert (compilation.on_tpu, compilation.on_cpu, compilation.subgraphs) == (3, 1, 1)
    assert (compilation.on_chip_bytes, compilation.streamed_bytes) == (round(4.5 * 2**20), 128 * 1024)
    assert compilation.cpu_operators == {"HARD_SWISH": "Operation not supported"}
    with pytest.raises(ExportError, match="no table"):
        parse_log("segmentation fault")


def test_the_compiler_runs_where_it_is_installed(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stand-in that answers like the compiler, as that is for x86-64 only."""
    compiler = tmp_path / "bin" / COMPILER
    compiler.parent.mkdir()
    said = f"cat <<'END'\n{LOG}END\n"
    compiler.write_text(f'#!/bin/sh\n(cat "$4"; printf edgetpu-custom-op) > "$3/model_edgetpu.tflite"\n{said}')
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(compiler.parent), prepend=os.pathsep)
    model = full_int8(lower(network, EXAMPLE), {}, IMAGES)
    report = check_edgetpu(model, tmp_path / "model_edgetpu.tflite")
    assert report.compilation == parse_log(LOG)
    assert not report.ready
    assert (tmp_path / "model_edgetpu.tflite").read_bytes() == model + b"edgetpu-custom-op"
    assert is_compiled((tmp_path / "model_edgetpu.tflite").read_bytes())
    assert not is_compiled(model)
    compiler.write_text("#!/bin/sh\necho 'model not quantized' >&2; exit 1\n")
    with pytest.raises(ExportError, match="model not quantized"):
        check_edgetpu(model)
    compiler.write_text(f'#!/bin/sh\ncp "$4" "$3/model_edgetpu.tflite"\n{said}')
    with pytest.raises(ExportError, match="nothing in the model that the Edge TPU can run"):
        check_edgetpu(model)


def test_of_few_images_one_may_be_put_elsewhere() -> None:
    require(Parity(40, 0.0, 39 / 40), INT8, "a model")
    require(Parity(200, 0.0, 196 / 200), INT8, "a model")
    require(Parity(200, 0.0, 0.9, accuracy=0.79, torch_accuracy=0.8), INT8, "a model")
    with pytest.raises(ExportError, match=r"agrees on 90\.0% of 200 images, not 98% \(1\.5 points less accurate\)"):
        require(Parity(200, 0.0, 0.9, accuracy=0.785, torch_accuracy=0.8), INT8, "a model")
    with pytest.raises(ExportError, match=r"0\.0 points more accurate"):
        require(Parity(200, 0.0, 0.89, accuracy=0.8, torch_accuracy=0.8), INT8, "a model")
    for parity in (Parity(40, 0.0, 38 / 40), Parity(200, 0.0, 195 / 200), Parity(1000, 0.0, 0.979)):
        with pytest.raises(ExportError, match="not 98%"):
            require(parity, INT8, "a model")


def test_an_image_between_two_classes_does_not_set_the_scale() -> None:
    """Its logits are next to 0, and so their rounding is much of them."""
    expected = np.array([[4.0, -4.0], [5.0, -5.0], [-3.0, 3.0], [0.002, -0.002]], np.float32)
    rounded = expected + np.float32(0.001)
    parity = compare(rounded, expected)
    assert parity.relative_error == pytest.approx(0.001 / 3.5, rel=1e-3)
    assert compare(rounded[3:], expected[3:]).relative_error == pytest.approx(0.5, rel=1e-3)  # alone it does
    wrong = expected.copy()
    wrong[3] = [4.0, -4.0]
    assert compare(wrong, expected).relative_error > 1
    assert compare(np.zeros_like(expected), expected).relative_error == 1

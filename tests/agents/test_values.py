"""Golden values in a model's own types: any number of inputs and outputs, of any shape and type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx.helper as oh
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from tests.agents.conftest import PLAN, AgentProcess, Reply, StartAgent
from tests.agents.test_boards import calls, on_path, tool, tools  # noqa: F401  # a fixture
from tests.agents.test_old_python import old_python  # noqa: F401  # a fixture
from tests.lower.made import add_scaled, end, one, onnx_model, small_cnn, tflite_model

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

Arrays = Sequence[NDArray[Any]]
X, N = np.array([[0.5, 1, 2], [3, 4, -5]], np.float32), np.array([[1, 0, 2], [0, 0, 3]], np.int64)
ADDED: Arrays = [X + N, np.array(6, np.int64)]


def described(arrays: Arrays, names: Sequence[str], scale: float = 0.0, zero_point: int = 0) -> list[dict[str, Any]]:
    return [
        {"name": name, "dtype": each.dtype.name, "shape": list(each.shape), "scale": scale, "zero_point": zero_point}
        for name, each in zip(names, arrays, strict=True)
    ]


def values(arrays: Arrays) -> bytes:
    return b"".join(np.ascontiguousarray(each).tobytes() for each in arrays)


def request(
    agent: AgentProcess, model: bytes, form: str, inputs: Arrays, outputs: Arrays, error: float = 1e-3, **scale: Any
) -> Reply:
    """A `time` request; files are put in place."""
    golden = {
        "input": agent.put("in", values(inputs)), "output": agent.put("out", values(outputs)), "relative_error": error,
        "inputs": described(inputs, ["x", "n"][: len(inputs)]),
        "outputs": described(outputs, ["y", "total"][: len(outputs)], **scale),
    }  # fmt: skip
    file = {**agent.put("model", model), "format": form}
    return {"model": file, "golden": golden, "plan": PLAN, "threads": 1, "timeout_s": 60, "token": agent.leased()}


def test_several_inputs_and_outputs_of_different_types(start: StartAgent) -> None:
    agent = start()
    asked = request(agent, add_scaled(), "onnx", [X, N], ADDED)
    assert agent.result("time", **asked)["golden_error"] == 0
    for wrong in ([ADDED[0] * 1.01, ADDED[1]], [ADDED[0], ADDED[1] + 1]):
        asked["golden"]["output"] = agent.put("wrong", values(wrong))
        refused = agent.refusal("time", **asked)
        assert refused["kind"] == "wrong"
        assert refused["detail"]["golden_error"] == pytest.approx(0.01 if wrong[1] == 6 else 1.0, rel=0.02)


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_values_are_taken_as_they_are(start: StartAgent, form: str) -> None:
    agent = start()
    if form == "onnx":
        array = np.array([[True, False, False]])
        model, output = one("Not", [1, 3], TensorProto.BOOL), ~array
    else:
        array = np.array([[-7, 0, 100]], np.int8)
        model, output = tflite_model((1, 3), 9, scale=0.25), np.array([[0, 0, 100]], np.int8)
    asked = request(agent, model, form, [array], [output], scale=0.25 if form == "tflite" else 0.0)
    assert agent.result("time", **asked)["golden_error"] == 0


@pytest.mark.parametrize(("steps", "right"), [(3, True), (12, False)])
def test_three_steps_of_a_grid_are_always_allowed(start: StartAgent, steps: int, right: bool) -> None:
    """Else a sure answer of two steps, as of a softmax over a thousand classes, would have to be met exactly."""
    agent = start()
    array = np.array([[2, 1, 0]], np.int8)
    model = tflite_model((1, 3), 9, scale=1 / 256)
    asked = request(agent, model, "tflite", [array], [array + np.int8(steps)], 0.1, scale=1 / 256)
    if right:
        assert agent.result("time", **asked)["golden_error"] <= 0.1
    else:
        assert agent.refusal("time", **asked)["kind"] == "wrong"


def test_whole_numbers_must_be_the_same_but_for_a_few_of_many(start: StartAgent) -> None:
    agent = start()
    array = np.arange(4000, dtype=np.int32).reshape(1, -1)
    model = one("Identity", [1, 4000], TensorProto.INT32)
    for different, right in ((0, True), (4, True), (5, False)):
        output = array.copy()
        output[0, :different] += 1
        asked = request(agent, model, "onnx", [array], [output])
        assert agent.ask("time", **asked)["ok"] is right
        agent.result("release", token=asked["token"])


def test_the_first_run_is_what_is_compared(start: StartAgent, tmp_path: Path) -> None:
    """Models that remember answer otherwise the second time."""
    package = tmp_path / "fakes" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(REMEMBERING)
    agent = start(PYTHONPATH=str(package.parent), PYTHONDONTWRITEBYTECODE="1")
    one_number = np.array([1.0], np.float32)
    asked = request(agent, b"no real model", "onnx", [one_number], [one_number])
    assert agent.result("time", **asked)["golden_error"] == 0


REMEMBERING = """
import numpy
__version__ = "9.9.9"
def set_default_logger_severity(level): pass
class SessionOptions: pass
class ExecutionMode: ORT_SEQUENTIAL = 0
class Tensor:
    def __init__(self, name): self.name, self.shape, self.type = name, [1], "tensor(float)"
class Binding:
    count = 0
    def bind_cpu_input(self, name, values): pass
    def bind_output(self, name): pass
    def copy_outputs_to_cpu(self): return [numpy.array([self.count], "float32")]
class InferenceSession:
    def __init__(self, path, options, providers): pass
    def get_inputs(self): return [Tensor("x")]
    def get_outputs(self): return [Tensor("y")]
    def get_providers(self): return ["CPUExecutionProvider"]
    def io_binding(self): return Binding()
    def run_with_iobinding(self, binding): binding.count += 1
"""


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"inputs": [{}]}, "request"),
        ({"inputs": "x"}, "request"),
        ({"inputs": [None]}, "request"),
        ({"inputs": described([X], ["x"])}, "request"),  # fewer bytes than were sent
        ({"inputs": [{**described([X], ["x"])[0], "shape": [2**30, 2**30]}]}, "request"),
        ({"inputs": [{**described([X], ["x"])[0], "shape": [-1]}]}, "request"),
        ({"inputs": [{**described([X], ["x"])[0], "shape": [True]}]}, "request"),
        ({"inputs": [{**described([X], ["x"])[0], "dtype": "object"}]}, "request"),
        ({"inputs": [{**described([X], ["x"])[0], "dtype": "datetime64"}]}, "request"),
        ({"inputs": [{**described([X], ["x"])[0], "scale": True}]}, "request"),
        ({"outputs": [{**described(ADDED, "ab")[0], "scale": 1e300}]}, "request"),
        ({"outputs": described([ADDED[0]], ["y"])}, "request"),
        ({"outputs": described([ADDED[0], ADDED[0]], ["y", "z"])}, "request"),
    ],
)
def test_what_golden_values_may_not_be(start: StartAgent, change: dict[str, Any], kind: str) -> None:
    agent = start()
    asked = request(agent, add_scaled(), "onnx", [X, N], ADDED)
    assert agent.refusal("time", **{**asked, "golden": {**asked["golden"], **change}})["kind"] == kind
    assert agent.result("time", **asked)["golden_error"] == 0


def test_other_inputs_than_the_model_has_are_reported(start: StartAgent) -> None:
    agent = start()
    asked = request(agent, one("Relu", [2, 3]), "onnx", [X, N], ADDED)
    refused = agent.refusal("time", **asked)
    assert (refused["kind"], refused["error"]) == ("request", "the model has 1 inputs; 2 were sent")
    asked["golden"].update(inputs=described([N], ["x"]), input=agent.put("n", values([N])))
    assert agent.refusal("time", **asked)["kind"] == "model"  # of another type: the runtime says so


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (one("Identity", [1, 3], TensorProto.STRING), "is tensor(string); no such input can be made up"),
        (small_cnn((1, 3, "h", "w")), "has no fixed size: [1, 3, 'h', 'w']"),
        (one("Fancy", [1, 3], domain="com.acme"), "com.acme:Fancy"),
    ],
)
def test_models_that_cannot_be_timed(start: StartAgent, model: bytes, says: str) -> None:
    agent = start()
    file = {**agent.put("model", model), "format": "onnx"}
    refused = agent.refusal("time", model=file, plan=PLAN, token=agent.leased(), timeout_s=60)
    assert refused["kind"] == "model"
    assert says in refused["error"]


def test_the_end_of_what_a_runtime_says_is_kept(start: StartAgent) -> None:
    agent = start()
    newer = [
        (onnx_model([oh.make_node("Relu", ["x"], ["y"])], [end("x", [1])], [end("y", [1])], ir_version=99), "max supp"),
        (
            onnx_model([oh.make_node("Relu", ["x"], ["y"])], [end("x", [1])], [end("y", [1])], opsets={"": 99}),
            "till op",
        ),
    ]
    for model, says in newer:
        file = {**agent.put("a model with a name", model), "format": "onnx"} if False else {**agent.put("m", model)}
        token = agent.leased()
        refused = agent.refusal("time", model={**file, "format": "onnx"}, plan=PLAN, token=token, timeout_s=60)
        agent.result("release", token=token)
        assert says in refused["error"]
        assert "99" in refused["error"]
        assert "onnxruntime_src" not in refused["error"]
        assert len(refused["error"]) < 400  # that a client shows


TRTEXEC = """
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v$VERSION] # trtexec"
for argument in "$@"; do case "$argument" in
    --saveEngine=*) echo engine > "${argument#*=}";;
    --loadInputs=x:input-0,n:input-1) [ $(wc -c < input-0) = 24 ] && [ $(wc -c < input-1) = $SIZE ] && loaded=1;;
    --exportTimes=*) echo '[{"latencyMs": 1.25}]' > "${argument#*=}";;
    --exportOutput=*)
      [ "$loaded" ] && echo "[{\\"name\\": \\"total\\", \\"values\\": [6]}," \\
        "{\\"name\\": \\"y\\", \\"values\\": [$Y]}]" \\
        > "${argument#*=}";;
esac; done; sleep 0.01
"""


@pytest.mark.parametrize(("version", "size"), [("8201", 24), ("100300", 48)])
def test_trtexec_takes_several_inputs(start: StartAgent, tools: Path, version: str, size: int) -> None:  # noqa: F811
    """TensorRT before version 10 has no integers of 64 bits; it gives outputs in an order of its own."""
    tool(tools, "trtexec", TRTEXEC)
    numbers = ", ".join(map(str, ADDED[0].ravel().tolist()))
    agent = start(PATH=on_path(tools), VERSION=version, SIZE=str(size), Y=numbers)
    (name,) = {"trtexec", "tensorrt"} & {each["name"] for each in agent.result("info")["runtimes"]}
    asked = {**request(agent, add_scaled(), "onnx", [X, N], ADDED), "runtime": name}
    assert agent.result("time", **asked)["golden_error"] == 0
    assert len([call for call in calls(tools) if "--loadInputs" in call]) == 1


def test_an_old_interpreter_and_runtime(start: StartAgent, old_python: str) -> None:  # noqa: F811
    agent = start(python=[old_python])
    asked = request(agent, add_scaled(), "onnx", [X, N], ADDED)
    assert agent.result("time", **asked)["golden_error"] == 0
    assert agent.result("time", **{**asked, "golden": None})["golden_error"] is None
    agent.result("release", token=asked["token"])
    for dtype, kind in ((np.float16, TensorProto.FLOAT16), (np.uint8, TensorProto.UINT8), (np.bool_, TensorProto.BOOL)):
        array = np.ones((1, 3), dtype)
        asked = request(agent, one("Identity", [1, 3], kind), "onnx", [array], [array])
        assert agent.result("time", **asked)["golden_error"] == 0
        agent.result("release", token=asked["token"])

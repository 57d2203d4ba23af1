"""What only some boards have, played by a tree of files in place of /sys and by small programs on PATH."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from tests.agents.conftest import PLAN, Models, StartAgent, eventually, small_request

FREQUENCY = "devices/system/cpu/cpufreq/policy0"


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    return tmp_path / "sys"


def files(root: Path, **contents: str) -> None:
    """files(root, **{"a/b": "text"}) writes them below `root`."""
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    return folder


def tool(folder: Path, name: str, script: str) -> None:
    """An executable called `name` that notes its arguments in `folder`/calls and then does `script` (sh)."""
    path = folder / name
    path.write_text(f'#!/bin/sh\necho {name} "$@" >> {folder}/calls\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


def on_path(folder: Path) -> str:
    return f"{folder}:{os.environ['PATH']}"


def test_state_of_a_raspberry_pi(start: StartAgent, sysfs: Path, tools: Path, tmp_path: Path) -> None:
    files(
        sysfs,
        **{
            f"{FREQUENCY}/scaling_governor": "ondemand\n",
            f"{FREQUENCY}/scaling_cur_freq": "600000\n",
            f"{FREQUENCY}/cpuinfo_max_freq": "1800000\n",
            "class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "class/thermal/thermal_zone0/temp": "48686\n",
        },
    )
    files(
        tmp_path / "proc",
        **{"device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0", "device-tree/serial-number": "1\0"},
    )
    tool(tools, "vcgencmd", "echo throttled=0x50005")
    info = start("--sysfs", str(sysfs), "--procfs", str(tmp_path / "proc"), PATH=on_path(tools)).result("info")
    state = info["state"]
    assert info["model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert info["boot_id"] == "unknown"
    assert (state["governor"], state["clocks_mhz"], state["max_clocks_mhz"]) == (["ondemand"], [600], [1800])
    assert state["temperature_c"] == {"cpu-thermal": 48.686}
    assert state["throttled"] == 0x50005
    assert state["notes"] == ["under-voltage now", "throttled now", "the governor is ondemand, not performance"]


def test_temperatures_that_are_none_are_left_out(start: StartAgent, sysfs: Path) -> None:
    files(
        sysfs,
        **{
            "class/thermal/thermal_zone0/type": "PMIC-Die",  # a TX2's says 100 always
            "class/thermal/thermal_zone0/temp": "100000",
            "class/thermal/thermal_zone1/type": "cpu",
            "class/thermal/thermal_zone1/temp": "40000",
            "class/thermal/thermal_zone2/type": "cpu",
            "class/thermal/thermal_zone2/temp": "41000",
            "class/thermal/thermal_zone3/temp": "nonsense",
            "class/apex/apex_0/temp": "52300",
        },
    )
    state = start("--sysfs", str(sysfs)).result("info")["state"]
    assert state["temperature_c"] == {"cpu": 40.0, "cpu thermal_zone2": 41.0, "apex_0": 52.3}
    assert (state["governor"], state["throttled"]) == (None, None)


def test_clocks_are_raised_for_timing_and_put_back(faulty: StartAgent, sysfs: Path, tools: Path) -> None:
    files(sysfs, **{f"{FREQUENCY}/scaling_governor": "schedutil"})
    governor = sysfs / FREQUENCY / "scaling_governor"
    tool(tools, "nvpmodel", 'if [ "$1" = -q ]; then printf "NV Power Mode: MAXP_CORE_ARM\\n3\\n"; fi')
    tool(tools, "jetson_clocks", "")
    agent = faulty("", "--sysfs", str(sysfs), PATH=on_path(tools))
    store = agent.folder / "jetson_clocks.conf"
    token, request = agent.leased(), small_request(agent)
    assert agent.result("time", token=token, **request)["before"]["governor"] == ["schedutil"]
    assert calls(tools) == []
    for _ in range(2):  # raised once, until the lease ends
        result = agent.result("time", token=token, prepare=True, **request)
        assert result["before"]["governor"] == ["performance"]
        assert result["notes"][:-1] == []
    raised = ["nvpmodel -q", f"jetson_clocks --store {store}", "nvpmodel -m 0", "jetson_clocks "]
    assert [call.rstrip() for call in calls(tools)] == [call.rstrip() for call in raised]
    agent.result("release", token=token)
    assert governor.read_text() == "schedutil"
    assert calls(tools)[4:] == [f"jetson_clocks --restore {store}", "nvpmodel -m 3"]


@pytest.mark.parametrize("end", ["connection", "terminated", "killed"])
def test_clocks_are_put_back_however_the_agent_ends(faulty: StartAgent, sysfs: Path, end: str) -> None:
    files(sysfs, **{f"{FREQUENCY}/scaling_governor": "schedutil"})
    governor = sysfs / FREQUENCY / "scaling_governor"
    agent = faulty("", "--sysfs", str(sysfs))
    agent.result("time", token=agent.leased(), prepare=True, **small_request(agent))
    assert governor.read_text() == "performance"
    if end == "connection":
        agent.hang_up()
    else:
        agent.process.send_signal(signal.SIGTERM if end == "terminated" else signal.SIGKILL)
        agent.process.wait()
    if end == "killed":  # then the next agent does it
        assert governor.read_text() == "performance"
        faulty("", "--sysfs", str(sysfs)).result("ping")
    assert governor.read_text() == "schedutil"


def test_clocks_are_put_back_though_the_agent_is_killed_at_it(faulty: StartAgent, sysfs: Path, tools: Path) -> None:
    """Tools take seconds, longer than a program that was interrupted waits; the next agent waits for them."""
    files(sysfs, **{f"{FREQUENCY}/scaling_governor": "schedutil"})
    governor, going = sysfs / FREQUENCY / "scaling_governor", tools / "going"
    # The first restoring lasts until the test says so, later ones are done at once.
    wait = f"touch {going}; while [ -e {going} ]; do sleep 0.05; done; touch {tools}/done"
    script = f'case "$1" in (--restore) [ -e {tools}/done ] || {{ {wait}; }};; esac'
    tool(tools, "jetson_clocks", script)
    agent = faulty("", "--sysfs", str(sysfs), PATH=on_path(tools))
    agent.result("time", token=agent.leased(), prepare=True, **small_request(agent))
    assert agent.process.stdin is not None
    agent.process.stdin.close()
    assert eventually(going.exists)
    agent.process.kill()
    agent.process.wait()
    other = faulty("", "--sysfs", str(sysfs), PATH=on_path(tools))
    request = other.send("time", token=other.leased(), prepare=True, **small_request(other))
    going.unlink()
    reply = other.reply()
    assert (reply["id"], reply["ok"]) == (request, True)
    assert (tools / "done").exists(), "what was begun came to its end, before the clocks were raised again"
    assert governor.read_text() == "performance"


def test_what_may_not_be_changed_is_noted(faulty: StartAgent, sysfs: Path, tools: Path) -> None:
    (sysfs / FREQUENCY / "scaling_governor").mkdir(parents=True)  # nothing can be written there, even by root
    tool(tools, "jetson_clocks", "exit 1")
    agent = faulty("", "--sysfs", str(sysfs), PATH=on_path(tools))
    notes = agent.result("time", token=agent.leased(), prepare=True, **small_request(agent))["notes"]
    assert any("jetson_clocks failed" in note for note in notes)
    assert any("may not be written" in note for note in notes)


def test_energy_is_mean_power_times_time(faulty: StartAgent, sysfs: Path) -> None:
    rail = "bus/i2c/drivers/ina3221x/0-0041/iio:device1"
    other = "bus/i2c/drivers/ina3221x/0-0040/iio:device0"
    files(
        sysfs,
        **{
            f"{rail}/in_power0_input": "5000", f"{rail}/rail_name_0": "VDD_IN",
            f"{rail}/in_power1_input": "900", f"{rail}/rail_name_1": "VDD_CPU",
            f"{other}/in_power0_input": "700", f"{other}/rail_name_0": "VDD_SYS_GPU",
        },
    )  # fmt: skip
    agent = faulty("", "--sysfs", str(sysfs), FAKE_SLEEP_S="0.02")
    plan = {**PLAN, "min_repeat_ms": 250}
    result = agent.result("time", token=agent.leased(), **{**small_request(agent), "plan": plan})
    samples_ns = [ns for repeat in result["samples_ns"] for ns in repeat]
    assert len(result["power_w"]) >= 3
    assert set(result["power_w"]) == {5.0}
    assert result["power_rail"] == "VDD_IN"
    assert result["energy_mj"] == pytest.approx(5.0 * sum(samples_ns) / len(samples_ns) * 1e-6)  # W x ns = nJ


def test_cuda_that_is_not_there_is_no_cpu_timing(faulty: StartAgent, tmp_path: Path) -> None:
    agent = faulty("no cuda")
    (tmp_path / "fakes" / "onnxruntime" / "capi").mkdir()
    (tmp_path / "fakes" / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so").touch()
    names = [runtime["name"] for runtime in agent.result("info")["runtimes"]]
    assert names[:2] == ["onnxruntime", "onnxruntime+cuda"]
    refused = agent.refusal("time", token=agent.leased(), runtime="onnxruntime+cuda", **small_request(agent))
    assert refused["kind"] == "hardware"


def test_cuda(faulty: StartAgent, tmp_path: Path) -> None:
    agent = faulty("")
    (tmp_path / "fakes" / "onnxruntime" / "capi").mkdir()
    (tmp_path / "fakes" / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so").touch()
    result = agent.result("time", token=agent.leased(), runtime="onnxruntime+cuda", **small_request(agent))
    assert result["runtime"]["name"] == "onnxruntime+cuda"


FAKE_TFLITE = """
import os, numpy
class Interpreter:
    def __init__(self, model_path, num_threads, experimental_delegates=None):
        self.factor = 3 if experimental_delegates == ["delegate of " + os.environ["EDGETPU"]] else 1
    def allocate_tensors(self): pass
    def details(self):
        return [{"index": 0, "shape": [1, 2], "dtype": numpy.int8, "quantization": (0.5, -1)}]
    get_input_details = get_output_details = details
    def set_tensor(self, index, value): self.value = value
    def invoke(self): pass
    def get_tensor(self, index): return ((self.value.astype(int) + 1) * self.factor - 1).astype(numpy.int8)
def load_delegate(path): return "delegate of " + path
"""


def test_edge_tpu(start: StartAgent, sysfs: Path, tmp_path: Path) -> None:
    import numpy as np

    fakes, library = tmp_path / "fakes", tmp_path / "lib" / "libedgetpu.so.1"
    for package in ("tflite_runtime", "ai_edge_litert"):
        files(fakes / package, **{"__init__.py": "__version__ = '2.5.0'", "interpreter.py": FAKE_TFLITE})
    files(tmp_path, **{"lib/libedgetpu.so.1": ""})
    environment = {"PYTHONPATH": str(fakes), "LD_LIBRARY_PATH": str(library.parent), "EDGETPU": str(library)}
    flags = ("--sysfs", str(sysfs))
    names = [runtime["name"] for runtime in start(*flags, **environment).result("info")["runtimes"]]
    assert "tflite-runtime" in names
    assert "libedgetpu" not in names  # a library without a device is none
    files(sysfs, **{"bus/usb/devices/1-1/idVendor": "18d1\n", "bus/usb/devices/1-1/idProduct": "9302\n"})
    agent = start(*flags, **environment)
    golden = {
        "input": agent.put("in", np.array([1.5, -2], "<f4").tobytes()),
        "output": agent.put("out", np.array([4.5, -6], "<f4").tobytes()),  # three times: the delegate has worked
        "relative_error": 1e-6,
    }
    request = {
        "token": agent.leased(),
        "golden": golden,
        "plan": PLAN,
        "threads": 1,
        "runtime": "libedgetpu",
    }
    compiled = {**agent.put("compiled.tflite", b"..edgetpu-custom-op.."), "format": "tflite"}
    plain = {**agent.put("plain.tflite", b"...."), "format": "tflite"}
    assert agent.result("time", model=compiled, **request)["golden_error"] == 0
    refused = agent.refusal("time", model=plain, **request)
    assert (refused["kind"], "edgetpu_compiler" in refused["error"]) == ("model", True)
    chosen = agent.result("time", model=compiled, **{**request, "runtime": None})
    assert chosen["runtime"]["name"] == "libedgetpu"


TRTEXEC = """
for argument in "$@"; do case "$argument" in
    --saveEngine=*) echo engine > "${argument#*=}";;
    --loadEngine=*) [ -s "${argument#*=}" ] || exit 1;;
    --loadInputs=input:*) [ -s "${argument#*:}" ] || exit 1; loaded=1;;
    --exportTimes=*)
      echo '[{"startInMs": 0, "latencyMs": 1.25}, {"startInMs": 2, "latencyMs": 1.5}]' > "${argument#*=}";;
    --exportOutput=*)
      [ "$loaded" ] && echo "[{\\"name\\": \\"y\\", \\"values\\": [$LOGITS]}]" > "${argument#*=}";;
esac; done; sleep 0.01
"""


def test_trtexec(start: StartAgent, models: Models, tools: Path) -> None:
    tool(tools, "trtexec", TRTEXEC)
    first = ", ".join(str(float(value)) for value in models.logits[0])
    agent = start(PATH=on_path(tools), LOGITS=first)
    request = models.request(agent, "onnx")
    one = models.logits[:1].astype("<f4")
    request["golden"]["input"] = agent.put("one.f32", models.input("onnx")[: 3 * 32 * 32 * 4])
    request["golden"]["output"] = agent.put("one.out.f32", one.tobytes())
    request = {**request, "token": agent.leased(), "runtime": "tensorrt"}
    result = agent.result("time", **request)
    assert result["samples_ns"] == [[1250000, 1500000], [1250000, 1500000]]
    assert result["golden_error"] < 1e-6
    assert len([call for call in calls(tools) if "--saveEngine" in call]) == 1  # built once, outside of what is timed
    assert not (agent.folder / "engine").exists()
    request["golden"]["output"] = agent.put("wrong.f32", (one * 2).tobytes())
    assert agent.refusal("time", **request)["kind"] == "wrong"


BENCHMARK = """
echo 'INFO: count=12 first=80 curr=40 min=39 max=80 avg=45.5 std=3' >&2
echo 'INFO: count=2000 first=41 curr=40 min=39 max=60 avg=40.25 std=1' >&2
echo 'INFO: Inference timings in us: Init: 1234, First inference: 567, Warmup (avg): 45.5, Inference (avg): 40.25' >&2
"""


def test_benchmark_model(start: StartAgent, models: Models, tools: Path) -> None:
    tool(tools, "benchmark_model", BENCHMARK)
    agent = start(PATH=on_path(tools))
    request = {**models.request(agent, "tflite"), "token": agent.leased(), "runtime": "benchmark_model"}
    assert agent.refusal("time", **request)["kind"] == "runtime"  # it cannot show that the answer is right
    result = agent.result("time", **{**request, "golden": None})
    assert result["samples_ns"] == [[40250], [40250]]
    assert result["averaged_runs"] == [2000, 2000]
    assert (result["init_ns"], result["first_ns"]) == (1234000, 567000)


@pytest.mark.parametrize(
    ("script", "kind"),
    [("kill -9 $$", "crash"), ("exit 1", "model"), ("echo nonsense", "runtime"), ("sleep 99", "timeout")],
)
def test_tools_that_fail(start: StartAgent, models: Models, tools: Path, script: str, kind: str) -> None:
    tool(tools, "benchmark_model", script)
    agent = start(PATH=on_path(tools))
    request = {**models.request(agent, "tflite"), "runtime": "benchmark_model", "golden": None, "timeout_s": 2}
    assert agent.refusal("time", token=agent.leased(), **request)["kind"] == kind
    assert agent.result("ping") == {}

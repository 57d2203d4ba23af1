"""Real models under the runtimes that are installed: what is timed, checked before it is timed, and reported."""

from __future__ import annotations

import hashlib
import importlib.util
import statistics
from typing import Any

import numpy as np
import pytest

from edgenas.board.session import agent
from tests.agents.conftest import PLAN, Models, StartAgent, small_request

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

RUNTIME = {"onnx": "onnxruntime", "tflite": "ai-edge-litert", "int8": "ai-edge-litert"}


@pytest.mark.parametrize("fresh", [False, True], ids=["forked", "fresh"])
@pytest.mark.parametrize("form", ["onnx", "tflite", "int8"])
def test_times_a_model(start: StartAgent, models: Models, form: str, fresh: bool) -> None:
    agent = start()
    request = models.request(agent, form, relative_error=0.2 if form == "int8" else 1e-4)
    result = agent.result("time", token=agent.leased(), fresh=fresh, affinity=[0], **request)
    assert len(result["samples_ns"]) == PLAN["repeats"]
    for samples_ns in result["samples_ns"]:
        assert len(samples_ns) >= 3
        assert all(isinstance(ns, int) and 1e3 < ns < 1e10 for ns in samples_ns)
        assert sum(samples_ns) >= 1e6 * (1 - 1e-3)  # the repeat lasted 1 ms inside its samples
    assert result["runtime"]["name"] == RUNTIME[form]
    assert (result["affinity"], result["threads"]) == ([0], 1)
    assert 0 <= result["golden_error"] <= request["golden"]["relative_error"]
    assert result["init_ns"] > 0
    assert result["first_ns"] > 0
    assert result["peak_memory_kb"] > result["base_memory_kb"] > 1000
    assert result["before"]["monotonic_s"] < result["after"]["monotonic_s"]
    assert (result["energy_mj"], result["power_w"]) == (None, None)  # no rail here
    assert result["child"] == ("fresh" if fresh else "fork")


def test_many_jobs_from_one_worker(start: StartAgent, models: Models) -> None:
    agent = start()
    token, request = agent.leased(), models.request(agent, "onnx")
    for _ in range(20):
        assert agent.result("time", token=token, **request)["golden_error"] < 1e-4


def test_more_threads_reach_the_runtime(start: StartAgent, models: Models) -> None:
    agent = start()
    token = agent.leased()
    for form in ("onnx", "tflite"):
        result = agent.result("time", token=token, **{**models.request(agent, form), "threads": 2})
        assert result["threads"] == 2


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_a_wrong_answer_is_an_error(start: StartAgent, models: Models, form: str) -> None:
    agent = start()
    token, request = agent.leased(), models.request(agent, form)
    wrong = models.logits.astype("<f4").copy()
    wrong[2] *= 1.01  # one row of three
    request["golden"]["output"] = agent.put("wrong.f32", wrong.tobytes())
    refused = agent.refusal("time", token=token, **request)
    assert refused["kind"] == "wrong"
    assert refused["detail"]["golden_error"] == pytest.approx(0.0099, abs=1e-4)
    request["golden"]["output"] = agent.put("short.f32", wrong[0].tobytes())
    assert agent.refusal("time", token=token, **request)["kind"] == "wrong"


def test_minimum_runs_and_longest_repeat(faulty: StartAgent) -> None:
    agent = faulty("", FAKE_SLEEP_S="0.01")
    request, token = small_request(agent), agent.leased()
    plan = {**PLAN, "min_repeat_ms": 0, "min_runs": 7, "repeats": 3}
    result = agent.result("time", token=token, **{**request, "plan": plan})
    assert [len(samples) for samples in result["samples_ns"]] == [7, 7, 7]
    assert statistics.median(result["samples_ns"][0]) >= 10e6  # the sleep is within what is timed
    plan = {**PLAN, "min_repeat_ms": 1e6, "min_runs": 100, "repeats": 2, "max_repeat_s": 0.03}
    result = agent.result("time", token=token, **{**request, "plan": plan})
    assert all(1 <= len(samples) <= 4 for samples in result["samples_ns"])


def test_short_inferences_are_timed_many_in_a_row(faulty: StartAgent) -> None:
    agent = faulty("", FAKE_SLEEP_S="0.001")
    request, token = small_request(agent), agent.leased()
    plan = {**PLAN, "min_repeat_ms": 40, "repeats": 2, "min_sample_ms": 10}
    result = agent.result("time", token=token, **{**request, "plan": plan})
    assert 2 <= result["inner"] <= 10  # of about 1 ms each, in 10 ms
    for samples_ns in result["samples_ns"]:
        assert all(1e6 <= ns < 10e6 * 10 for ns in samples_ns)  # a sample is of one inference
        assert sum(samples_ns) * result["inner"] > 30e6
    result = agent.result("time", token=token, **{**request, "plan": {**plan, "min_sample_ms": 0.5}})
    assert result["inner"] == 1


def test_short_samples_are_noted(faulty: StartAgent) -> None:
    agent = faulty("")
    notes = agent.result("time", token=agent.leased(), **small_request(agent))["notes"]
    assert any("under 100 us" in note for note in notes)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"plan": {**PLAN, "repeats": 0}}, "request"),
        ({"plan": {**PLAN, "warmup_s": -1}}, "request"),
        ({"plan": {**PLAN, "repeats": 1.5}}, "request"),
        ({"plan": None}, "request"),
        ({"threads": 0}, "request"),
        ({"timeout_s": 0}, "request"),
        ({"affinity": []}, "request"),
        ({"affinity": ["0"]}, "request"),
        ({"affinity": [4000]}, "hardware"),
        ({"runtime": "tflite-runtime"}, "runtime"),
        ({"runtime": "ai-edge-litert"}, "runtime"),
        ({"token": "stolen"}, "lease"),
        ({"token": None}, "request"),
        ({"golden": {}}, "request"),
        ({"model": {"file": "model.onnx", "sha256": "0" * 64, "format": "onnx"}}, "hash"),
        ({"model": {"file": "model.onnx", "sha256": "short", "format": "onnx"}}, "request"),
        ({"model": {"file": "absent", "sha256": "0" * 64, "format": "onnx"}}, "missing"),
        ({"model": {"file": "model.onnx", "sha256": "0" * 64, "format": "pickle"}}, "request"),
    ],
)
def test_what_a_request_may_not_say(faulty: StartAgent, change: dict[str, Any], kind: str) -> None:
    agent = faulty("")
    request = {**small_request(agent), "token": agent.leased()}
    assert agent.refusal("time", **{**request, **change})["kind"] == kind
    assert agent.result("time", **request)["samples_ns"]  # and the next job works


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_a_broken_model_is_the_models_fault(start: StartAgent, models: Models, form: str) -> None:
    agent = start()
    request = models.request(agent, form)
    broken = agent.put("broken", getattr(models, form)[: len(getattr(models, form)) // 2])
    refused = agent.refusal("time", token=agent.leased(), **{**request, "model": {**broken, "format": form}})
    assert refused["kind"] in ("model", "crash")  # as the runtime takes it; the agent survives both
    assert agent.result("ping") == {}


@pytest.mark.parametrize("form", ["onnx", "tflite", "int8"])
def test_runs_a_model_on_many_inputs(start: StartAgent, models: Models, form: str) -> None:
    agent = start()
    request = models.request(agent, form)
    result = agent.result(
        "run", model=request["model"], threads=1, input=request["golden"]["input"], output="logits.f32", timeout_s=60
    )
    data = (agent.folder / "files" / "logits.f32").read_bytes()
    assert result["output"] == {"file": "logits.f32", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    assert (result["count"], result["values"]) == (3, 10)
    logits = np.frombuffer(data, "<f4").reshape(3, 10)
    largest = np.abs(models.logits).max()
    assert np.abs(logits - models.logits).max() <= (0.2 if form == "int8" else 1e-4) * largest


def test_a_run_does_not_disturb_somebody_elses_timing(start: StartAgent, models: Models) -> None:
    agent, other = start(), start()
    request = models.request(agent, "onnx")
    token = other.leased()
    fields = {"model": request["model"], "input": request["golden"]["input"], "output": "logits.f32"}
    assert agent.refusal("run", **fields)["kind"] == "busy"
    assert not (agent.folder / "files" / "logits.f32").exists()
    other.result("release", token=token)
    assert agent.result("run", **fields)["count"] == 3


@pytest.mark.parametrize(("gap_ns", "samples"), [(0, 10), (900, 10), (19_000, 5)])
def test_a_repeat_counts_the_time_inside_its_samples(
    gap_ns: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs run between them: it takes longer, until it takes too long."""
    spec = importlib.util.spec_from_file_location("edgenas_agent", agent()[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    now_ns, asked = [0], [0]

    def clock() -> int:
        asked[0] += 1
        if asked[0] % 2 == 0:  # a sample begins; the first reading is of the repeat's own beginning
            now_ns[0] += gap_ns
        return now_ns[0]

    def invoke() -> None:
        now_ns[0] += 1000

    monkeypatch.setattr(module, "clock_ns", clock)
    assert module.repeat(invoke, 10_000, 0, 100_000, 1000) == [1000] * samples

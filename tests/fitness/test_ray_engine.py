"""Candidates trained on a Ray cluster: a real one, of several nodes on this machine."""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import cluster_utils

from edgenas.architecture import Architecture, Score
from edgenas.errors import UsageError
from edgenas.fitness import FitnessSettings, RefineSettings, live, ray_engine, tabulate
from edgenas.fitness.engine import engine
from edgenas.fitness.live import LiveFitness
from edgenas.fitness.ray_engine import RayEngine
from edgenas.fitness.reference import ResNet
from edgenas.fitness.refiner import RefineJob, create
from edgenas.fitness.store import ScoreStore
from edgenas.fitness.trainer import Trainer
from edgenas.search import search
from edgenas.spaces.nasbench201 import NASBench201
from tests.fitness.test_trainer import SOME, trainer
from tests.train.worlds import image_set

SMALL = {"object_store_memory": 80 << 20, "include_dashboard": False}
QUICK = FitnessSettings(epochs=2, batch_size=8, size={"channels": 4})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of a core each. Spaces made here travel as they are: no node could import this module."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = cluster_utils.Cluster()
    quickly = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
    made.add_node(num_cpus=1, **SMALL, _system_config=quickly)  # a lost node is missed within a second
    made.add_node(num_cpus=1, **SMALL)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield made
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def unconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program that has used no cluster yet."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.fixture
def quick_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = ResNet(20, 10).eval()  # to train it would take most of a minute
    monkeypatch.setattr("edgenas.fitness.references.reference_network", lambda *_: (network, "made up"))


class Noting(NASBench201):
    """Leaves a file each time that a training begins, with the name of the node. On the node `doomed` none ends."""

    def __init__(self, folder: Path, doomed: str) -> None:
        super().__init__()
        self.folder, self.doomed = folder, doomed

    def build(self, *args: Any, **size: Any) -> Any:
        node = ray.get_runtime_context().get_node_id()
        (self.folder / uuid.uuid4().hex).write_text(node)
        if node == self.doomed:
            time.sleep(3600)
        return super().build(*args, **size)


class Broken(NASBench201):
    def build(self, *args: Any, **size: Any) -> Any:
        raise RuntimeError("a bug")


class Deadly(NASBench201):
    def build(self, *args: Any, **size: Any) -> Any:
        os._exit(1)


def local_scores(of: Trainer, archs: Sequence[Architecture] = SOME) -> list[Score]:
    return list(LiveFitness(of, "made up", "made up")(archs))


def on_ray(of: Trainer, cluster: Any, store: ScoreStore | None = None, **how: int) -> LiveFitness:
    return LiveFitness(of, "made up", "made up", store, RayEngine(cluster.address, **how))


def test_scores_are_the_local_ones(cluster: Any) -> None:
    fitness = on_ray(trainer(), cluster)
    assert list(fitness(SOME)) == local_scores(trainer())
    assert fitness.hardware.device == "cpu"
    assert fitness.hardware.name.startswith("a Ray cluster of 2 nodes, 2 cores of ")


def test_a_shortlist_is_refined_there_to_the_same_outcomes(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgenas.fitness.refiner.load_images", lambda *_, **__: image_set(120, side=12))
    settings = RefineSettings((64, 128), 16, {"cells": 1, "channels": 8}, calibration_images=32)
    refiner = create(NASBench201(), "digits", replace(QUICK, precision="float32"), settings, [0]).refiner
    workers = RayEngine(cluster.address).start(refiner)
    ran = [workers.submit([RefineJob(arch, 64)]) for arch in SOME[:3]]
    found = [future.result()[0] for future in ran]
    going_on = workers.submit([RefineJob(SOME[0], 128, 64, found[0].state)]).result()
    workers.close()
    torch.set_num_threads(1)
    local = [refiner([RefineJob(arch, 64)])[0] for arch in SOME[:3]] + refiner([RefineJob(SOME[0], 128)])
    for there, here in zip([*found, *going_on], local, strict=True):
        assert there.state == here.state
        assert replace(there.refined, seconds=0) == replace(here.refined, seconds=0)


def test_a_lost_node_s_candidates_run_again(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doomed = cluster.add_node(num_cpus=1, **SMALL)
    of = replace(trainer(), space=Noting(tmp_path, doomed.node_id))
    with ThreadPoolExecutor(1) as apart:
        scores = apart.submit(lambda: list(on_ray(of, cluster)(SOME)))
        wait_until(lambda: any(path.read_text() == doomed.node_id for path in tmp_path.iterdir()))
        cluster.remove_node(doomed, allow_graceful=False)
        got = scores.result()
    assert got == local_scores(trainer())
    assert len(list(tmp_path.iterdir())) > len(SOME), "it had ended what it had"
    assert capsys.readouterr().out == ""


def test_stopped_it_ends_at_once_and_keeps_what_was_trained(cluster: Any, tmp_path: Path) -> None:
    store = ScoreStore("made up", tmp_path / "scores.sqlite")
    fitness = on_ray(trainer(epochs=20), cluster, store)
    scores = fitness(SOME)
    first = next(scores)
    started = time.monotonic()
    scores.close()
    assert time.monotonic() - started < 5
    assert 1 <= len(store.find(SOME)) < len(SOME)
    assert store.find(SOME)[SOME[0]] == replace(first, phi=None)
    # The cores are free again, and a new beginning knows what was trained.
    assert list(on_ray(trainer(epochs=20), cluster, store)(SOME[:2])) == local_scores(trainer(epochs=20), SOME[:2])


def test_errors_of_ours_come_as_themselves(cluster: Any) -> None:
    with pytest.raises(UsageError, match=r"^--size channels=1000000 cannot be") as raised:
        list(on_ray(trainer(size={"channels": 10**6}), cluster)(SOME[:2]))
    assert type(raised.value) is UsageError


def test_bugs_come_with_the_traceback_of_the_node(cluster: Any) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)in build.*a bug"):
        list(on_ray(trainer(space=Broken()), cluster)(SOME[:2]))


def test_what_kills_its_workers_is_given_up(cluster: Any) -> None:
    with pytest.raises(UsageError, match=r"cannot be trained on the Ray cluster .* run the same command to go on"):
        list(on_ray(trainer(space=Deadly()), cluster, lost_workers=1)(SOME[:1]))


def test_the_cluster_s_gpus_are_what_a_score_depends_on(
    cluster: Any, quick_reference: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, versions = f"ray:{cluster.address}", ray_engine._versions()
    assert engine(spec).hardware.device == "cpu"
    node = cluster.add_node(num_cpus=1, num_gpus=2, **SMALL)
    try:
        if not torch.cuda.is_available():
            with pytest.raises(UsageError, match="counts a GPU that torch does not find there; install a torch"):
                engine(spec)
        monkeypatch.setattr(ray_engine, "_introduce", lambda: (versions, True, "Fast", True))
        found = engine(spec)
        assert found.hardware.device == "cuda"
        assert found.hardware.name == "a Ray cluster of one node, 2 GPUs of Fast"
        (fitness,) = live.repeated(NASBench201(), "digits", replace(QUICK, engine=spec))
        assert (fitness.made_from["device"], fitness.made_from["settings"]["precision"]) == ("cuda", "bfloat16")
        workers = found.start(trainer())
        assert workers.stack == 64
        workers.close()
    finally:
        cluster.remove_node(node, allow_graceful=False)


def test_a_node_of_another_version_is_reported(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "_introduce", lambda: ("edgenas 0.0.1 (scores 1)", False, "Old", False))
    with pytest.raises(UsageError, match=r"has edgenas 0.0.1 \(scores 1\), not edgenas .*; run on every node .*: pip"):
        RayEngine(cluster.address)


def test_a_node_that_lacks_something_is_reported(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def introduce() -> None:
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr(ray_engine, "_introduce", introduce)
    with pytest.raises(
        UsageError, match=r"cannot train \(ModuleNotFoundError: No module named 'torch'\); run on every"
    ):
        RayEngine(cluster.address)


def test_a_run_goes_on_on_another_engine(cluster: Any, quick_reference: None, tmp_path: Path) -> None:
    limits: dict[str, Any] = {"device": "host", "dataset": "digits", "fitness": "live", "macs_m": 20.0}
    asked = {**limits, "generations": 1, "population": 4, "budget": 3, "epochs": 2, "batch_size": 8, "refine": 0}
    asked["size"] = {"channels": 4}
    job = search(run=str(tmp_path / "run"), engine=f"ray:{cluster.address}", **asked)
    trials = [event for event in job if hasattr(event, "number")]
    assert trials
    again = search(resume=str(tmp_path / "run"), engine="local")
    list(again)
    assert again.run.trials() == trials
    assert again.fitness.fingerprint == job.fitness.fingerprint


def test_a_table_made_there_is_the_local_one(cluster: Any, quick_reference: None) -> None:
    few = SOME[:3]
    there = tabulate.tabulate("nasbench201", "digits", replace(QUICK, engine=f"ray:{cluster.address}"), 1, archs=few)
    here = tabulate.tabulate("nasbench201", "digits", QUICK, 1, archs=few)
    assert there.path == here.path
    assert len(list(there)) == 3
    assert '"hardware": "a Ray cluster of 2 nodes' in there.path.read_text()
    assert list(here) == [], "the table that was made has them"


def test_one_program_uses_one_cluster(cluster: Any) -> None:
    RayEngine(cluster.address)
    assert RayEngine().hardware.name.startswith("a Ray cluster")
    with pytest.raises(UsageError, match="connected to a Ray cluster already; use that, by --engine ray, not 127"):
        RayEngine("127.0.0.1:6379")


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("listening", [False, True], ids=["refuses", "says nothing"])
def test_an_address_that_does_not_answer(scheme: str, listening: bool, unconnected: None) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        if listening:
            bound.listen()
        address = f"{scheme}127.0.0.1:{bound.getsockname()[1]}"
        wanted = "nothing came within 2 s" if listening else "Connection refused"
        with pytest.raises(UsageError, match=rf"no Ray cluster answers at .*\({wanted}\); run there: ray start --head"):
            RayEngine(address, answer_s=2.0)


@pytest.mark.parametrize("address", ["somewhere", "host:port", "http://host:1", "//host", ":6379"])
def test_what_is_no_address(address: str, unconnected: None) -> None:
    with pytest.raises(UsageError, match="is no address of a Ray cluster; give --engine ray:HOST:PORT"):
        engine(f"ray:{address}")


def test_the_local_engine_has_no_address() -> None:
    with pytest.raises(UsageError, match="--engine local:host:1 asks for another machine"):
        engine("local:host:1")


def wait_until(condition: Any, within_s: float = 60.0) -> None:
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)

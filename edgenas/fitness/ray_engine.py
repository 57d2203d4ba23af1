"""`--engine ray`: candidates are trained on the GPUs, or else the cores, of a Ray cluster.

A task trains one stack on one GPU, or one architecture on one core, as LocalWorkers do, from a trainer that lies in the
cluster's object store: scores are those of local workers on such hardware. Ray runs again what a lost worker had.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from threading import Condition, Thread
from typing import Any, Generic

import ray
import torch
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from edgenas import __version__, children
from edgenas.errors import EdgeNASError, UsageError
from edgenas.fitness.engine import MAX_STACKED, Asked, Found, Hardware, Trains, this_machine
from edgenas.fitness.trainer import VERSIONS
from edgenas.memory import keep_freed_memory

_KNOCK_S = 4.0  # in which an address must take a connection,
ANSWER_S = 12.0  # and then be a Ray cluster that takes this program in
_ASK_S = 120.0  # in which its nodes must say what they are: each may have to start Python and import torch first
_LOOK_S = 0.2  # between looks for what is done
_CANCEL_S = 5.0  # in which a cancelled training must end by itself
_STORE_BYTES = 256 << 20  # of objects, where a cluster is started here: a trainer takes one, with all its images

_connected = ""  # the address at which this module asked for the cluster that the program is connected to


class RayEngine:
    """The cluster at `address`: HOST:PORT of which this computer is a node, or ray://HOST:PORT from outside it. Empty
    is $RAY_ADDRESS, or a cluster that runs on this computer, or else one that is started here until the program ends.
    A stack that lost more than `lost_workers` is given up: it may be what kills them.

    Raises UsageError for an address that does not answer, and for nodes that cannot train or have another version.
    """

    def __init__(self, address: str = "", lost_workers: int = 5, answer_s: float = ANSWER_S) -> None:
        self._address, self._lost_workers, self._answer_s = address, lost_workers, answer_s
        _connect(address, answer_s)
        self._unit, nodes, seen = _survey()
        count = sum(int(node["Resources"][self._unit]) for node in nodes)
        models = " and ".join(sorted({model for model, _ in seen}))
        of_nodes = "one node" if len(nodes) == 1 else f"{len(nodes)} nodes"
        self.hardware = Hardware(
            "cuda" if self._unit == "GPU" else "cpu",
            f"a Ray cluster of {of_nodes}, {count} {'GPUs' if self._unit == 'GPU' else 'cores'} of {models}",
            all(fast for _, fast in seen),
        )

    def start(self, trainer: Trains[Asked, Found]) -> RayWorkers[Asked, Found]:
        _connect(self._address, self._answer_s)
        return RayWorkers(trainer, self._unit, self._lost_workers)


class RayWorkers(Generic[Asked, Found]):
    """A thread hands tasks to the cluster, twice as many as it can run: the next is there when one ends, and few are
    to be cancelled."""

    def __init__(self, trainer: Trains[Asked, Found], unit: str, lost_workers: int) -> None:
        self.stack = MAX_STACKED if unit == "GPU" else 1
        self._unit = unit
        self._device = "cuda" if unit == "GPU" else "cpu"
        self._task = ray.remote(_train).options(max_retries=lost_workers, **_share(unit, 1))
        self._trainer = ray.put(trainer)
        self._waiting: deque[tuple[list[Asked], Future[list[Found]]]] = deque()
        self._running: dict[Any, Future[list[Found]]] = {}  # by the reference to what will be found
        self._problem: BaseException | None = None  # why nothing is trained any more
        self._changed = Condition()
        # A daemon: a cluster that has hung does not keep the program from ending.
        self._thread = Thread(target=self._work, name="ray", daemon=True)
        self._thread.start()

    def submit(self, asked: Sequence[Asked]) -> Future[list[Found]]:
        future: Future[list[Found]] = Future()
        with self._changed:
            if self._problem is None:
                self._waiting.append((list(asked), future))
                self._changed.notify()
            else:
                future.set_exception(self._problem)
        return future

    def close(self) -> None:
        with self._changed:
            self._problem = self._problem or CancelledError()
            self._changed.notify()
        self._thread.join(2 * _CANCEL_S)

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._problem or self._waiting or self._running)
                if self._problem is not None:
                    break
                self._hand_out()
                self._take_in(_LOOK_S, 1)
            for task in self._running:
                ray.cancel(task)
            self._take_in(_CANCEL_S, len(self._running))
            for task in self._running:
                ray.cancel(task, force=True)
        except Exception as error:
            self._problem = _lost(error)
        with self._changed:
            left = [future for _, future in self._waiting if future.set_running_or_notify_cancel()]
            self._waiting.clear()
        for future in [*self._running.values(), *left]:
            future.set_exception(self._problem)

    def _hand_out(self) -> None:
        most = 2 * max(1, int(ray.cluster_resources().get(self._unit, 0)))  # of now: nodes come and go
        while self._waiting and len(self._running) < most:
            asked, future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                self._running[self._task.remote(self._trainer, asked, self._device)] = future

    def _take_in(self, within_s: float, enough: int) -> None:
        """Waits until `enough` tasks are done."""
        if not self._running:
            return
        done, _ = ray.wait(list(self._running), num_returns=enough, timeout=within_s)
        for task in done:
            future = self._running.pop(task)
            try:
                future.set_result(ray.get(task))
            except RayTaskError as error:
                # Ours is raised as itself, anything else with the traceback from where it happened.
                future.set_exception(error.cause if isinstance(error.cause, EdgeNASError) else error)
            except RayError as error:
                future.set_exception(_lost(error))


def create(address: str) -> RayEngine:
    """`ray` as the address of a plug-in names it: //HOST:PORT is what ray://HOST:PORT leaves of it."""
    return RayEngine(f"ray:{address}" if address.startswith("//") else address)


def _train(trainer: Trains[Asked, Found], asked: list[Asked], device: str) -> list[Found]:
    """The task."""
    torch.set_num_threads(1)
    keep_freed_memory()
    return trainer.on(torch.device(device))(asked)


def _introduce() -> tuple[str, bool, str, bool]:
    """The task that says what a node is: its versions, whether torch finds a GPU there, and `this_machine()`."""
    return _versions(), torch.cuda.is_available(), *this_machine()


def _versions() -> str:
    scores = " and ".join(str(each) for each in VERSIONS.values())
    return f"edgenas {__version__} (scores {scores})"


def _share(unit: str, share: float) -> dict[str, float]:
    """What a task asks of a node: a GPU without a core, for a node may count none of its own."""
    return {"num_cpus": 0, "num_gpus": share} if unit == "GPU" else {"num_cpus": share}


def _survey() -> tuple[str, list[dict[str, Any]], list[tuple[str, bool]]]:
    """What candidates are trained on, "GPU" or "CPU", the nodes that have some, and `this_machine()` of each. A score
    depends on them, so all must answer.

    Raises UsageError where one does not, or cannot train.
    """
    ends = time.monotonic() + _ASK_S
    while True:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        unit = "GPU" if any(node["Resources"].get("GPU") for node in nodes) else "CPU"
        nodes = [node for node in nodes if node["Resources"].get(unit)]
        if not nodes:
            raise UsageError(
                "the Ray cluster has no core and no GPU to train on; add a node by: ray start --address=HOST:PORT"
            )
        seen, silent = _ask(nodes, unit, ends - time.monotonic())
        if not silent:
            return unit, nodes, seen
        if time.monotonic() > ends:
            raise UsageError(
                f"{len(silent)} of {len(nodes)} nodes of the Ray cluster say nothing within {_ASK_S:.0f} s, {silent[0]}"
                f" for one; see by `ray status` whether other programs have its {unit}s, or train by --engine local"
            )
        time.sleep(_LOOK_S)  # one was lost, which the cluster may not know yet


def _ask(nodes: Sequence[dict[str, Any]], unit: str, within_s: float) -> tuple[list[tuple[str, bool]], list[str]]:
    """`this_machine()` of each of `nodes`, and the addresses of those that say nothing."""
    # There is room for this beside a training: next to nothing of a GPU, without which none is seen, and no core.
    share = _share(unit, 0.001 if unit == "GPU" else 0)
    asked = {
        ray.remote(_introduce)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False), **share)
        .remote(): node["NodeManagerAddress"]
        for node in nodes
    }
    cure = f"on every node of the cluster: pip install 'edgenas[live,ray]=={__version__}'"
    found = []
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=max(0.0, within_s))
    silent = [asked[task] for task in late]
    for task in done:
        try:
            versions, gpu, model, fast = ray.get(task)
        except RayTaskError as error:
            raise UsageError(
                f"node {asked[task]} of the Ray cluster cannot train ({_last_line(str(error))}); run {cure}"
            ) from error
        except RayError:
            silent.append(asked[task])
            continue
        if versions != _versions():
            raise UsageError(f"node {asked[task]} of the Ray cluster has {versions}, not {_versions()}; run {cure}")
        if unit == "GPU" and not gpu:
            raise UsageError(
                f"node {asked[task]} of the Ray cluster counts a GPU that torch does not find there; install a torch"
                " for it there, or start that node by: ray start --num-gpus=0"
            )
        found.append((model, fast))
    return found, silent


def _connect(address: str, answer_s: float) -> None:
    """Connects this program until it ends, where it is not connected yet. Raises UsageError where nothing answers."""
    global _connected
    if ray.is_initialized():
        if address not in ("", _connected):
            raise UsageError(
                f"this program is connected to a Ray cluster already; use that, by --engine ray, not {address}"
            )
        return
    # It prints what becomes of nodes and workers to stdout, where a result is to be, whatever it is asked.
    setattr(ray._private.worker, "_worker_logs_enabled", False)  # noqa: B010 (not there in every version)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    at = address or os.environ.get("RAY_ADDRESS") or "auto"
    if at == "auto" and _refusal(at, answer_s) is not None:
        at = "local"
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if at == "local":
        quiet |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    elif at != "auto":
        _knock(at, answer_s)
    try:
        ray.init(address=at, **quiet)
    except Exception as error:  # Ray raises all sorts, bare Exception among them
        raise UsageError(f"Ray does not start here ({_last_line(str(error))}); train by --engine local") from error
    _connected = address


def _knock(address: str, answer_s: float) -> None:
    """Raises UsageError unless a Ray cluster answers at `address` and takes this program in, within `answer_s`."""
    named = re.fullmatch(r"(ray://)?(?:\[(.+)\]|([^:/]+)):(\d{1,5})", address)
    if named is None:
        raise UsageError(f"'{address}' is no address of a Ray cluster; give --engine ray:HOST:PORT or ray://HOST:PORT")
    outside, host, port = bool(named[1]), named[2] or named[3], int(named[4])
    try:
        socket.create_connection((host, port), _KNOCK_S).close()
        reason = _refusal(address, answer_s)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    if reason is not None:
        start = f"there: ray start --head --{'ray-client-server-port' if outside else 'port'}={port}"
        join = "" if outside else f" and here: ray start --address={address}"
        raise UsageError(f"no Ray cluster answers at {address} ({reason}); run {start}{join}")


def _refusal(address: str, answer_s: float) -> str | None:
    """Why a program cannot connect to `address`; None where it can. Tried by another program, for where no cluster
    answers Ray goes on trying for minutes, or ends the program."""
    code = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    try:
        done = children.run([sys.executable, "-c", code, address], answer_s, encoding="utf-8", errors="replace")
    except subprocess.TimeoutExpired:
        return f"nothing came within {answer_s:.0f} s"
    if done.returncode == 0:
        return None
    return _last_line(done.stderr) or f"exit code {done.returncode}"


def _last_line(text: str) -> str:
    """Where a traceback says what was wrong."""
    return (text.strip().splitlines() or [""])[-1]


def _lost(error: Exception) -> Exception:
    """What the caller sees where there are no scores."""
    if isinstance(error, TaskCancelledError):
        return CancelledError()
    if not isinstance(error, (RayError, ConnectionError)):
        return error
    return UsageError(
        f"a candidate cannot be trained on the Ray cluster ({str(error).strip().splitlines()[0]}); see by `ray status`"
        " whether its nodes live and have memory, then run the same command to go on"
    )

"""Where candidates are trained: an engine turns a trainer into workers that take stacks of what it trains."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

import torch

from edgenas import host, plugins
from edgenas.errors import UsageError
from edgenas.memory import keep_freed_memory

Asked = TypeVar("Asked")  # what is to be trained, like an Architecture
Found = TypeVar("Found")  # what is then known of it, like a Score
_Asked = TypeVar("_Asked", contravariant=True)

# More than this many side by side hide a launch no better, and the first scores come later.
MAX_STACKED = 64


@dataclass(frozen=True)
class Hardware:
    """What trains, as far as scores depend on it."""

    device: str  # "cuda" where torch finds a GPU, else "cpu"
    name: str  # in words, like "2 cores of AMD EPYC"
    fast_bfloat16: bool  # it multiplies that faster than float32


class Trains(Protocol[_Asked, Found]):
    """What workers run, such as a Trainer. It is pickled where they are in other processes."""

    def on(self, device: torch.device) -> Trains[_Asked, Found]:
        """The same on another device."""

    def __call__(self, asked: Sequence[_Asked], /) -> list[Found]:
        """What comes of each of `asked`, which are trained together: a stack."""


class Workers(Protocol[_Asked, Found]):
    """They train what they are given, several stacks at once, until they are closed."""

    stack: int  # of how many a stack is to be; fewer will do

    def submit(self, asked: Sequence[_Asked]) -> Future[list[Found]]: ...

    def close(self) -> None:
        """Ends what runs, drops what waits."""


class Engine(Protocol):
    """A plug-in under `edgenas.engines` is a function from an address, empty where none was given, to one of these."""

    hardware: Hardware

    def start(self, trainer: Trains[Asked, Found]) -> Workers[Asked, Found]: ...


class LocalEngine:
    """This machine: its GPUs, a stack on each, or else its cores, one architecture on each."""

    def __init__(self) -> None:
        model, fast = this_machine()
        count = torch.cuda.device_count()
        if count:
            self.hardware = Hardware("cuda", f"{'one' if count == 1 else count} {model}", fast)
        else:
            self.hardware = Hardware("cpu", f"{host.cores()} cores of {model}", fast)

    def start(self, trainer: Trains[Asked, Found]) -> LocalWorkers[Asked, Found]:
        count = torch.cuda.device_count()
        if count:
            return LocalWorkers(trainer, [torch.device("cuda", index) for index in range(count)], MAX_STACKED)
        # Threads that share a step of so small a network mostly wait for each other, for ever so long where another
        # program wants the core too; and a score does not depend on how many cores there are.
        keep_freed_memory()
        return LocalWorkers(trainer, [torch.device("cpu")] * host.cores(), 1)


class LocalWorkers(Generic[Asked, Found]):
    """A thread for each of `devices`, which trains on it with one thread of torch's."""

    def __init__(self, trainer: Trains[Asked, Found], devices: Sequence[torch.device], stack: int) -> None:
        self.stack = stack
        self._idle: SimpleQueue[Trains[Asked, Found]] = SimpleQueue()
        placed = {device: trainer.on(device) for device in dict.fromkeys(devices)}
        for device in devices:
            self._idle.put(placed[device])
        self._pool = ThreadPoolExecutor(len(devices), "rmi", initializer=torch.set_num_threads, initargs=(1,))

    def submit(self, asked: Sequence[Asked]) -> Future[list[Found]]:
        return self._pool.submit(self._train, asked)

    def _train(self, asked: Sequence[Asked]) -> list[Found]:
        trainer = self._idle.get()
        try:
            return trainer(asked)
        finally:
            self._idle.put(trainer)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def stacks(asked: list[Asked], most: int) -> list[list[Asked]]:
    """`asked` in as few parts of at most `most` as there can be, all but the last of one size, or one less."""
    if not asked:
        return []
    size = math.ceil(len(asked) / math.ceil(len(asked) / most))
    return [asked[start : start + size] for start in range(0, len(asked), size)]


def engine(spec: str) -> Engine:
    """The engine NAME or NAME:ADDRESS, like local, ray, ray:HOST:6379 or ray://HOST:10001.

    Raises UsageError for an engine that is unknown, not installed, or does not answer at its address.
    """
    name, _, address = spec.partition(":")
    found: Engine = plugins.load("engines", name)(address)
    return found


def create(address: str) -> LocalEngine:
    """This machine. Raises UsageError where an address is given."""
    if address:
        raise UsageError(f"--engine local:{address} asks for another machine; give --engine local, or ray:{address}")
    return LocalEngine()


def this_machine() -> tuple[str, bool]:
    """The model of the GPU that torch finds, or else of the CPU, and whether it multiplies bfloat16 faster than
    float32."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return model, bool(able.get("avx512_bf16") or able.get("amx_bf16"))

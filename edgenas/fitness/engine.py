"""Where candidates are trained: an engine turns a Trainer into workers that take stacks of architectures."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Protocol

import torch

from edgenas.architecture import Architecture, Score
from edgenas.fitness.trainer import Trainer

# More than this many side by side hide a launch no better, and the first scores come later.
_MOST_STACKED = 64
# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class Workers(Protocol):
    """They train what they are given, several stacks at once, until they are closed."""

    stack: int  # architectures to give together; fewer will do

    def submit(self, archs: Sequence[Architecture]) -> Future[list[Score]]: ...

    def close(self) -> None:
        """Ends what runs, drops what waits."""


class Engine(Protocol):
    name: str

    def start(self, trainer: Trainer) -> Workers: ...


class LocalEngine:
    """This machine: its GPUs, a stack on each, or else its cores, one class on each."""

    name = "local"

    def start(self, trainer: Trainer) -> Workers:
        count = torch.cuda.device_count()
        if count:
            return LocalWorkers(trainer, [torch.device("cuda", index) for index in range(count)], _MOST_STACKED)
        # Threads that share a step of so small a network mostly wait for each other, for ever so long where another
        # program wants the core too; and a score does not depend on how many cores there are.
        _keep_freed_memory()
        return LocalWorkers(trainer, [torch.device("cpu")] * len(os.sched_getaffinity(0)), 1)


class LocalWorkers:
    """A thread for each of `devices`, which trains on it with one thread of torch's."""

    def __init__(self, trainer: Trainer, devices: Sequence[torch.device], stack: int) -> None:
        self.stack = stack
        self._idle: SimpleQueue[Trainer] = SimpleQueue()
        placed = {device: trainer.on(device) for device in dict.fromkeys(devices)}
        for device in devices:
            self._idle.put(placed[device])
        self._pool = ThreadPoolExecutor(len(devices), "rmi", initializer=torch.set_num_threads, initargs=(1,))

    def submit(self, archs: Sequence[Architecture]) -> Future[list[Score]]:
        return self._pool.submit(self._train, archs)

    def _train(self, archs: Sequence[Architecture]) -> list[Score]:
        trainer = self._idle.get()
        try:
            return trainer(archs)
        finally:
            self._idle.put(trainer)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _keep_freed_memory() -> None:
    """glibc hands large blocks back to the system, which zeroes them page by page each time they are asked for again,
    for every feature map of every step: a fifth of a step on the CPU."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)

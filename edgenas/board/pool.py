"""Several boards of one device timing models side by side, while the next models are made."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import getpid
from pathlib import Path

from edgenas.board.measure import Bench, Failed, Outcome, Tier
from edgenas.board.model import Model
from edgenas.board.phone import PhoneSession
from edgenas.board.registry import Board, refuse_simulated
from edgenas.board.runtimes import UnfitError
from edgenas.board.session import CLOSE_S, AgentSession, RefusedError, Session, within
from edgenas.board.store import Store
from edgenas.device import Device
from edgenas.errors import BoardError, UsageError

BLOCK = 8  # models between two timings of the reference, at most
PATIENCE_S = 60.0  # with a board that is lost or busy
WAKE_S = 0.5  # between two looks at what else happened while boards work
LOSSES = 2  # of boards that a model may see before it is given up
FRUITLESS = 3  # blocks in a row that fail on a board, though it answers in between, before the patience counts


def connect(board: Board) -> Session:
    """A session with `board`. Raises BoardError where it does not answer."""
    holder = f"edgenas, process {getpid()} on {socket.gethostname()}"
    if board.transport == "adb":
        tool = Path(board.benchmark_model) if board.benchmark_model else None
        return PhoneSession(board.connect(), tool, holder)
    return AgentSession(board.connect(), board.python, holder)


@dataclass
class _Job:
    number: int
    model: Model
    tier: Tier
    losses: int = 0  # of boards, while it ran


class BoardPool:
    """Boards of `device`, connected when first needed and kept until `close`, after which it is of no more use.

    A board that is lost in the middle of a block is connected to again for `patience_s`, while its models go to the
    others; what it had not answered for is timed anew. The store answers for what is known, but not where all is to be
    measured `anew`.
    """

    def __init__(
        self,
        boards: Sequence[Board],
        device: Device,
        store: Store | None = None,
        connect: Callable[[Board], Session] = connect,
        patience_s: float = PATIENCE_S,
        block: int = BLOCK,
        anew: bool = False,
    ) -> None:
        refuse_simulated(device)
        self.boards, self.device, self.store = list(boards), device, store or Store()
        self._connect, self._patience_s, self._block, self._anew = connect, patience_s, block, anew
        self._waiting: queue.Queue[_Job | None] = queue.Queue()
        self._answers: queue.Queue[tuple[_Job, Outcome] | BaseException] = queue.Queue()
        self._lock = threading.Lock()  # of the two below, which threads change
        self._benches: dict[str, Bench] = {}
        self._lost: dict[str, BoardError] = {}  # board -> why it was given up
        self._seen: set[str] = set()  # boards that have answered
        self._outstanding = 0
        self._closing = threading.Event()
        self._workers: dict[str, threading.Thread] = {}

    def measure(self, models: Iterable[Model], tier: Tier) -> Iterator[tuple[int, Outcome]]:
        """(number of the model, its outcome) as they come; `models` is drawn from only as boards get free.

        Raises BoardError where no board is left; what was timed before is in the store.
        """
        self._start()
        source = enumerate(models)
        exhausted = False
        ahead = len(self.boards) * 2 * self._block
        while True:
            while not exhausted and self._outstanding < ahead:
                for number, model in source:
                    self._outstanding += 1
                    self._waiting.put(_Job(number, model, tier))
                    break
                else:
                    exhausted = True
                if not self._answers.empty():
                    break
            if exhausted and not self._outstanding:
                return
            answer = self._next_answer()
            if isinstance(answer, BoardError):
                if len(self._lost) == len(self.boards):
                    self._drain()
                    raise self._all_lost()
                continue
            if isinstance(answer, BaseException):
                raise answer
            job, outcome = answer
            self._outstanding -= 1
            yield job.number, outcome

    def _next_answer(self) -> tuple[_Job, Outcome] | BaseException:
        while True:
            with contextlib.suppress(queue.Empty):
                # Not without an end: where the system does not interrupt a wait, Ctrl-C is seen only in between.
                return self._answers.get(timeout=WAKE_S)

    def one(self, model: Model, tier: Tier) -> Outcome:
        """As `measure`, of a single model."""
        ((_, outcome),) = self.measure([model], tier)
        return outcome

    def close(self) -> None:
        """Give the boards back, also in the middle of a timing, within about CLOSE_S; what is not done by then is, once
        the connections end."""
        with self._lock:
            self._closing.set()
            benches, self._benches = self._benches, {}
            workers, self._workers = self._workers, {}
        for _ in workers:
            self._waiting.put(None)
        within(CLOSE_S, [bench.session.close for bench in benches.values()])

    def __enter__(self) -> BoardPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        """A thread for each board that has none; one that was given up gets another chance."""
        self._lost.clear()
        with self._lock:
            if self._closing.is_set():
                raise ValueError("the pool has been closed; make another")
            for board in self.boards:
                worker = self._workers.get(board.name)
                if worker is None or not worker.is_alive():
                    self._workers[board.name] = threading.Thread(
                        target=self._work, args=(board,), name=f"board {board.name}", daemon=True
                    )
                    self._workers[board.name].start()

    def _work(self, board: Board) -> None:
        """Take models in blocks, until closed or until the board is given up."""
        fruitless, failing_since_s = 0, 0.0
        try:
            while (job := self._waiting.get()) is not None:
                jobs = [job, *self._more(job.tier)]
                try:
                    bench = self._bench(board)
                except BoardError as error:
                    self._put_back(jobs)
                    if self._closing.is_set() or not self._reconnected(board, error):
                        return
                    continue
                jobs = [each for each in jobs if not self._answered(each)]
                try:
                    outcomes = bench([each.model for each in jobs], job.tier)
                except BoardError as error:
                    if self._closing.is_set():
                        return
                    self._again(jobs, board, bench.timing, error)
                    failing_since_s = failing_since_s if fruitless else time.monotonic()
                    fruitless += 1
                    failing_s = time.monotonic() - failing_since_s
                    hopeless = isinstance(error, UnfitError) or (
                        fruitless >= FRUITLESS and failing_s > self._patience_s
                    )
                    if fruitless > 1 and not hopeless:
                        self._closing.wait(min(5.0, 0.1 * 2**fruitless))
                    if not self._reconnected(board, error, patience_s=0.0 if hopeless else self._patience_s):
                        return
                else:
                    fruitless = 0
                    for each, outcome in zip(jobs, outcomes, strict=True):
                        self._answers.put((each, outcome))
        except BaseException as error:  # shown where the models come from, not lost with this thread
            self._answers.put(error)

    def _more(self, tier: Tier) -> list[_Job]:
        """What else waits, up to this board's share of it and the length of a block."""
        share = min(self._block - 1, self._waiting.qsize() // max(1, len(self.boards) - len(self._lost)))
        jobs: list[_Job] = []
        with contextlib.suppress(queue.Empty):
            while len(jobs) < share:
                job = self._waiting.get_nowait()
                if job is None or job.tier != tier:
                    self._waiting.put(job)
                    break
                jobs.append(job)
        return jobs

    def _answered(self, job: _Job) -> bool:
        """Whether some board of the pool has timed the model before: then that is its outcome."""
        with self._lock:
            benches = list(self._benches.values())
        for bench in benches:
            with contextlib.suppress(UsageError, UnfitError):  # that board would not run it
                known = bench.known(job.model, job.tier)
                if known is not None:
                    self._answers.put((job, known))
                    return True
        return False

    def _bench(self, board: Board) -> Bench:
        with self._lock:
            known = self._benches.get(board.name)
        if known is not None:
            return known
        session = self._connect(board)
        self._seen.add(board.name)
        bench = Bench(
            session,
            self.device,
            board.name,
            board.threads,
            self.store,
            affinity=board.affinity,
            runtime=board.runtime,
            anew=self._anew,
        )
        with self._lock:
            if not self._closing.is_set():
                self._benches[board.name] = bench
                return bench
        session.close()
        raise BoardError(f"board {board.name} is not needed any more")

    def _hang_up(self, board: Board) -> None:
        with self._lock:
            bench = self._benches.pop(board.name, None)
        if bench is not None:
            bench.session.close()

    def _again(self, jobs: Sequence[_Job], board: Board, running: Model | None, error: BoardError) -> None:
        """Put back what a lost board had taken; `running`, if that keeps taking boards down, is given up instead."""
        busy = isinstance(error, RefusedError) and error.kind in ("busy", "lease")
        for job in jobs:
            job.losses += job.model is running and not busy
            if job.losses > LOSSES:
                self._answers.put((job, Failed(f"board {board.name} was lost each time it ran ({error})")))
            else:
                self._waiting.put(job)

    def _put_back(self, jobs: Sequence[_Job]) -> None:
        for job in jobs:
            self._waiting.put(job)

    def _reconnected(self, board: Board, error: BoardError, patience_s: float | None = None) -> bool:
        """Whether the board came back within `patience_s`, by default the pool's; if not, it is given up and said to be
        lost. One that never answered is not waited for: its address may be wrong."""
        self._hang_up(board)
        if patience_s is None:
            patience_s = self._patience_s if board.name in self._seen else 0.0
        deadline_s, pause_s = time.monotonic() + patience_s, 0.2
        while patience_s > 0 and not self._closing.is_set():
            try:
                self._bench(board).session.lease(60.0)
                return True
            except BoardError as again:
                error = again
                self._hang_up(board)
            if time.monotonic() + pause_s > deadline_s:
                break
            self._closing.wait(pause_s)
            pause_s = min(5.0, pause_s * 2)
        self._lost[board.name] = error
        self._answers.put(error)
        return False

    def _drain(self) -> None:
        """Forget what waits: it belongs to a call that fails."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        with contextlib.suppress(queue.Empty):
            while True:
                self._answers.get_nowait()
        self._outstanding = 0

    def _all_lost(self) -> BoardError:
        (name, error), *others = self._lost.items()
        more = f", and {len(others)} more boards" if others else ""
        if isinstance(error, UnfitError):  # it is there, and says itself what is missing
            return BoardError(f"{error}{more and f' ({len(others)} more boards are lost, too)'}")
        return BoardError(f"board {name}{more} is lost ({error}); see: edgenas board check {name}")

"""Networks are lowered in threads, beside others that train."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

import torch
from torch import Tensor, nn

from edgenas.lower import lower

EXAMPLE = torch.zeros(1, 3, 8, 8)


class Meanwhile(nn.Module):
    """Does something else while it is traced."""

    def __init__(self, other: Callable[[], None]) -> None:
        super().__init__()
        self.other = other

    def forward(self, x: Tensor) -> Tensor:
        self.other()
        return x.relu()


def test_what_other_threads_run_meanwhile_is_not_traced() -> None:
    found: list[Tensor] = []
    layer = nn.BatchNorm2d(3).eval()

    def other() -> None:
        thread = Thread(target=lambda: found.append(layer(EXAMPLE)))
        thread.start()
        thread.join()

    graph = lower(Meanwhile(other).eval(), EXAMPLE)
    assert len(graph.ops) == 1
    assert torch.equal(found[0], EXAMPLE)


def test_of_two_threads_one_waits_and_modules_are_called_as_ever_afterwards() -> None:
    called, counts, ended = nn.Module.__call__, [], Event()

    def wait() -> None:
        ended.wait()

    def second() -> None:
        counts.append(len(lower(Meanwhile(wait).eval(), EXAMPLE).ops))

    thread = Thread(target=second, daemon=True)
    try:
        counts.append(len(lower(Meanwhile(thread.start).eval(), EXAMPLE).ops))
    finally:
        ended.set()
    thread.join()
    assert counts == [1, 1]
    assert nn.Module.__call__ is called

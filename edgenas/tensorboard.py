"""A file of scalars as TensorBoard reads it, written by TensorBoard's own package where that is installed.

That package needs no torch, but takes 0.3 s to import: it is imported where a file is begun.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from typing import Any

FILE = "events.out.tfevents.edgenas"  # TensorBoard knows its files by the middle of their names


def is_installed() -> bool:
    return importlib.util.find_spec("tensorboard") is not None


class Scalars:
    """Writes scalars to `file` as they come; each is in it when `add` returns. Raises what writing to it raises."""

    def __init__(self, file: io.RawIOBase | io.BufferedIOBase, wall_s: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        self._records = RecordWriter(file)
        self._write(Event(wall_time=wall_s, file_version="brain.Event:2"))

    def add(self, step: int, wall_s: float, values: Mapping[str, float]) -> None:
        """`values` by their tags at `step`, in one event; `wall_s`: seconds since 1970."""
        scalars = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(self._event(wall_time=wall_s, step=step, summary=self._summary(value=scalars)))

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()

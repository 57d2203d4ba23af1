"""The folder of an ended `edgenas auto`, as benchmarks go on from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from edgenas import run as runs
from edgenas import schema
from edgenas.auto.job import SEARCH, SPLIT, STOCK
from edgenas.auto.plan import AutoRequest, PhotoSpace, check
from edgenas.auto.start import recorded
from edgenas.errors import DataError
from edgenas.package.export import FORMATS
from edgenas.train import TrainSettings
from edgenas.train.files import Trained, load_trained, read_result


@dataclass(frozen=True)
class Job:
    """What is in the folder `path`."""

    path: Path
    record: dict[str, Any]
    request: AutoRequest
    space: PhotoSpace

    @property
    def dataset(self) -> str:
        return str(self.path / SPLIT)

    @property
    def classes(self) -> int:
        return len(self.record["photos"]["classes"])

    @property
    def photos(self) -> int:
        """To train on."""
        count: int = self.record["photos"]["images"]["train"]
        return count

    @property
    def epochs(self) -> int:
        """Of the winner's training."""
        count: int = self.record["done"]["train"]["epochs"]
        return count

    @property
    def form(self) -> str:
        """Of the model file that is deployed."""
        (device,) = self.request.profiles()
        return device.model_format if device.model_format in FORMATS else "tflite"

    @cached_property
    def recipe(self) -> TrainSettings:
        """By which the winner was trained."""
        result = read_result(self.path / SEARCH / "train")
        assert result is not None
        return schema.settings(TrainSettings, result["settings"])

    @cached_property
    def winner(self) -> Trained:
        return replace(load_trained(self.path / SEARCH), dataset=self.dataset)

    @cached_property
    def stock(self) -> Trained | None:
        """None where there is none within the limits, or where it is the winner."""
        if not self.record["done"].get("baseline", {}).get("epochs"):
            return None
        return replace(load_trained(self.path / STOCK), dataset=self.dataset)

    def said_ms(self, folder: str) -> float | None:
        """The latency of the network in `folder`, as its search measured or predicted it last."""
        winner = (runs.open_run(str(self.path / folder)).result() or {})["winner"]
        again = (winner["measured_again"] or {}).get("values", {})
        found: float | None = again.get("latency", winner["costs"].get("latency", {}).get("value"))
        return found


def open_job(path: Path) -> Job:
    try:
        record, request = recorded(path)
    except DataError as error:
        raise SystemExit(f"{path} holds no job of `edgenas auto` ({error})") from error
    if "package" not in record["done"]:
        raise SystemExit(f"the job in {path} has not ended; run: edgenas auto --resume {path}")
    if len(request.profiles()) > 1 or request.distill:
        raise SystemExit(f"the job in {path} is for several devices, or learnt from a teacher; give one without")
    return Job(path, record, request, check(request))

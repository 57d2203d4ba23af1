"""A run in the layout of MLflow's file store, which `mlflow ui`, `mlflow.search_runs` and `mlflow migrate-filestore`
read: EXPERIMENT/RUN/{meta.yaml,params,metrics,tags,artifacts}, one file a parameter, a metric or a tag; none of these
folders may be missing. The tables are artifacts.

All runs are in one experiment. The number of a run follows from what it is, so that a run that is exported again takes
the place of its earlier self.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from edgenas.report.logs import tables
from edgenas.report.logs.record import Record

EXPERIMENT, EXPERIMENT_ID = "EdgeNAS", "330311923"  # by number so that no other experiment has it
MAX_VALUE = 6000  # characters of a parameter, by MLflow's own bounds
MAX_TAG = 5000
_RUNNING, _FINISHED = 1, 3  # MLflow's states of runs
_LOCAL = 4  # ... and sources


def files(record: Record, folder: Path) -> dict[Path, bytes]:
    """Path -> content."""
    place = folder / EXPERIMENT_ID / record.identity
    started_ms = round(1000 * record.started_s)
    ended_ms = started_ms + round(1000 * record.seconds)
    found = {folder / EXPERIMENT_ID / "meta.yaml": _meta({
        "artifact_location": (folder / EXPERIMENT_ID).absolute().as_uri(),
        "creation_time": started_ms,
        "experiment_id": EXPERIMENT_ID,
        "last_update_time": started_ms,
        "lifecycle_stage": "active",
        "name": EXPERIMENT,
    })}  # fmt: skip
    found[place / "meta.yaml"] = _meta({
        "artifact_uri": (place / "artifacts").absolute().as_uri(),
        "end_time": ended_ms if record.ended else None,
        "entry_point_name": "",
        "experiment_id": EXPERIMENT_ID,
        "lifecycle_stage": "active",
        "run_id": record.identity,
        "run_name": record.name,
        "run_uuid": record.identity,
        "source_name": "edgenas",
        "source_type": _LOCAL,
        "source_version": "",
        "start_time": started_ms,
        "status": _FINISHED if record.ended else _RUNNING,
        "tags": [],
        "user_id": "",
    })  # fmt: skip
    for name, value in record.settings.items():
        found[place / "params" / _key(name.replace("/", "_"))] = value[:MAX_VALUE].encode()
    tags = {
        **record.tags,
        "mlflow.runName": record.name,
        "mlflow.source.name": "edgenas",
        "mlflow.source.type": "LOCAL",
    }
    for name, value in tags.items():
        found[place / "tags" / _key(name.replace("/", "_"))] = value[:MAX_TAG].encode()
    for path, content in tables.files(record, place).items():
        found[place / "artifacts" / path.name] = content
    metrics = {"seconds": [f"{ended_ms} {record.seconds} 0\n"]}
    for step in record.steps:
        at_ms = started_ms + round(1000 * step.seconds)
        for name, number in step.values.items():
            metrics.setdefault(_key(name), []).append(f"{at_ms} {number} {step.step}\n")
    found |= {place / "metrics" / name: "".join(lines).encode() for name, lines in metrics.items()}
    return found


def _key(name: str) -> str:
    """As MLflow allows: letters, digits, _ - . / and blanks."""
    return "/".join(part.strip(".") or "_" for part in re.sub(r"[^A-Za-z0-9_\-./ ]", "_", name[:200]).split("/"))


def _meta(values: Mapping[str, object]) -> bytes:
    """YAML, whose values may be those of JSON."""
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()).encode()

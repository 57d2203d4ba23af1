"""Runs as a search leaves them, without searching."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgenas.architecture import SearchRequest
from edgenas.fitness import FitnessSettings
from edgenas.search.settings import SearchSettings


def header(**asked: Any) -> dict[str, Any]:
    """That of a search for `asked`, fields of SearchRequest."""
    return {
        "kind": "search",
        "created": "2026-01-01T00:00:00+00:00",
        "request": asdict(
            SearchRequest(**{"space": "nasbench201", "fitness": "table", "cost": "table", "refine": 0, **asked})
        ),
        "search_settings": asdict(SearchSettings()),
        "fitness_settings": {k: v for k, v in asdict(FitnessSettings()).items() if k not in ("eval_steps", "engine")},
        "device_profile_sha256": "0" * 64,
        "cost_fingerprint": "made up",
        "fitness_fingerprint": "made up",
        "fitness_source": "made up",
        "refine_settings": None,
        "refine_fingerprint": None,
        "versions": {"edgenas": "0.1.0"},
    }


def winner(genes: tuple[int, ...], arch_str: str, **costs: float) -> dict[str, Any]:
    """What a result says of a network; `costs` are values in canonical units."""
    units = {"latency": "ms", "energy": "mJ", "macs": "M", "params": "M"}
    return {
        "genes": list(genes),
        "arch_str": arch_str,
        "arch_idx": None,
        "score": 1.0,
        "phi": None,
        "costs": {name: {"value": value, "unit": units[name], "source": "a test"} for name, value in costs.items()},
        "test_accuracy": None,
        "fitness": 1.0,
        "measured_again": None,
        "refined": None,
    }


def result(found: dict[str, Any] | None, **change: Any) -> dict[str, Any]:
    """The result of a search that ended with the winner `found`."""
    return {
        "schema_version": 3,
        "device": "raspi4",
        "space": "nasbench201",
        "dataset": "cifar10",
        "constraints": [],
        "feasible": found is not None,
        "winner": found,
        "pareto": None,
        "front": None,
        "best_possible_accuracy": None,
        "confirmations": [],
        "refinement": None,
        "evaluations": {"requested": 1, "distinct": 1, "scored": 1},
        "seconds": 1.0,
        "run": "runs/made-up",
        **change,
    }

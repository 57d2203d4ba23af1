"""What older versions wrote into the files of a run, as today's schema says it. Nothing is checked here.

Version 1 called every score phi. Versions 1 and 2 called `scored` `trained`, and search settings said `economical`,
true or false, where they say today who survives. A run of an older version that today's EdgeNAS went on with has lines
of both kinds, so each is looked at by itself. Early results of version 3, too, have former names of what was refined.
"""

from __future__ import annotations

from typing import Any

from edgenas import plugins
from edgenas.architecture import renamed

_OF_REFINEMENT = {"classes": "architectures", "merit": "selection_score"}
SURVIVAL = {True: "unique", False: "generational"}  # by what `economical` was


def header(value: dict[str, Any]) -> dict[str, Any]:
    """What a run.json holds; its `schema_version` stays, for it says how to read the other files."""
    settings = value.get("search_settings")
    if value["schema_version"] >= 3 or not isinstance(settings, dict):
        return value
    economical = settings.get("economical")
    if not isinstance(economical, bool):
        return value
    kept = {name: each for name, each in settings.items() if name != "economical"}
    return {**value, "search_settings": {**kept, "survival": SURVIVAL[economical]}}


def request(value: dict[str, Any]) -> dict[str, Any]:
    """The request in a run.json, by today's names; early versions kept the entries of a size beside the others."""
    found = renamed(value)
    space = found.get("space")
    if "size" in found or not isinstance(space, str) or space not in plugins.names("spaces"):
        return found
    names = found.keys() & plugins.load("spaces", space)().sizes.keys()
    size = {name: found[name] for name in sorted(names) if found[name] is not None}
    return {**{name: each for name, each in found.items() if name not in names}, "size": size or None}


def record(value: Any, version: int, is_phi: bool) -> Any:
    """A line of a file, or what a result says of a network, in a run of `version`; `is_phi`: by its fitness a score is
    phi of Eq. 2."""
    if version >= 3 or not isinstance(value, dict):
        return value
    found = _scored(value)
    if version == 1 and "score" not in found and "phi" in found:
        found = {**found, "score": found["phi"], "phi": found["phi"] if is_phi else None}
    return found


def result(value: Any, version: int, is_phi: bool) -> Any:
    """What a result.json holds, in a run of `version`."""
    if not isinstance(value, dict):
        return value
    if "refinement" in value:
        value = {**value, "refinement": _refinement(value["refinement"])}
    if version >= 3:
        return value
    found = {**value, "winner": record(value.get("winner"), version, is_phi)}
    if isinstance(value.get("front"), list):
        found["front"] = [record(each, version, is_phi) for each in value["front"]]
    if isinstance(value.get("evaluations"), dict):
        found["evaluations"] = _scored(value["evaluations"])
    return found


def _refinement(value: Any) -> Any:
    found = _renamed(value)
    if isinstance(found, dict) and isinstance(found.get("architectures"), list):
        found["architectures"] = [_renamed(each) for each in found["architectures"]]
    return found


def _renamed(value: Any) -> Any:
    return {_OF_REFINEMENT.get(name, name): each for name, each in value.items()} if isinstance(value, dict) else value


def _scored(value: dict[str, Any]) -> dict[str, Any]:
    if "trained" not in value or "scored" in value:
        return value
    return {("scored" if name == "trained" else name): each for name, each in value.items()}

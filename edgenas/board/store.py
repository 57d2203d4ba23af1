"""Every measurement ever made, raw samples and all: one file each, under the hash of all that it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgenas.board.registry import data_dir
from edgenas.errors import BoardError, DataError
from edgenas.files import read_file, write_whole
from edgenas.text import MAX_JSON_BYTES, parse_json


def key_of(fingerprint: Mapping[str, Any]) -> str:
    """Equal fingerprints, equal keys: sha256 (hex) of their canonical JSON."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True, allow_nan=False).encode()).hexdigest()


class Store:
    """A folder of measurements. Files are whole or absent and never rewritten, so programs may share it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or data_dir() / "measurements"

    def find(self, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was measured under `fingerprint`, or None. A file that is damaged counts as none."""
        try:
            content = parse_json(read_file(self._path(fingerprint), MAX_JSON_BYTES))
        except (DataError, ValueError):
            return None
        if not isinstance(content, dict) or content.get("fingerprint") != json.loads(json.dumps(fingerprint)):
            return None
        return content

    def keep(self, fingerprint: Mapping[str, Any], measured: Mapping[str, Any]) -> Path:
        """Write `measured` under `fingerprint`. Raises BoardError where the disk is full or read-only."""
        path = self._path(fingerprint)
        content = {**measured, "fingerprint": fingerprint}
        write_whole(
            path,
            json.dumps(content, allow_nan=False).encode(),
            BoardError,
            "free some space, or point EDGENAS_STATE_DIR at another folder; what was measured before is kept",
        )
        return path

    def _path(self, fingerprint: Mapping[str, Any]) -> Path:
        key = key_of(fingerprint)
        return self.folder / key[:2] / f"{key}.json"

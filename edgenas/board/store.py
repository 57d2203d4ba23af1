"""Every measurement ever made, raw samples and all: one file each, under the hash of all that it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgenas.board.registry import data_dir
from edgenas.errors import BoardError, DataError
from edgenas.files import read_file, write_whole

_MAX_BYTES = 1 << 30  # of a measurement

log = logging.getLogger(__name__)


def key_of(fingerprint: Mapping[str, Any]) -> str:
    """Equal fingerprints, equal keys: sha256 (hex) of their canonical JSON."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True, allow_nan=False).encode()).hexdigest()


class Store:
    """A folder of measurements. Files are whole or absent and never rewritten, so programs may share it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or data_dir() / "measurements"
        self._warned = False

    def find(self, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was measured under `fingerprint`, or None. A file that is damaged counts as none."""
        path = self._path(fingerprint)
        if not os.path.lexists(path):
            return None
        from edgenas import schema
        from edgenas.schema.types import StoredMeasurement

        try:
            content = schema.parse(read_file(path, _MAX_BYTES))
            if not isinstance(content, dict) or content.get("fingerprint") != json.loads(json.dumps(fingerprint)):
                return None
            found: dict[str, Any] = schema.checked(StoredMeasurement, content)
        except (DataError, ValueError):
            return None
        return found

    def keep(self, fingerprint: Mapping[str, Any], measured: Mapping[str, Any]) -> Path | None:
        """Write `measured` under `fingerprint`, and say where. A disk that is full or read-only is only logged, once:
        what was measured is known all the same."""
        path = self._path(fingerprint)
        content = {**measured, "fingerprint": fingerprint}
        advice = "free some space, or point EDGENAS_STATE_DIR at another folder"
        try:
            write_whole(path, json.dumps(content, allow_nan=False).encode(), BoardError, advice)
        except BoardError as error:
            if not self._warned:
                log.warning("what is measured now is not kept, and will be measured again: %s", error)
            self._warned = True
            return None
        return path

    def _path(self, fingerprint: Mapping[str, Any]) -> Path:
        key = key_of(fingerprint)
        return self.folder / key[:2] / f"{key}.json"

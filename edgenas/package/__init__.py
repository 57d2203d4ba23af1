"""From a trained network to an archive that runs elsewhere.

export(run, formats)         export.py: checked model files and golden images in RUN/export
build(run, path)             build.py: these, with manifest, model card and runner, in one reproducible tar.gz
verify(path)                 verify.py: whether such an archive is whole and its models do what they did
runner.py                    the archive's run.py: needs numpy and one runtime, and nothing of EdgeNAS
manifest.schema.json         JSON schema (a part of draft 2020-12) of manifest.json
"""

from __future__ import annotations

MANIFEST_VERSION = 1

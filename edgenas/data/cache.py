"""Filling the user's cache: download or import a known file, check it, keep it in the form that is read fastest.

Whatever is written goes to a temporary name first and is renamed once it is whole, so that an interruption leaves the
cache as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from edgenas import plugins
from edgenas.architecture import Published
from edgenas.data import files
from edgenas.data.files import KnownFile
from edgenas.errors import DataError, UsageError
from edgenas.files import locked, replace
from edgenas.text import parse_json

_TIMEOUT_S = 30  # without an answer
# Data sets that a benchmark file covers, each a dict of arrays: {data set: {column: array}}.
_Tables = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Check:
    """Whether the copy of `name` at `path` is good; `detail` says how that is known, or what is wrong."""

    name: str
    path: Path
    ok: bool
    detail: str


def fetch(name: str, progress: Any = None) -> Path:
    """Download `name`, a key of files.KNOWN, into the cache, check its content, and return where it lies.

    A good copy in the cache is not downloaded again. `progress` is a progress bar as pooch takes them. Raises
    DataError where the source cannot be reached or gives something else, and where there is nothing to download.
    """
    entry = files.known(name)
    bring = f"edgenas data import {name} FILE"
    if entry.url is None:
        raise DataError(f"{entry.title} has no address to download from; get it from {entry.home} and run: {bring}")
    kept = files.cache_dir() / (_converted(name) or entry.download_name)
    if kept.exists() and _is_fetched(entry, kept):
        return kept
    with _writing(entry.download_name) as part:
        _download(entry.url, part, bring, progress)
        try:
            _check_fetched(entry, part)
        except DataError as error:
            raise DataError(
                f"{entry.url} gave a file {error}; try again later, or get the file from {entry.home} and run: {bring}"
            ) from error
        return _store(entry, part, entry.download_name) if _converted(name) else _publish(part, entry.download_name)


def _check_fetched(entry: KnownFile, path: Path) -> None:
    """Raises DataError where `path` is not what the address of `entry` should give, saying what it is."""
    if entry.digests:
        kind, expected = entry.digests[entry.download_name]
        found = files.digest(path, kind)
        if found != expected:
            raise DataError(f"with {files.KINDS[kind]} {found}, not the official {expected}")
        return
    reader = _reader(entry.name)
    assert reader is not None
    try:
        reader(path)
    except DataError as error:
        raise DataError(f"that is none of {entry.title}") from error


def import_(name: str, path: Path) -> Path:
    """Take the user's copy of `name` at `path` into the cache, once its content is checked; return where it lies.

    Benchmarks are converted to npz, with the name and sha256 of `path` kept inside; a data set that an earlier import
    brought and this one lacks is kept. Raises DataError for content that is not what `name` should be.
    """
    entry = files.known(name)
    if not os.path.exists(path):
        raise DataError(f"there is no file {path}; check the path given to: edgenas data import {name} FILE")
    if not (path.is_dir() if name == "imagenet16-120" else path.is_file()):  # nor a pipe or device, without an end
        kind = "the file itself" if path.is_dir() else "the folder that holds train_data_batch_1 to 10 and val_data"
        raise DataError(f"{path} cannot be {entry.title}; give {kind} to: edgenas data import {name} FILE")
    try:
        return _store(entry, path, path.name)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


@dataclass(frozen=True)
class Verified:
    """What `verify` found, and the `problem` that names the bad ones and what to do about them; None where there are
    none."""

    checks: list[Check]
    problem: DataError | None


def verify(name: str | None = None) -> Verified:
    """Check every copy on this machine of `name`, or of all known files: by hash where it is official, else by reading.

    Raises DataError for a `name` that is not on this machine.
    """
    if name is not None and files.locate(name) is None:
        raise files.absent(name)
    checks = []
    for each in [name] if name is not None else files.KNOWN:
        for path in files.locate_all(each):
            try:
                checks.append(Check(each, path, True, _validate(files.known(each), files.checked(path))))
            except DataError as error:
                checks.append(Check(each, path, False, str(error)))
            except OSError as error:
                checks.append(Check(each, path, False, f"{path} cannot be read ({error.strerror})"))
    bad = [each for each in checks if not each.ok]
    if not bad:
        return Verified(checks, None)
    listed, command = ", ".join(str(each.path) for each in bad), files.known(bad[0].name).command
    return Verified(checks, DataError(f"damaged or not what it should be: {listed}; {command} replaces it"))


def _validate(entry: KnownFile, path: Path) -> str:
    """How the content of `path` is known to be good; raises DataError where it is not."""
    matching = _official_name(entry, path)
    if matching is not None:
        return f"{files.KINDS[entry.digests[matching][0]]} agrees"
    reader = _reader(entry.name)
    if reader is None:
        kinds = "; ".join(f"{files.KINDS[kind]} should be {hexdigest}" for kind, hexdigest in entry.digests.values())
        raise DataError(
            f"{path} is not the official file of {entry.title} ({kinds}); get it again: {entry.command}"
            if entry.url
            else f"{path} is not the known file of {entry.title} ({kinds}); get the right one from {entry.home}"
        )
    held = f"readable, holds {', '.join(sorted(reader(path)))}"
    if path.name == _converted(entry.name):
        with contextlib.suppress(KeyError, ValueError):  # made by hand
            return f"{held}; made from {', '.join(sorted({each['file'] for each in _provenance(path).values()}))}"
    return f"{held}; no version known by hash" if entry.digests else held


def _official_name(entry: KnownFile, path: Path) -> str | None:
    if path.is_dir():
        return None
    found: dict[str, str] = {}
    for official, (kind, expected) in entry.digests.items():
        if kind not in found:
            found[kind] = files.digest(path, kind)
        if found[kind] == expected:
            return official
    return None


def _reader(name: str) -> Callable[[Path], _Tables] | None:
    """What reads the file called `name`; the names of what it gives say what the file holds. None where content is
    known by its hash alone."""

    def folder(path: Path) -> _Tables:
        from edgenas.data.images import read_imagenet16

        return {f"{len(read_imagenet16(path, split).labels):,} {split} images": {} for split in ("train", "test")}

    def trained(path: Path) -> _Tables:
        space = plugins.load("spaces", name)()
        with _looking_into(name):
            assert isinstance(space, Published)
            space.read(path)
        return {f"the weights of {name}": {}}

    def predictor(path: Path) -> _Tables:
        from edgenas.data.ofa import read_predictor

        with _looking_into(name):
            return {f"{len(read_predictor(path))} layers": {}}

    def networks(path: Path) -> _Tables:
        from edgenas.data.ofa import read_networks

        return {f"{len(read_networks(path))} networks": {}}

    own = {"imagenet16-120": folder, "ofa-predictor": predictor, "ofa-networks": networks}
    if name in own:
        return own[name]
    return _table_readers().get(name) or (trained if _is_published(name) else None)


@contextlib.contextmanager
def _looking_into(name: str) -> Iterator[None]:
    """Raises UsageError where what reads the file called `name` is not installed."""
    try:
        yield
    except ImportError as error:
        raise UsageError(f"to look into {files.known(name).title}, edgenas needs {plugins.lacking(error)}") from error


def _is_published(name: str) -> bool:
    return name in plugins.names("spaces") and isinstance(plugins.load("spaces", name)(), Published)


def _table_readers() -> dict[str, Callable[[Path], _Tables]]:
    """Of the files that benchmarks are made of."""
    benchmarks = [plugins.load("benchmarks", name)() for name in plugins.names("benchmarks")]
    return {name: reader for each in benchmarks for name, reader in each.readers.items()}


def _converted(name: str) -> str | None:
    return f"{name}.npz" if name in _table_readers() else None


def _is_fetched(entry: KnownFile, kept: Path) -> bool:
    if kept.name == entry.download_name:
        with contextlib.suppress(DataError):
            _check_fetched(entry, kept)
            return True
        return False
    try:
        return any(source["official"] == entry.download_name for source in _provenance(kept).values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile):
        return False  # damaged: get it again


def _provenance(path: Path) -> dict[str, dict[str, str]]:
    """{data set: origin} of what a converted npz was made of.

    An origin is the source's file name ("file"), its "sha256", and its name as an "official" file or "".
    """
    import numpy as np

    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        read: dict[str, dict[str, str]] = parse_json(str(archive["provenance"]))
    return read


def _store(entry: KnownFile, path: Path, called: str) -> Path:
    """Check what lies at `path`, and put it, or what it converts to, into the cache."""
    converted = _converted(entry.name)
    if converted is None:
        _validate(entry, path)
        with _writing(entry.file_names[0]) as part:
            if path.is_dir():
                part.mkdir()
                from edgenas.data.images import IMAGENET16_PARTS

                for name in (name for names in IMAGENET16_PARTS.values() for name in names):
                    shutil.copyfile(path / name, part / name)
            else:
                shutil.copyfile(path, part)
            return _publish(part, entry.file_names[0])
    reader = _table_readers()[entry.name]
    tables = reader(path)
    origin = {"file": called, "sha256": files.digest(path, "sha256"), "official": _official_name(entry, path) or ""}
    provenance = dict.fromkeys(tables, origin)
    kept = files.cache_dir() / converted
    with _writing(converted) as part, _changing(kept):
        if kept.exists():
            with contextlib.suppress(DataError, OSError, ValueError, KeyError, BadZipFile):  # a damaged one is replaced
                older, origins = reader(kept), _provenance(kept)
                tables, provenance = {**older, **tables}, {**origins, **provenance}
        write_npz(part, tables, provenance)
        return _publish(part, converted)


def _changing(kept: Path) -> contextlib.AbstractContextManager[None]:
    """Hold `kept`, which programs change one after another."""
    busy = f"another program has held {kept} for a minute; end it, then run the same command again"
    return locked(kept, busy, DataError, "make the cache writable, or point EDGENAS_CACHE_DIR at another folder")


def write_npz(path: Path, tables: _Tables, provenance: dict[str, dict[str, str]], *, compressed: bool = False) -> None:
    """`tables` and where each data set of them comes from, in the layout that is read fastest; `compressed` takes a
    third of the room, and a few ms more to read."""
    import numpy as np

    arrays = {f"{dataset}/{column}": values for dataset, each in tables.items() for column, values in each.items()}
    with path.open("wb") as stream:
        save = np.savez_compressed if compressed else np.savez
        save(stream, provenance=np.array(json.dumps(provenance)), **arrays)


@contextlib.contextmanager
def _writing(target: str) -> Iterator[Path]:
    """A temporary path in the cache for what is to become `target`; nothing is left of it unless it was published."""
    folder = files.cache_dir()
    holder = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{target}.", dir=folder))
        yield holder / target
    except OSError as error:
        raise DataError(
            f"the cache {folder} cannot be written ({error.strerror or error}); make it a folder you can write to, with"
            " room in it, or point EDGENAS_CACHE_DIR at one"
        ) from error
    finally:
        if holder is not None:
            shutil.rmtree(holder, ignore_errors=True)


def _publish(part: Path, target: str) -> Path:
    kept = files.cache_dir() / target
    if part.is_file():
        with part.open("r+b") as stream:  # Windows takes no other for it
            os.fsync(stream.fileno())
        replace(part, kept)
        return kept
    with _changing(kept):  # a folder cannot be replaced in one go
        if kept.exists():
            kept.rename(part.with_name("replaced"))
        replace(part, kept)
    return kept


def _download(url: str, path: Path, bring: str, progress: Any) -> None:
    import pooch
    import requests

    try:
        pooch.HTTPDownloader(progressbar=progress or False, timeout=_TIMEOUT_S)(url, str(path), None)
    except requests.HTTPError as error:
        answer = error.response.status_code if error.response is not None else error
        raise DataError(f"{url} answered {answer}; get the file elsewhere and run: {bring}") from error
    except requests.RequestException as error:
        raise DataError(
            f"{url} could not be reached; connect to a network, or get the file and run: {bring}"
        ) from error

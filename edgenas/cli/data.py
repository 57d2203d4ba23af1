"""`edgenas data` and `edgenas doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgenas.cli.options import Json, option
from edgenas.cli.results import show
from edgenas.units import parse_share

app = typer.Typer(
    no_args_is_help=True,
    help="List, download, import and check data; divide photos into parts. Example: edgenas data list",
)

_Name = Annotated[str, typer.Argument(help="A name that `edgenas data list` shows.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show what data there is to have, what of it is here, and the command that gets the rest.

    Example: edgenas data list
    """
    from edgenas.report.doctor import data_facts, data_text

    facts = data_facts()
    show(facts, as_json, lambda: data_text(facts))


@app.command()
def fetch(name: _Name) -> None:
    """Download a file into the cache and check its hash.

    Example: edgenas data fetch hw-nas-bench
    """
    from edgenas.data.cache import fetch
    from edgenas.report.doctor import DownloadBar

    with DownloadBar(name) as bar:
        path = fetch(name, bar)
    print(f"{name}: {path}")


@app.command("import")
def import_(
    name: _Name, file: Annotated[Path, typer.Argument(help="Your copy of it (a folder for imagenet16-120).")]
) -> None:
    """Check a file you have and take it into the cache.

    Example: edgenas data import hw-nas-bench HW-NAS-Bench-v1_0.pickle
    """
    from edgenas.data.cache import import_

    print(f"{name}: {import_(name, file)}")


@app.command()
def verify(name: Annotated[str | None, typer.Argument(help="One name only.")] = None, as_json: Json = False) -> None:
    """Check the files on this machine: by hash where they are official, else by reading them. Exits with 7 on failure.

    Example: edgenas data verify hw-nas-bench
    """
    from edgenas.data.cache import verify
    from edgenas.report.doctor import checks_json, checks_text

    found = verify(name)
    show(checks_json(found.checks), as_json, lambda: checks_text(found.checks), found.problem)


@app.command()
def split(
    photos: Annotated[str, typer.Argument(help="A folder of images, or a list of them.")],
    path: Annotated[Path, option("The list to write, a CSV file.", "--output", "-o")] = Path("split.csv"),
    test: Annotated[str, option("Share of the images to test on.")] = "20%",
    validation: Annotated[str, option("Share of the images that choices are made by.")] = "10%",
    seed: Annotated[
        int | None,
        option("Draw by chance: same seed, same parts.", default="every fifth to test on, and so on"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Divide photos into parts for training, validation and testing, once, and write that down as a list.

    Example: edgenas data split photos -o split.csv
    """
    from edgenas.data.split import split
    from edgenas.report.photos import split_text

    done = split(photos, path, parse_share(test, "test"), parse_share(validation, "validation"), seed)
    show(done.record(), as_json, lambda: split_text(done))


@app.command()
def clear(as_json: Json = False) -> None:
    """Remove the photos that were decoded and kept in the cache.

    Example: edgenas data clear
    """
    from edgenas.data import photo_cache

    freed = photo_cache.clear()
    where = str(photo_cache.folder())
    show({"folder": where, "bytes": freed}, as_json, lambda: f"{freed / (1 << 20):,.1f} MiB removed from {where}")


def doctor(as_json: Json = False) -> None:
    """Say what is here, what is missing and the command that gets it. Exits with 7 where something is broken.

    Example: edgenas doctor
    """
    from edgenas.report.doctor import diagnose, diagnosis_text

    found = diagnose()
    show(found.report, as_json, lambda: diagnosis_text(found.report), found.problem)

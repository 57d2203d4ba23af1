"""The public files EdgeNAS knows: what each is, where it comes from, how its content is checked, where it lies here.

A file is looked for in the folder that EDGENAS_DATA_DIR names, then in the user's cache (EDGENAS_CACHE_DIR moves it).
One that bears the name of an official file is used with the official content only; that is looked at whenever it is
about to be read, which takes a small part of the time that reading it takes. edgenas.data.cache fills the cache.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from edgenas.errors import DataError, UnknownNameError
from edgenas.files import open_file, unreadable

KINDS = {"git": "git blob id", "md5": "md5", "sha256": "sha256"}  # of digests -> what each is called


@dataclass(frozen=True)
class KnownFile:
    """One thing a user can have: `file_names` are the names it goes by, best first.

    `digests` maps the name of an official file to (kind, hex digest), kind one of "git" (git blob id, the sha1 of
    "blob <size>\\0" and the content), "md5" or "sha256". `url` is where `data fetch` gets
    `file_names`' first official one, None where no stable address exists. What has no digest is known by reading it.
    """

    name: str
    title: str
    origin: str
    use: str
    file_names: tuple[str, ...]
    digests: dict[str, tuple[str, str]] = field(default_factory=dict)
    url: str | None = None
    home: str = ""

    @property
    def download_name(self) -> str:
        """Name of the file that `url` gives."""
        return next(iter(self.digests), self.file_names[0])

    @property
    def command(self) -> str:
        """The command that gets it."""
        bring = f"edgenas data import {self.name} FILE"
        return f"edgenas data fetch {self.name}" if self.url else f"{bring} (from {self.home})"


_RESNETS = "https://github.com/akamaster/pytorch_resnet_cifar10"
_TORONTO = "https://www.cs.toronto.edu/~kriz"
_OFA = "https://github.com/mit-han-lab/once-for-all"


def _ofa(width: str) -> KnownFile:
    """The checkpoint of the space of the same name, at this width."""
    file = f"ofa_mbv3_d234_e346_k357_w{width}"
    return KnownFile(
        name=f"ofa-mbv3-w{width}",
        title=f"Once-for-all MobileNetV3, width {width}",
        origin="mit-han-lab/once-for-all, MIT",
        use=f"trained weights of --space ofa-mbv3-w{width}",
        file_names=(file,),
        url=f"https://raw.githubusercontent.com/han-cai/files/master/ofa/ofa_nets/{file}",
        home=_OFA,
    )


SHIPPED = Path(__file__).parent / "shipped"  # its NOTICE.txt says what is there, whose, and what made it

KNOWN: dict[str, KnownFile] = {
    known.name: known
    for known in (
        KnownFile(
            name="hw-nas-bench",
            title="HW-NAS-Bench v1.0",
            origin="GATECH-EIC/HW-NAS-Bench, MIT",
            use="measured latency and energy on six devices",
            file_names=("hw-nas-bench.npz", "HW-NAS-Bench-v1_0.pickle", "hwnasbench_nb201_cifar10.csv.xz"),
            digests={
                "HW-NAS-Bench-v1_0.pickle": ("git", "b0634cb7f6e7be07192c77833df9eafa4baf705e"),
                "hwnasbench_nb201_cifar10.csv.xz": (
                    "sha256",
                    "9031daa5b7aefc44b476612d3710d7d334b5e4f3ac6e460f551013aa9675fa4b",
                ),
            },
            url="https://raw.githubusercontent.com/GATECH-EIC/HW-NAS-Bench/HEAD/HW-NAS-Bench-v1_0.pickle",
            home="https://github.com/GATECH-EIC/HW-NAS-Bench",
        ),
        KnownFile(
            name="nasbench201",
            title="NAS-Bench-201 accuracies",
            origin="D-X-Y/NAS-Bench-201, MIT",
            use="test accuracy of the winner and of the best possible",
            file_names=("nasbench201.npz", "NAS-Bench-201-v1_1-096897.pth", "nb201_cifar10.csv.xz"),
            digests={
                "nb201_cifar10.csv.xz": ("sha256", "8ef5a0f3bdec8925feca9062714bb73e4c0ac0b4941efe7f1eec526f59af4298")
            },
            home="https://github.com/D-X-Y/NAS-Bench-201",
        ),
        KnownFile(
            name="cifar10",
            title="CIFAR-10",
            origin="A. Krizhevsky, University of Toronto",
            use="images for live scores",
            file_names=("cifar-10-python.tar.gz",),
            digests={"cifar-10-python.tar.gz": ("md5", "c58f30108f718f92721af3b95e74349a")},
            url=f"{_TORONTO}/cifar-10-python.tar.gz",
            home=f"{_TORONTO}/cifar.html",
        ),
        KnownFile(
            name="cifar100",
            title="CIFAR-100",
            origin="A. Krizhevsky, University of Toronto",
            use="images for live scores",
            file_names=("cifar-100-python.tar.gz",),
            digests={"cifar-100-python.tar.gz": ("md5", "eb9058c3a382ffc7106e4002c42a8d85")},
            url=f"{_TORONTO}/cifar-100-python.tar.gz",
            home=f"{_TORONTO}/cifar.html",
        ),
        KnownFile(
            name="imagenet16-120",
            title="ImageNet16-120 (the folder of the official ImageNet16 batches)",
            origin="P. Chrabaszcz et al., from ImageNet: for research only",
            use="images for live scores",
            file_names=("imagenet16-120", "ImageNet16-120", "ImageNet16"),
            home="https://image-net.org/download-images.php",
        ),
        KnownFile(
            name="cifar10-sample",
            title="4,000 images of CIFAR-10",
            origin="CIFAR-10 by way of karpathy/convnetjs",
            use="images for live scores where the CIFAR-10 archive is absent",
            file_names=("cifar10_lossless_4000.npz",),
            digests={
                "cifar10_lossless_4000.npz": (
                    "sha256",
                    "8d598bca065bbe0f535cd0eec0acfe77f398480ce048b9a62a48476da311e77a",
                )
            },
            home="whoever gave you the 4,000-image npz",
        ),
        KnownFile(
            name="resnet20",
            title="ResNet-20 trained on CIFAR-10",
            origin="akamaster/pytorch_resnet_cifar10, BSD-2-Clause",
            use="reference network of live scores",
            file_names=("resnet20-12fca82f.th",),
            digests={
                "resnet20-12fca82f.th": ("sha256", "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8")
            },
            url=f"{_RESNETS}/raw/HEAD/pretrained_models/resnet20-12fca82f.th",
            home=_RESNETS,
        ),
        KnownFile(
            name="resnet56",
            title="ResNet-56 trained on CIFAR-10",
            origin="akamaster/pytorch_resnet_cifar10, BSD-2-Clause",
            use="reference network of live scores (--reference resnet56)",
            file_names=("resnet56-4bfd9763.th",),
            digests={
                "resnet56-4bfd9763.th": ("sha256", "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367")
            },
            url=f"{_RESNETS}/raw/HEAD/pretrained_models/resnet56-4bfd9763.th",
            home=_RESNETS,
        ),
        _ofa("1.0"),
        _ofa("1.2"),
        KnownFile(
            name="ofa-predictor",
            title="Once-for-all's accuracy predictor",
            origin="mit-han-lab/once-for-all, no licence stated",
            use="accuracies of networks of ofa-mbv3-w1.2 on ImageNet (`edgenas paper table1`)",
            file_names=("acc_predictor.pth", "ofa/acc_predictor.pth"),
            home=_OFA,
        ),
        KnownFile(
            name="ofa-networks",
            title="a list of Once-for-all's published networks",
            origin="mit-han-lab/once-for-all, MIT",
            use="rows of `edgenas paper table1`",
            file_names=("published_networks.json", "ofa/published_networks.json"),
            home=_OFA,
        ),
    )
}


def known(name: str) -> KnownFile:
    """The entry called `name`; raises UnknownNameError with the nearest name."""
    if name not in KNOWN:
        raise UnknownNameError("data file", name, KNOWN, "`edgenas data list` shows them all")
    return KNOWN[name]


def data_dir() -> Path | None:
    """The folder EDGENAS_DATA_DIR names, None where it is not set; raises DataError where it points nowhere."""
    text = os.environ.get("EDGENAS_DATA_DIR")
    if not text:
        return None
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise DataError(f"EDGENAS_DATA_DIR is '{text}', which is no folder; point it at your data or unset it")
    return folder


def cache_dir() -> Path:
    """The user's cache folder for EdgeNAS, which need not exist yet."""
    text = os.environ.get("EDGENAS_CACHE_DIR")
    if text:
        return Path(text).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgenas", appauthor=False))


def locate_all(name: str) -> list[Path]:
    """Every copy of `name` on this machine, best first: all in EDGENAS_DATA_DIR, then all in the cache, then that which
    came with the program."""
    entry = known(name)
    folders = [folder for folder in (data_dir(), cache_dir(), SHIPPED) if folder is not None]
    paths = [folder / file for folder in folders for file in entry.file_names]
    return [path for path in paths if path.is_file() or path.is_dir()]  # no pipe or device, which may never end


def locate(name: str) -> Path | None:
    """Where `name`, a key of KNOWN, lies on this machine: EDGENAS_DATA_DIR first, then the cache; None if nowhere."""
    return next(iter(locate_all(name)), None)


def require(name: str) -> Path:
    """As `locate`, to be read: raises DataError naming the command that gets the file where it is absent, and as
    `checked` does."""
    path = locate(name)
    if path is None:
        raise absent(name)
    return checked(path)


def absent(name: str) -> DataError:
    """The error that says that no copy of `name` is here, and how to get one."""
    entry = known(name)
    bring = f"edgenas data import {name} FILE"
    way = f"run: edgenas data fetch {name} (or {bring})" if entry.url else f"get it from {entry.home} and run: {bring}"
    return DataError(f"{entry.title} is not on this machine; {way}")


def checked(path: Path) -> Path:
    """`path` itself, to be read. Raises DataError where it bears the name of an official file whose digest is known and
    is not that file, or cannot be read."""
    for entry in KNOWN.values():
        if path.name in entry.digests:
            kind, expected = entry.digests[path.name]
            try:
                state = path.stat()
                found = _digest_of(path, kind, state.st_size, state.st_mtime_ns)
            except OSError as error:
                raise unreadable(path, error) from error
            if found != expected:
                raise DataError(
                    f"{path} is not the official file of that name ({KINDS[kind]} {found}, not {expected}); remove it,"
                    f" or put the right one in its place: {entry.command}"
                )
    return path


@cache
def _digest_of(path: Path, kind: str, size: int, mtime_ns: int) -> str:
    """The digest of the file as it was at that time: one that changes is looked at again."""
    return digest(path, kind)


def digest(path: Path, kind: str) -> str:
    """Hex digest of the file at `path`; `kind` is "git" (git blob id), "md5" or "sha256"."""
    if kind == "git":
        hasher = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    else:
        hasher = hashlib.new(kind, usedforsecurity=False)
    with open_file(path) as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()

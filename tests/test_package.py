"""Export, package and verify, end to end on a network trained on digits; and archives that are not to be trusted."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.cli import main
from edgenas.data.images import ImageSet, load_images
from edgenas.errors import DataError, DisagreementError, ExportError, UnknownNameError
from edgenas.lower import lower
from edgenas.lower.verify import Limits
from edgenas.package import card, commands, remedies
from edgenas.package import export as exporting
from edgenas.package.build import FOLDER, _costs, build, run_py
from edgenas.package.export import ALL_FORMATS, FORMATS, export, export_trained, parse_formats
from edgenas.package.remedies import quantise
from edgenas.package.verify import verify, violation
from edgenas.run import Run, open_run
from edgenas.train.files import Trained, load_trained
from tests.conftest import ARCH
from tests.data.pngs import png

MODELS = {"model.onnx", "model.tflite", "model_f16.tflite", "model_int8.tflite"}


@pytest.fixture
def run_copy(trained_run: Path, archive: Path, tmp_path: Path) -> Run:
    """The run, exported already, to be spoiled."""
    return open_run(str(shutil.copytree(trained_run, tmp_path / "run")))


def unpacked(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def packed(path: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, each in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(each)
            tar.addfile(member, io.BytesIO(each))
    return path


def vouched(content: dict[str, bytes], change: Callable[[dict[str, Any]], None] = lambda _: None) -> dict[str, bytes]:
    """`content` with a changed manifest whose hashes fit again: what a careful forger would send."""
    manifest = json.loads(content[f"{FOLDER}/manifest.json"])
    models = [(record["file"], record) for record in manifest["models"]]
    for name, entry in [*manifest["files"].items(), *models]:
        each = content[f"{FOLDER}/{name}"]
        entry.update(bytes=len(each), sha256=hashlib.sha256(each).hexdigest())
    change(manifest)
    return {**content, f"{FOLDER}/manifest.json": json.dumps(manifest).encode()}


def run_command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code if isinstance(end.value.code, int) else 0


def test_the_whole_way_by_commands(trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, formats = tmp_path / "out", "onnx,tflite,tflite-f16,tflite-int8,edgetpu"
    assert run_command("export", str(trained_run), "--format", formats, "-o", str(out), "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert {model["file"] for model in record["models"]} == MODELS
    assert {path.name for path in out.iterdir()} >= MODELS
    for model in record["models"]:
        content = (out / model["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == model["sha256"]
        assert model["checked"]["images"] == len(load_images("digits", "test").labels)
        assert model["checked"]["relative_error"] <= (1e-5 if model["format"] in ("onnx", "tflite") else 1)
        assert model["checked"]["top1_agreement"] >= 0.98
        assert abs(model["checked"]["accuracy_drop"]) <= 0.02
    assert record["edgetpu"]["problems"] == []
    assert "edgetpu_compiler is not on PATH" in record["edgetpu"]["note"]
    package = tmp_path / "digits.tar.gz"
    assert run_command("package", str(trained_run), "-o", str(package)) == 0
    assert run_command("verify", str(package)) == 0
    printed = capsys.readouterr().out
    assert printed.count("passed") == 4
    assert "8 of 8 golden images" in printed


def test_built_twice_the_bytes_are_the_same(run_copy: Run, archive: Path, tmp_path: Path) -> None:
    build(run_copy, tmp_path / "again.tar.gz")
    shutil.rmtree(run_copy.path / "export")
    build(run_copy, tmp_path / "anew.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes()
    assert (tmp_path / "anew.tar.gz").read_bytes() == archive.read_bytes()


def test_manifest_and_card_say_what_it_is(archive: Path) -> None:
    content = unpacked(archive)
    manifest = json.loads(content[f"{FOLDER}/manifest.json"])
    assert manifest["architecture"]["arch_str"] == ARCH
    assert manifest["device"]["name"] == "raspi4"
    assert manifest["costs"] == {"latency": {"value": 4.2, "unit": "ms", "source": "a test"}}
    assert manifest["versions"]["lowering"].isdigit()
    int8 = next(model for model in manifest["models"] if model["format"] == "tflite-int8")
    assert int8["input"]["dtype"] == "int8"
    assert int8["input"]["layout"] == "NHWC"
    assert int8["input"]["scale"] > 0
    assert manifest["accuracies"][0]["of"] == "torch"
    card = content[f"{FOLDER}/MODEL_CARD.md"].decode()
    assert "latency <= 5 ms" in card
    assert "CC BY 4.0" in card
    assert "| class | images | right, % | most mistakes |" in card
    assert all(f"\n| {digit} | 3" in card for digit in range(10))  # 35 to 37 of each are for testing
    assert "\n| | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |\n" in card
    assert "split.csv" not in card
    assert all(file in card for file in MODELS)
    here = str(archive.parent.parent).encode()
    assert not [name for name, each in content.items() if here in each], "a path of this machine"


def card_of(manifest: dict[str, Any], **dataset: str) -> str:
    """The card of what `manifest` says, but of the data set `name`."""
    changed = {**manifest, "dataset": {**manifest["dataset"], **dataset}}
    return card.text(changed, {}, None)


def test_the_card_s_metadata_is_complete(archive: Path) -> None:
    manifest = json.loads(unpacked(archive)[f"{FOLDER}/manifest.json"])
    text = unpacked(archive)[f"{FOLDER}/MODEL_CARD.md"].decode()
    opened, block, rest = text.split("---\n", 2)
    assert opened == ""
    assert rest.startswith("\n# An image classifier of 10 classes")
    found = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in block.splitlines())}
    assert found["pipeline_tag"] == "image-classification"
    assert {"onnx", "tflite"} <= set(found["tags"])
    assert found["license"] == "unknown"
    assert "datasets" not in found, "the hub knows no such"
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
    values = {each["name"]: each["value"] for each in result["metrics"]}
    assert values["Accuracy (torch)"] == round(manifest["accuracies"][0]["percent"] / 100, 5)
    assert set(values) == {f"Accuracy ({each})" for each in ("torch", *MODELS)}
    assert '\ndatasets: ["uoft-cs/cifar10"]\n' in card_of(manifest, name="cifar10")


@pytest.mark.parametrize(
    "name", ["digits", "cifar10", "/home/me/my photos: (v2) # ü", "a: b\n---\nc", "{}", "'\"", ".", "\udc80"]
)
def test_hugging_face_s_library_takes_the_card(name: str, archive: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: pip install -e '.[dev]'")
    manifest = json.loads(unpacked(archive)[f"{FOLDER}/manifest.json"])
    text = card_of(manifest, name=name)
    made = hub.ModelCard(text)  # raises where the metadata are not what they should be
    results = made.data.eval_results
    assert [each.metric_value for each in results] == [round(e["percent"] / 100, 5) for e in manifest["accuracies"]]
    assert {(each.task_type, each.metric_type) for each in results} == {("image-classification", "accuracy")}
    assert all(re.fullmatch(r"([\w-]+/)?[\w.-]+", each.dataset_type) for each in results), "as the hub calls data sets"
    assert made.data.pipeline_tag == "image-classification"
    assert made.text.strip().startswith("# An image classifier of 10 classes")
    if name in ("digits", "cifar10"):
        assert {each.dataset_name for each in results} == {name}


def test_of_several_devices_each_is_named_with_its_limit_and_cost(run_copy: Run, tmp_path: Path) -> None:
    asked = json.loads((run_copy.path / "run.json").read_text())
    limits = {"edgetpu": 1.0, "raspi4": 5.0}
    asked["request"] |= {"device": "edgetpu,raspi4", "latency_ms": limits}
    (run_copy.path / "run.json").write_text(json.dumps(asked))
    result = json.loads((run_copy.path / "result.json").read_text())
    result["constraints"] = [
        {"metric": "latency", "limit": limit, "unit": "ms", "device": name} for name, limit in limits.items()
    ]
    costs = {
        f"latency@{name}": {"value": 0.9 * limit, "unit": "ms", "source": "a test"} for name, limit in limits.items()
    }
    result["winner"]["costs"] = costs
    (run_copy.path / "result.json").write_text(json.dumps(result))
    manifest = build(open_run(str(run_copy.path)), tmp_path / "two.tar.gz")
    assert manifest["device"] is None
    assert [each["name"] for each in manifest["devices"]] == list(limits)
    assert manifest["constraints"] == result["constraints"]
    assert manifest["costs"] == costs
    assert verify(tmp_path / "two.tar.gz")["manifest"] == manifest
    card = unpacked(tmp_path / "two.tar.gz")[f"{FOLDER}/MODEL_CARD.md"].decode()
    assert "; latency on edgetpu <= 1 ms; latency on raspi4 <= 5 ms\n" in card
    assert "- latency on raspi4: 4.5 ms (a test)" in card
    result["winner"]["genes"] = [0, 0, 0, 0, 0, 1]
    (run_copy.path / "result.json").write_text(json.dumps(result))
    anew = build(open_run(str(run_copy.path)), tmp_path / "anew.tar.gz")["costs"]
    assert {"latency@edgetpu", "latency@raspi4", "macs", "params"} == set(anew)


def test_the_card_is_silent_on_classes_where_they_were_not_counted(run_copy: Run, tmp_path: Path) -> None:
    path = run_copy.path / "train" / "result.json"
    found = json.loads(path.read_text())
    without = {name: value for name, value in found.items() if name != "classes"}
    for at, changed in enumerate(({**found, "test_images": 1}, {**found, "classes": None}, without)):
        path.write_text(json.dumps(changed))
        build(run_copy, tmp_path / f"{at}.tar.gz")
        assert "By class" not in unpacked(tmp_path / f"{at}.tar.gz")[f"{FOLDER}/MODEL_CARD.md"].decode()


def test_costs_of_another_network_than_the_winner_are_priced_anew(run_copy: Run, tmp_path: Path) -> None:
    result = json.loads((run_copy.path / "result.json").read_text())
    result["winner"]["genes"] = [0, 0, 0, 1, 0, 0]
    (run_copy.path / "result.json").write_text(json.dumps(result))
    run_copy.header["request"]["cost"] = "analytic"
    costs = build(run_copy, tmp_path / "other.tar.gz")["costs"]
    assert costs["macs"]["value"] > 0
    assert "a test" not in json.dumps(costs)


def test_what_was_exported_is_exported_once_more_only_where_something_is_missing(
    run_copy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, ...]] = []

    def counting(trained: Trained, folder: Path, formats: tuple[str, ...], **how: Any) -> dict[str, Any]:
        made.append(formats)
        return export_trained(trained, folder, formats, **how)

    monkeypatch.setattr("edgenas.package.build.export_trained", counting)
    for edgetpu, count in ((False, 0), (True, 1), (True, 1), (False, 1)):
        found = commands.export_once(str(run_copy.path), edgetpu)
        assert len(made) == count
        assert found.record == json.loads((found.folder / "export.json").read_text())
    (found.folder / "model.onnx").unlink()
    commands.export_once(str(run_copy.path), True)
    assert made == [ALL_FORMATS, ALL_FORMATS]


def no_int8_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = FORMATS["tflite-int8"]
    monkeypatch.setitem(FORMATS, kind.name, dataclasses.replace(kind, limits=Limits(relative_error=0.0)))


def test_a_file_that_disagrees_and_that_no_device_takes_is_left_out(
    run_copy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_int8_agrees(monkeypatch)
    shutil.rmtree(run_copy.path / "export")
    path = tmp_path / "without.tar.gz"
    assert run_command("package", str(run_copy.path), "-o", str(path)) == 0
    assert "left out: model_int8.tflite differs by" in capsys.readouterr().out
    content = unpacked(path)
    assert f"{FOLDER}/model_int8.tflite" not in content
    assert "\nLeft out: model_int8.tflite differs" in content[f"{FOLDER}/MODEL_CARD.md"].decode()
    found = verify(path)
    assert {each["file"] for each in found["models"]} == MODELS - {"model_int8.tflite"}
    ((file, problem),) = [(each["file"], each["problem"]) for each in found["manifest"]["left_out"]]
    assert file == "model_int8.tflite"
    assert "train longer" in problem
    again = tmp_path / "again.tar.gz"
    assert commands.package(str(run_copy.path), again)["left_out"] == found["manifest"]["left_out"]
    assert again.read_bytes() == path.read_bytes()


def test_a_file_that_disagrees_and_was_asked_for_or_is_deployed_is_refused(
    run_copy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_int8_agrees(monkeypatch)
    assert run_command("export", str(run_copy.path)) == 6
    assert "model_int8.tflite differs by" in capsys.readouterr().err
    assert (run_copy.path / "export" / "model_int8.tflite").exists()  # of the export before
    shutil.rmtree(run_copy.path / "export")
    commands.package(str(run_copy.path), tmp_path / "without.tar.gz")  # for no device that takes it
    header = json.loads((run_copy.path / "run.json").read_text())
    header["request"]["format"] = "tflite-int8"
    (run_copy.path / "run.json").write_text(json.dumps(header))
    with pytest.raises(DisagreementError, match=r"model_int8\.tflite"):
        commands.package(str(run_copy.path), tmp_path / "with.tar.gz")
    assert not (tmp_path / "with.tar.gz").exists()


def test_a_latency_that_was_measured_again_at_length_is_the_package_s(trained_run: Path) -> None:
    trained = load_trained(trained_run)
    macs = {"value": 3.0, "unit": "M", "source": "counted"}
    costs = {"latency": {"value": 4.0, "unit": "ms", "source": "quickly", "upper": 4.4}, "macs": macs}
    found: dict[str, Any] = {"genes": list(trained.arch.genes), "costs": costs, "measured_again": None}
    assert _costs({"winner": found}, {}, trained, []) == costs
    again = {"verdict": "PASS", "values": {"latency": 4.1}, "source": "at length"}
    latency = {"value": 4.1, "unit": "ms", "source": "at length"}
    assert _costs({"winner": {**found, "measured_again": again}}, {}, trained, []) == {"latency": latency, "macs": macs}
    again["reference_ms"] = {"latency": 0.5}
    beside = {"latency": {**latency, "reference_ms": 0.5}, "macs": macs}
    assert _costs({"winner": {**found, "measured_again": again}}, {}, trained, []) == beside


def test_files_that_changed_are_exported_again(run_copy: Run, archive: Path, tmp_path: Path) -> None:
    (run_copy.path / "export" / "model.onnx").write_bytes(b"of another network")
    build(run_copy, tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes()


BLOCKER = """
import sys, runpy
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["run.py"] + sys.argv[1:]
runpy.run_path("run.py", run_name="__main__")
"""


def run_in(folder: Path, blocked: set[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKER.format(blocked={*blocked, "edgenas", "torch", "PIL"})
    command = [sys.executable, "-I", "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def folder(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("elsewhere")
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    return place / FOLDER


@pytest.mark.parametrize(
    ("blocked", "passed", "skipped"),
    [({"onnxruntime", "onnx"}, 3, 1), ({"ai_edge_litert", "tflite_runtime"}, 1, 3)],
    ids=["only litert", "only onnxruntime"],
)
def test_the_runner_checks_itself_with_one_runtime(folder: Path, blocked: set[str], passed: int, skipped: int) -> None:
    done = run_in(folder, blocked, "--self-check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout.count("passed"), done.stdout.count("skipped")) == (passed, skipped)


def test_the_runner_without_a_runtime_says_so(folder: Path) -> None:
    done = run_in(folder, {"onnxruntime", "ai_edge_litert", "tflite_runtime"}, "--self-check")
    assert done.returncode == 2
    assert "pip install ai-edge-litert" in done.stderr


def test_the_runner_fails_where_a_model_differs(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    golden = np.load(copy / "golden" / "output.npy")
    np.save(copy / "golden" / "output.npy", golden * np.float32(8))
    done = run_in(copy, set(), "--self-check")
    assert done.returncode == 1
    assert done.stdout.count("FAILED") == 4


def test_the_runner_classifies_files(folder: Path, tmp_path: Path) -> None:
    images = np.load(folder / "golden" / "input.npy")
    top1 = json.loads((folder / "manifest.json").read_text())["golden"]["top1"]
    np.save(tmp_path / "one.npy", images[0])
    (tmp_path / "two.png").write_bytes(png(images[1]))
    for model in sorted(MODELS):
        done = run_in(folder, set(), "--model", model, "--json", str(tmp_path / "one.npy"), str(tmp_path / "two.png"))
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert [each["classes"][0]["name"] for each in found] == [str(top1[0]), str(top1[1])]
    done = run_in(folder, set(), "no-such.png", os.fsdecode(b"na\xefve.png"))
    assert done.returncode == 2
    assert done.stderr == (
        "run.py: cannot be read as an image: no-such.png (No such file or directory),"
        " na\\udcefve.png (No such file or directory)\n"
    )


def test_the_runner_is_python_3_6(tmp_path: Path) -> None:
    pytest.importorskip("vermin")
    (tmp_path / "run.py").write_bytes(run_py())
    command = [sys.executable, "-c", "import vermin; vermin.main()", "-t=3.6-", "--no-tips", str(tmp_path / "run.py")]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def refusal(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run_command("verify", str(path)) == 7
    error = capsys.readouterr().err
    assert error.startswith("edgenas: ")
    assert error.count("\n") == 1
    return error


def test_a_changed_byte_is_noticed(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("run.py", "model.onnx", "golden/input.npy", "MODEL_CARD.md"):
        content = unpacked(archive)
        content[f"{FOLDER}/{name}"] += b" "
        assert f"{name} in" in refusal(packed(tmp_path / "a.tar.gz", content), capsys)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../evil", tarfile.REGTYPE),
        (f"{FOLDER}/../../evil", tarfile.REGTYPE),
        ("/etc/evil", tarfile.REGTYPE),
        (f"{FOLDER}/link.txt", tarfile.SYMTYPE),
        (f"{FOLDER}/link.txt", tarfile.LNKTYPE),
        (f"{FOLDER}/pipe.txt", tarfile.FIFOTYPE),
    ],
)
def test_members_that_lead_elsewhere_are_refused(
    archive: Path, name: str, kind: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sub" / "a.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    assert "do not trust it" in refusal(path, capsys)
    assert list(tmp_path.rglob("evil")) == []


def test_archives_that_are_not_whole_are_refused(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, whole, content = tmp_path / "a.tar.gz", archive.read_bytes(), unpacked(archive)
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "is damaged" in refusal(path, capsys) or length == 0
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:-20000]))
    refusal(path, capsys)
    missing = {name: each for name, each in content.items() if not name.endswith("manifest.json")}
    assert "no edgenas_model/manifest.json" in refusal(packed(path, missing), capsys)
    missing = {name: each for name, each in content.items() if not name.endswith("model.onnx")}
    assert "lacks 'model.onnx'" in refusal(packed(path, missing), capsys)
    assert "does not know" in refusal(packed(path, {**content, f"{FOLDER}/more.py": b""}), capsys)
    assert "cannot be read" in refusal(tmp_path / "none.tar.gz", capsys)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(4 << 20)))
    with pytest.raises(DataError, match="unpacks to more than the 1 MiB"):
        verify(path, max_bytes=1 << 20)


def test_forged_archives_are_refused(archive: Path, tmp_path: Path) -> None:
    def refused(content: dict[str, bytes], why: str) -> None:
        with pytest.raises(DataError, match=why):
            verify(packed(tmp_path / "a.tar.gz", content))

    content = unpacked(archive)
    model, golden = f"{FOLDER}/model.tflite", f"{FOLDER}/golden/output.npy"
    other = content[f"{FOLDER}/model_int8.tflite"]
    refused(vouched({**content, model: other}), "does not (run|do what it did)")
    refused(vouched({**content, f"{FOLDER}/model.onnx": b"junk"}), "does not run")
    refused(vouched({**content, golden: content[golden][:-4]}), "is not float32 of shape")
    refused(vouched(content, lambda manifest: manifest.pop("licences")), "lacks 'licences'")
    refused(vouched(content, lambda manifest: manifest.update(schema_version=9)), "manifest version 9")
    refused(vouched(content, lambda manifest: manifest["models"][0].update(file="../x.onnx")), "another form")
    refused(vouched(content, lambda manifest: manifest["golden"].update(top1=[99] * 8)), "golden classes")
    refused({**content, f"{FOLDER}/manifest.json": b"[NaN]"}, "not JSON")


def test_another_runner_is_pointed_out(archive: Path, tmp_path: Path) -> None:
    content = {**unpacked(archive), f"{FOLDER}/run.py": b"print('something else')\n"}
    assert "read it before you run it" in verify(packed(tmp_path / "a.tar.gz", vouched(content)))["runner"]
    assert verify(archive)["runner"] == "is this EdgeNAS's own"


def test_the_schema_is_read_as_written() -> None:
    schema = {"type": "object", "required": ["a"], "additionalProperties": False, "properties": {"a": {"minimum": 1}}}
    assert violation({"a": 1}, schema, schema) is None
    wrongs: list[Any] = [[], {}, {"a": 0}, {"a": 1, "b": 2}, {"a": float("nan")}]
    for wrong in wrongs:
        assert violation(wrong, schema, schema) is not None


def test_a_format_unknown_is_named() -> None:
    assert parse_formats("tflite-int8, onnx") == ("onnx", "tflite-int8")
    with pytest.raises(UnknownNameError, match="did you mean tflite"):
        parse_formats("onnx,tfltie")


def files_in(folder: Path) -> dict[str, bytes]:
    """Name below `folder` -> content, locks left out."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_interrupted_while_remedies_are_tried_the_export_before_is_left(
    run_copy: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_in(run_copy.path)

    def interrupted(self: Any) -> Any:
        raise KeyboardInterrupt

    def run() -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(["export", str(run_copy.path), "--format", "onnx,tflite-int8", "--int8-remedies", "calibration"])
        return int(end.value.code or 0), capsys.readouterr().err

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "quantise", partial(quantise, max_drop=-1.0))  # so that all remedies are tried
        patch.setattr(remedies._Tried, "_moved", interrupted)
        code, err = run()
    assert code == 130, err
    assert "Traceback" not in err
    assert files_in(run_copy.path) == before
    assert not list(run_copy.path.rglob("*.partial"))
    assert run()[0] == 0


def test_a_mismatch_is_not_kept_and_an_earlier_export_is(run_copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that differ from those lowered: a fault of lowering, as the check would see it."""
    from edgenas.package import export as module

    before, real = files_in(run_copy.path), lower

    def faulty(network: Any, example: Any) -> Any:
        graph = real(network, example)
        last = graph.ops[-1]
        last.bias = last.bias + np.float32(0.1)  # type: ignore[attr-defined]
        return graph

    monkeypatch.setattr(module, "lower", faulty)
    with pytest.raises(ExportError, match="from torch") as caught:
        export(run_copy, ("onnx",))
    assert caught.value.exit_code == 6
    assert files_in(run_copy.path) == before
    shutil.rmtree(run_copy.path / "export")
    with pytest.raises(ExportError, match="from torch"):
        export(run_copy, ("onnx",))
    assert files_in(run_copy.path / "export") == {}


def test_a_full_disk_or_a_wrong_place_leaves_nothing(
    run_copy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run_command("package", str(run_copy.path), "-o", str(tmp_path / "file" / "a.tar.gz")) == 6
    assert run_command("export", str(run_copy.path), "-o", str(tmp_path / "file" / "out"), "--format", "onnx") == 6
    assert "Not a directory" in capsys.readouterr().err

    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        build(run_copy, tmp_path / "new" / "a.tar.gz")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_run_that_is_not_trained_is_reported(
    run_copy: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.rmtree(run_copy.path / "train")
    assert run_command("export", str(run_copy.path)) == 7
    assert run_command("package", str(run_copy.path), "-o", str(tmp_path / "a.tar.gz")) == 7
    assert "edgenas train" in capsys.readouterr().err
    assert not (tmp_path / "a.tar.gz").exists()


def test_images_other_than_those_of_training_do_not_calibrate(run_copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgenas.package import remedies as module

    real = load_images

    def replaced(images: ImageSet) -> ImageSet:
        return dataclasses.replace(images, fingerprint="0" * 64)

    monkeypatch.setattr(module, "load_images", lambda *a, **how: replaced(real(*a, **how)))
    with pytest.raises(DataError, match="not what the network was trained on"):
        export(run_copy, ("tflite-int8",))

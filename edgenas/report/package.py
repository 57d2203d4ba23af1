"""What was exported, packaged and verified, as a person reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgenas.text import printables
from edgenas.units import show


def export_text(record: Mapping[str, Any], folder: Path) -> str:
    """A line a file, with how it compares with torch."""
    record = printables(dict(record))
    images = record["models"][0]["checked"]["images"]
    lines = [f"checked against torch on {images} test images of {record['dataset']['name']}, written to {folder}:", ""]
    lines += _models(record)
    if record.get("int8") is not None:
        lines += ["", *(f"  {line}" for line in int8_lines(record["int8"]))]
    edgetpu = record["edgetpu"]
    if edgetpu is not None:
        operators = ", ".join(f"{count} {name}" for name, count in edgetpu["operators"].items())
        lines += ["", f"  Edge TPU: every operator is int8 and supported, in one subgraph ({operators});"]
        compiled = edgetpu["compilation"]
        lines.append(
            f"  {edgetpu['note']}"
            if compiled is None
            else f"  compiled: {compiled['on_tpu']} operators on it, {compiled['on_chip_bytes'] / 1024:.0f} KiB of"
            f" parameters on chip, {compiled['streamed_bytes'] / 1024:.0f} KiB streamed"
        )
    return "\n".join(lines)


def int8_lines(int8: Mapping[str, Any]) -> list[str]:
    """What int8 loses against float, and a line for each remedy that was tried; also as Markdown."""
    lines = []
    if int8["tries"]:
        lines.append(
            f"int8 on {int8['held_out_images']} training images held out, where float is right on"
            f" {100 * int8['float_accuracy']:.2f} %:"
        )
        remedied = len(int8["tries"]) > 1
        lines += [""] * remedied
        for number, each in enumerate(int8["tries"]):
            words = "as it is" if each["remedy"] == "none" else f"{each['remedy']}: {each['detail']}"
            took = f", {each['seconds']:.0f} s" if "seconds" in each and remedied else ""
            kept = " (kept)" if remedied and number == int8["chosen"] else ""
            drop = -100 * each["accuracy_drop"] or 0.0
            lines.append(f"- {100 * each['accuracy']:.2f} %, {drop:+.2f} points: {words}{took}{kept}")
        lines += ["", f"Its weights are {int8['weights']}."] if remedied else []
    if int8["note"]:
        lines.append(f"int8: {int8['note']}.")
    return lines


def _models(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for model in record["models"]:
        checked = model["checked"]
        lines.append(
            f"  {model['file']:<20}{model['bytes'] / 1024:8.1f} KiB   accuracy {100 * checked['accuracy']:6.2f} %"
            f" (torch {100 * checked['torch_accuracy']:.2f} %)   agrees {checked['top1_agreement']:.2%}"
            f"   relative error {checked['relative_error']:.2g}"
        )
    return [*lines, *(f"  left out: {each['problem']}" for each in record.get("left_out", []))]


def package_text(manifest: Mapping[str, Any], path: Path) -> str:
    """What is in the archive, and its hash."""
    manifest = printables(dict(manifest))
    content = path.read_bytes()
    return "\n".join(
        [
            f"{path}: {len(manifest['files']) + 1} files, {len(content) / 1024:.1f} KiB",
            f"sha256 {hashlib.sha256(content).hexdigest()}",
            "",
            *_models(manifest),
            "",
            f"  check it anywhere: edgenas verify {path}, or unpack it and: python run.py --self-check",
        ]
    )


def verify_text(found: Mapping[str, Any]) -> str:
    """A line a model, and what could not be run here."""
    found = printables(dict(found))
    lines = [f"{found['file']}: {found['files']} files, every hash right; run.py {found['runner']}"]
    lines.append(f"sha256 {found['sha256']}, by EdgeNAS {found['manifest']['versions']['edgenas']}")
    lines.append("")
    for model in found["models"]:
        word = "skipped" if model["passed"] is None else "passed"
        lines.append(f"  {word:<9}{model['file']:<20}{model['detail']}")
    return "\n".join(lines)


def deployed_text(report: Mapping[str, Any]) -> str:
    """What `edgenas deploy` found, in Markdown."""
    report = printables(dict(report))
    board, model, check = report["board"], report["model"], report["self_check"]
    accuracy, latency = report["accuracy"], report["latency"]
    lines = [
        f"# {report['package']['file']} on {board['name']} ({board['device']})",
        "",
        f"{report['deployed_at']}, package {report['package']['sha256'][:16]}, {model['file']}"
        f" {model['sha256'][:16]}, `{report['package']['arch_str'].replace('`', '?')}`",
        "",
        "All is well." if report["problem"] is None else f"**Problem:** {report['problem']}.",
        "",
        "## Self-check",
        "",
    ]
    words = {True: "passed", False: "FAILED", None: "skipped"}
    lines += [f"- {words[each['passed']]}: {each['file']}, {each['detail']}" for each in check["models"]]
    lines += [f"- {check['note']}"] if check["note"] else []
    lines += ["", "## Accuracy", ""]
    if accuracy["images"]:
        low, high = accuracy["interval_percent"]
        lines.append(
            f"- {accuracy['percent']:.2f} % of {accuracy['images']} test images on the board (95 % interval {low:.2f}"
            f" to {high:.2f} %); in the package {accuracy['package_percent']:.2f} % of {accuracy['package_images']}"
        )
        runtime = accuracy["runtime"]
        lines.append(f"- by {runtime['name']} {runtime['version']} there")
        same = accuracy["agrees_with_this_computer"]
        lines += [] if same is None else [f"- {same:.2%} of its answers are those of this computer's runtime"]
    else:
        lines.append(f"- not measured: {accuracy['note']}")
    lines += ["", "## Latency", "", *_latency_lines(latency)]
    known = report.get("searched")
    if known is not None:
        lines.append(f"- {searched_words(known)}")
    lines.append("")
    return "\n".join(lines)


def searched_words(known: Mapping[str, Any]) -> str:
    """How far a measurement is from what the search knew, `searched` of a deployment's report."""
    what = f"the search's {show(known['latency_ms'], 'latency')}, {known['source']}"
    if known["off_percent"] is None:
        return what
    board = known.get("board_off_percent")
    by = "" if board is None else f"; the board itself {board:+.1f} %, by its reference model"
    return f"{known['off_percent']:+.1f} % from {what}{by}"


def _latency_lines(latency: Mapping[str, Any]) -> list[str]:
    if latency["error"]:
        return [f"- not measured: {latency['error']}"]
    (low, high), key = latency["interval_ms"], latency["fingerprint"]
    of = "" if latency["limit_ms"] is None else f" of {show(latency['limit_ms'], 'latency')}"
    lines = [
        f"- {latency['verdict']}{of}: median {show(latency['median_ms'], 'latency')}, 95 % interval {low:.4g} to"
        f" {high:.4g} ms, p90 {latency['p90_ms']:.4g}, p99 {latency['p99_ms']:.4g}, {latency['samples']} samples",
        f"- {key['runtime']} {key['runtime_version']}, {key['threads']} thread{'s' * (key['threads'] > 1)},"
        f" {key['tier']['name']} tier, measured at {latency['measured_at']}",
    ]
    for name, unit in (("first_inference_ms", "ms"), ("init_ms", "ms"), ("peak_memory_mb", "MiB"), ("energy_mj", "mJ")):
        if latency[name] is not None:
            lines.append(f"- {name.rpartition('_')[0].replace('_', ' ')}: {latency[name]:.4g} {unit}")
    lines += [] if latency["doubt"] is None else [f"- unstable: {latency['doubt']}"]
    lines += [f"- note: {warning}" for warning in latency["warnings"]]
    lines += [] if latency["output_checked"] else [f"- the output was not checked there: {latency['note']}"]
    return lines

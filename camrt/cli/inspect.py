"""camrt info and camrt methods: what there is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from camrt.bundle import open_bundle
from camrt.cli.options import json_option, printable
from camrt.compiled import read_entries
from camrt.errors import BundleError
from camrt.machine import machine_facts
from camrt.manifest import Manifest, first_name
from camrt.methods import METHODS
from camrt.preprocess import Preprocess
from camrt.providers import PACKAGES, available, install_line
from camrt.runtime import telemetry, versions
from camrt.table import Table


@click.command()
@click.argument("bundle", required=False)
@click.option(
    "--providers", is_flag=True, help="Try every execution provider on this machine, and say what those lack that do not run."
)
@json_option
def info(bundle: str | None, providers: bool, as_json: bool) -> None:
    """Describe BUNDLE, a file that camrt compile wrote, or this installation when none is named.

    Example:  camrt info shapes
    """
    if providers and bundle:
        raise click.UsageError("--providers is about this machine; leave out BUNDLE.")
    if providers:
        facts = machine_facts()
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else _machine_page(facts))
        return
    if bundle and bundle.endswith(".onnx") and Path(bundle).is_file() and (entries := read_entries(Path(bundle))):
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False) if as_json else _lines(_compiled_facts(entries)))
        return
    manifest = open_bundle(bundle).manifest if bundle else None
    if as_json:
        click.echo(json.dumps(manifest_json(manifest) if manifest else _installation_facts(), indent=2, ensure_ascii=False))
        return
    click.echo(_lines(bundle_facts(manifest) if manifest else _installation_facts()))


def _lines(facts: dict[str, Any]) -> str:
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {printable(str(value))}" for name, value in facts.items())


def _installation_facts() -> dict[str, Any]:
    have = available()
    lacking = {name: install_line(name) for name in PACKAGES if name not in have}
    return {
        **versions(),
        "python": sys.version.split()[0],
        "providers": ", ".join(have),
        **{f"for {name}": line for name, line in lacking.items()},
        "more": "camrt info --providers tries them",
        "telemetry": telemetry(),
    }


def _machine_page(f: dict[str, Any]) -> str:
    """Return what `camrt.machine.machine_facts` found, for a person."""
    tried = sorted(f["providers"].items(), key=lambda item: (not item[1]["runs"], not item[1]["built_in"]))
    width = max(map(len, (*f["providers"], "telemetry")))
    lines = [f"{name:<{width}}  {_told(offer, width)}" for name, offer in tried]
    facts = {
        "default": f["default"],
        "cores": _cores(**f["cores"]),
        "set": ", ".join(f"{name}={value}" for name, value in f["environment"].items() if value is not None)
        or "no variable that matters",
        "NVIDIA": _nvidia(f["nvidia"]),
        "telemetry": f["telemetry"],
    }
    installed = " and ".join(f["packages"]) or f"{f['onnxruntime']}, of no package that pip knows"
    clash = ": they overwrite each other; uninstall all of them, then install one" * (len(f["packages"]) > 1)
    title = f"camrt {f['camrt']}, Python {f['python']}, {f['system']}; {installed}{clash}"
    return "\n".join([title, "", *lines, "", *(f"{name:<{width}}  {printable(str(value))}" for name, value in facts.items())])


def _told(offer: dict[str, Any], indent: int) -> str:
    if offer["runs"]:
        return "; ".join(filter(None, ["runs", offer["reason"]]))
    if offer["built_in"]:
        return f"does not run: {offer['reason']}" + f"\n{'':<{indent}}  {offer['install']}" * bool(offer["install"])
    return ": ".join(filter(None, ["not in this onnxruntime", offer["reason"] or offer["install"]]))


def _cores(machine: int, allowed: int, quota: float | None) -> str:
    limits = [str(machine)]
    if allowed != machine:
        limits.append(f"{allowed} of them for this process")
    if quota is not None and quota < allowed:
        limits.append(f"a container's quota of {quota:g}; --threads {max(1, int(quota))} keeps to it")
    return ", ".join(limits)


def _nvidia(found: dict[str, Any]) -> str:
    if found["trouble"]:
        return f"no GPU: {found['trouble']}"
    gpus = ", ".join(f"{g['name']} ({g['memory'] / 2**30:.0f} GB, compute capability {g['capability']})" for g in found["gpus"])
    return f"{gpus}; driver {found['version'] or 'of unknown version'}, up to CUDA {found['cuda']}"


@click.command()
@json_option
def methods(as_json: bool) -> None:
    """List the methods with their cost, parameters and papers.

    Example:  camrt methods
    """
    if as_json:
        click.echo(json.dumps([_method_facts(name) for name in METHODS], indent=2))
        return
    for name, method in METHODS.items():
        click.echo(
            f"{name}\n  needs {', '.join(method.needs) or 'the features'}; passes an image: {method.passes}\n  {method.citation}"
        )
        width = max(map(len, method.parameters), default=0)
        for parameter, spec in method.parameters.items():
            click.echo(f"    {parameter:<{width}}  {spec.default!s:<12} {spec.help} ({spec.allowed})")


def _method_facts(name: str) -> dict[str, Any]:
    method = METHODS[name]
    parameters = {p: {"default": s.default, "allowed": s.allowed, "help": s.help} for p, s in method.parameters.items()}
    return {
        "name": name,
        "needs": list(method.needs),
        "passes": method.passes,
        "citation": method.citation,
        "parameters": parameters,
    }


def manifest_json(manifest: Manifest) -> dict[str, Any]:
    """Return bundle.json without its long table of weights."""
    return {key: value for key, value in manifest.to_json().items() if key != "weights"}


def bundle_facts(m: Manifest) -> dict[str, Any]:
    """Return what a person wants to know about a bundle, name by name."""
    cut = f", {m.activation} cut off" if m.activation else ""
    return {
        "name": m.name,
        "source": f"{m.source.file} ({m.source.producer or 'producer unknown'}), SHA-256 {m.source.sha256[:16]}…",
        "exporter": m.source.exporter,
        "layer": f"{m.layer.name} ({m.layer.operator}{f', module {m.layer.module}' if m.layer.module else ''}): {m.layer.reason}",
        "image": repr(m.image),
        "features": repr(m.features),
        "output": f"{m.output!r}, {m.kind}{cut}",
        "labels": m.some_labels or "none",
        "preprocess": _preprocess_line(m.preprocess),
        "reproduces": f"its source {'in float16 ' if m.precision else ''}{m.split.verdict}",
        **({"precision": m.precision.verdict} if m.precision else {}),
        "gradients": _gradients(m),
        **({"batch": f"one image at a time: {m.one_by_one}"} if m.one_by_one else {}),
        "weights": f"{len(m.weights)} tensors, {sum(w.length for w in m.weights) / 1e6:.2f} MB",
    }  # fmt: skip


def _compiled_facts(entries: dict[str, Any]) -> dict[str, Any]:
    """Return what a person wants to know about a compiled file."""
    labels = entries["labels"].splitlines()
    chosen = ", ".join(f"{name}={value}" for name, value in entries["parameters"].items())
    return {
        "name": f"{entries['bundle']}, compiled by camrt {entries['version']}",
        "source": f"{entries['source']}, SHA-256 {entries['source_sha256'][:16]}…, cut at {entries['layer']}",
        "method": entries["method"] + (f" ({chosen})" if chosen else ""),
        "input": "RGB pixels at the network's size, uint8" if entries["input"] == "uint8" else "preprocessed images, float32",
        "target": "required" if entries["require_target"] else "may be left out: the most probable class",
        "preprocess": _preprocess_line(Preprocess.from_json(Table(entries["preprocess"], "the file's metadata", BundleError))),
        "labels": ", ".join(map(first_name, labels[:8])) + (", …" if len(labels) > 8 else "") if labels else "none",
        "agreement": entries["verdict"],
    }


def _preprocess_line(p: Preprocess) -> str:
    height, width = p.size
    if isinstance(p.resize, tuple):
        resize = f"to {p.resize[0]} x {p.resize[1]}"
        resize += f", centre crop {width} x {height}" if p.resize != (width, height) else ""
    elif isinstance(p.resize, int):
        resize = f"shorter side to {p.resize}, centre crop {width} x {height}"
    else:
        resize = f"to fit inside {width} x {height}, padded with the mean colour"
    return f"resize {resize}; {p.interpolation}, {p.color}, scale {p.scale:.6g}, mean {_numbers(p.mean)}, std {_numbers(p.std)}"


def _gradients(m: Manifest) -> str:
    if m.gradient_missing is not None:
        return f"no: {m.gradient_missing}"
    if m.gradient_error is None:
        return "yes; unchecked, as a quantised tail is a staircase without slopes to compare with"
    return f"yes, within {m.gradient_error:.1g} of the slope of the tail"


def _numbers(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"

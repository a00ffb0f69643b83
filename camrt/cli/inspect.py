"""camrt info and camrt methods: what there is."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from camrt.bundle import open_bundle
from camrt.cli.options import json_option
from camrt.manifest import Manifest
from camrt.methods import METHODS
from camrt.providers import INSTALL, available, telemetry, versions


@click.command()
@click.argument("bundle", required=False)
@json_option
def info(bundle: str | None, as_json: bool) -> None:
    """Describe BUNDLE, or this installation when none is named.

    Example:  camrt info shapes
    """
    manifest = open_bundle(bundle).manifest if bundle else None
    if as_json:
        click.echo(json.dumps(manifest_json(manifest) if manifest else _installation_facts(), indent=2, ensure_ascii=False))
        return
    facts = bundle_facts(manifest) if manifest else _installation_facts()
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {value}")


def _installation_facts() -> dict[str, Any]:
    have = available()
    lacking = {name: line for name, line in INSTALL.items() if name not in have}
    return {
        **versions(),
        "python": sys.version.split()[0],
        "providers": ", ".join(have),
        **{f"for {name}": line for name, line in lacking.items()},
        "telemetry": telemetry(),
    }


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
    p = m.preprocess
    resize = f"shorter side {p.resize}" if isinstance(p.resize, int) else p.to_json()["resize"]
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
        "preprocess": f"resize {resize}, {p.interpolation}, {p.color}, scale {p.scale:.6g}, mean {list(p.mean)}, std {list(p.std)}",
        "reproduces": f"its source {m.split.verdict}",
        "gradients": _gradients(m),
        "weights": f"{len(m.weights)} tensors, {sum(w.length for w in m.weights) / 1e6:.2f} MB",
    }  # fmt: skip


def _gradients(m: Manifest) -> str:
    if m.gradient_missing is not None:
        return f"no: {m.gradient_missing}"
    if m.gradient_error is None:
        return "yes; the tail's own differences cannot judge them"
    return f"yes, within {m.gradient_error:.1g} of the slope of the tail"

"""camrt cpp: where a C++ host finds the header and the CMake package."""

from __future__ import annotations

import json
import shlex
import sys

import click

from camrt.cli.options import json_option
from camrt.cpp import cmake_dir, include_dir


@click.command()
@click.option("--cmake-dir", "only", flag_value="camrt_DIR", help="Print the folder of the CMake package alone.")
@click.option("--include-dir", "only", flag_value="include", help="Print the folder of camrt.hpp alone.")
@click.option("--cmake-flags", "flags", is_flag=True, help="Print the two flags that cmake takes.")
@json_option
def cpp(only: str | None, flags: bool, as_json: bool) -> None:
    """Tell a C++ build where camrt.hpp and its CMake package are.

    Example:  camrt cpp --cmake-flags
    """
    if bool(only) + flags + as_json > 1:
        raise click.UsageError("Give one of --cmake-dir, --include-dir, --cmake-flags and --json, not several.")
    facts = {"camrt_DIR": str(cmake_dir()), "include": str(include_dir()), "Python_EXECUTABLE": sys.executable}
    if only:
        click.echo(facts[only])
    elif flags:
        click.echo(shlex.join(f"-D{name}={facts[name]}" for name in ("camrt_DIR", "Python_EXECUTABLE")))
    elif as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            click.echo(f"{name:<{width}}  {value}")

"""The command line: open, call one library function, print.  Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import warnings
from typing import Any

import click

from camrt import __version__
from camrt.cli.bench import bench
from camrt.cli.compiling import compile_
from camrt.cli.cpp import cpp
from camrt.cli.explain import explain
from camrt.cli.inspect import info, methods
from camrt.cli.making import export, layers
from camrt.cli.options import printable
from camrt.errors import CamrtError, ParameterError, UnknownTarget

# Exit code 2 is for what can never be asked; a class that this bundle lacks may be in another, and is a failure: 1.
MISUSE = (ParameterError,)
FAILURE = (UnknownTarget,)


class Misuse(click.ClickException):
    """What was asked cannot be asked."""

    exit_code = 2


class Group(click.Group):
    """Turns camrt's errors into one line and an exit code, and warnings into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            click.echo(f"Warning: {message}", err=True)

        with warnings.catch_warnings():
            warnings.showwarning = show
            warnings.simplefilter("always", UserWarning)
            warnings.simplefilter("always", RuntimeWarning)
            try:
                return super().invoke(ctx)
            except CamrtError as error:
                misuse = isinstance(error, MISUSE) and not isinstance(error, FAILURE)
                raise (Misuse if misuse else click.ClickException)(printable(str(error))) from error
            except BrokenPipeError:  # whoever reads has seen enough
                raise
            except MemoryError as error:
                raise click.ClickException("There is not enough memory for this. Ask for less at once.") from error
            except (OSError, UnicodeError) as error:
                raise click.ClickException(printable(str(error))) from error


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="camrt")
def camrt() -> None:
    """Show where a CNN looked when it named a class, on machines without PyTorch.

    Example:  camrt explain shapes photo.png --top 2
    """


for command in (explain, info, methods, bench, layers, export, compile_, cpp):
    camrt.add_command(command)

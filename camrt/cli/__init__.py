"""The command line: open, call one library function, print.  Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import click

from camrt import __version__
from camrt.__main__ import INTERRUPTED
from camrt.cli.options import printable
from camrt.errors import CamrtError, ParameterError, UnknownTarget

# Exit code 2 is for what can never be asked; a class that this bundle lacks may be in another, and is a failure: 1.
MISUSE = (ParameterError,)
FAILURE = (UnknownTarget,)

# Where each command is.  A module is imported when its command is run, as its imports take their time.
COMMANDS = {
    "explain": "explain:explain",
    "info": "inspect:info",
    "methods": "inspect:methods",
    "evaluate": "evaluate:evaluate",
    "batch": "batch:batch",
    "report": "report:report",
    "serve": "serve:serve",
    "bench": "bench:bench",
    "layers": "making:layers",
    "export": "making:export",
    "compile": "compiling:compile_",
    "triton": "triton:triton",
    "cpp": "cpp:cpp",
}


class Misuse(click.ClickException):
    """What was asked cannot be asked."""

    exit_code = 2


class Group(click.Group):
    """Imports commands when they are run, and turns camrt's errors and warnings into one line, errors into an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"camrt.cli.{module}"), attribute)
        return command

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
            except KeyboardInterrupt:
                click.echo("Interrupted.", err=True)
                ctx.exit(INTERRUPTED)
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

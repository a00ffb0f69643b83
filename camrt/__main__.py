"""The `camrt` command; says what to install where something is missing."""

from __future__ import annotations

import io
import sys

INTERRUPTED = 130  # 128 + SIGINT, as shells say it


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks "→" still gets its line
    try:
        from camrt.cli import camrt
    except ImportError as error:
        sys.exit(INTERRUPTED if _was_interrupted(error) else f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    camrt(prog_name="camrt")


def _was_interrupted(error: BaseException | None) -> bool:
    """Tell whether an interrupt lies behind an error; a compiled module makes an ImportError of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    main()

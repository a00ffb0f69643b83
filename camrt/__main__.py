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
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    camrt(prog_name="camrt")


if __name__ == "__main__":
    main()

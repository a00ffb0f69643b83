"""The `camrt` command; says what to install where something is missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from camrt.cli import camrt
    except ImportError as error:
        sys.exit(f"Error: {error}")
    camrt(prog_name="camrt")


if __name__ == "__main__":
    main()

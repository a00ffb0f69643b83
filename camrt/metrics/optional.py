"""SciPy, which only some metrics need: imported when it is first used."""

from __future__ import annotations

import importlib
from typing import Any

from camrt.errors import MethodUnavailable


def scipy(module: str, metric: str) -> Any:
    """Return a module of SciPy.

    Parameters
    ----------
    module : str
        "stats", "sparse.linalg".
    metric : str
        How the message names what needs it.

    Raises
    ------
    MethodUnavailable
        SciPy is not installed.
    """
    try:
        return importlib.import_module(f"scipy.{module}")
    except ImportError as error:
        raise MethodUnavailable(f"{metric} needs SciPy ({error}): pip install scipy.") from None

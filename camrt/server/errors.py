"""What a request may be answered instead of what it asked for, and which status each of camrt's errors has.

Refusal, status and text, of which the ones below are the server's own
├── Overloaded   503, with Retry-After: too much is under way
├── TooMany      429, with Retry-After: too much of this client is under way
├── TimedOut     504: the answer took longer than the request may
└── Gone         499, never sent: the client has left
"""

from __future__ import annotations

from collections.abc import Mapping

from camrt.errors import (
    BundleError,
    CamrtError,
    DeviceMemoryError,
    ExplanationError,
    ImageError,
    MethodUnavailable,
    ParameterError,
    ProviderError,
    UnknownMethod,
    UnknownTarget,
)


class Refusal(Exception):
    """An answer other than the one that was asked for.

    Attributes
    ----------
    status : int
    text : str
        What the client may know.
    headers : mapping of str to str
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None):
        super().__init__(text)
        self.status, self.text, self.headers = status, text, dict(headers or {})


class Overloaded(Refusal):
    """Too much is under way."""

    def __init__(self, seconds: float, what: str = "The server has as many requests as it takes"):
        super().__init__(503, f"{what}. Try again later.", {"Retry-After": str(max(1, round(seconds)))})


class TooMany(Refusal):
    """Too much of this client is under way."""

    def __init__(self, most: int):
        super().__init__(429, f"At most {most} requests of one client may be under way. Wait for one.", {"Retry-After": "1"})


class TimedOut(Refusal):
    """The answer took longer than the request may."""

    def __init__(self, seconds: float):
        super().__init__(504, f"There was no answer within {seconds:g} s. Ask for fewer images, classes or clusters.")


class Gone(Refusal):
    """The client has left."""

    def __init__(self) -> None:
        super().__init__(499, "The client has left.")


# The first class that fits.  Texts of errors that name files or pass on ONNX Runtime's words stay in the log.
STATUS: Mapping[type[CamrtError], tuple[int, str | None]] = {
    UnknownMethod: (422, None),
    UnknownTarget: (422, None),
    ParameterError: (422, None),
    ImageError: (400, None),
    MethodUnavailable: (422, None),
    DeviceMemoryError: (503, "The device has no memory left for this. Ask for fewer images or clusters, or try again later."),
    ProviderError: (503, "The model cannot be run now; the server's log says why."),
    BundleError: (503, "The model cannot be run now; the server's log says why."),
    ExplanationError: (500, "The answer could not be written; the server's log says why."),
    CamrtError: (500, "The server failed; its log says why."),
}
MAX_TEXT = 1000  # characters that a client is told, which may be its own
INTERNAL = (500, "The server failed; its log says why.")


def refusal_of(error: BaseException) -> Refusal:
    """Return what a client is told of an error."""
    if isinstance(error, Refusal):
        return error
    status, text = next((told for kind, told in STATUS.items() if isinstance(error, kind)), INTERNAL)
    headers = {"Retry-After": "5"} if status == 503 else {}
    return Refusal(status, str(error)[:MAX_TEXT] if text is None else text, headers)

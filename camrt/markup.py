"""HTML in which every text is escaped, unless it is markup already."""

from __future__ import annotations

import html
import unicodedata
from typing import Any

VOID = frozenset({"br", "img", "meta", "wbr"})
# These reorder the text around them:
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Html(str):
    """Markup: it is put into other markup as it is."""


def readable(value: object) -> str:
    r"""Return a text without characters that cannot be seen or that reorder others; "�" stands for each.

    >>> readable("cat\x1b[31m.png")
    'cat�[31m.png'
    """
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cs") or c in TURNING else c for c in str(value))


def escaped(part: object) -> Html:
    """Return markup as it is, and everything else as text.

    >>> escaped("<b>")
    '&lt;b&gt;'
    """
    return part if isinstance(part, Html) else Html(html.escape(readable(part)))


def joined(*parts: object) -> Html:
    """Return the parts one after the other, texts escaped."""
    return Html("".join(map(escaped, parts)))


def tag(name: str, /, *parts: object, **attributes: Any) -> Html:
    """Return an element.

    Parameters
    ----------
    name : str
    *parts : object
        What is inside: markup, and texts that are escaped.
    **attributes
        `class_` is class, `data_value` data-value; None leaves one out.

    Examples
    --------
    >>> tag("td", "a < b", class_="better", title=None)
    '<td class="better">a &lt; b</td>'
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    opened = name + "".join(f' {key}="{escaped(str(value))}"' for key, value in given.items())
    return Html(f"<{opened}>" if name in VOID else f"<{opened}>{joined(*parts)}</{name}>")


def definitions(pairs: Any) -> Html:
    """Return a list of terms with what there is to say about each; pairs of which that is None are left out."""
    return tag("dl", *(joined(tag("dt", term), tag("dd", said)) for term, said in pairs if said is not None))


def signed(value: float, digits: int = 3) -> str:
    """Return a number with its sign, as books print it.

    >>> signed(-0.03)
    '−0.030'
    """
    return f"{value:+z.{digits}f}".replace("-", "−")


def plain(value: float, digits: int = 3) -> str:
    """Return a number; its minus, where it has one, as books print it.

    >>> plain(-0.0312)
    '−0.031'
    """
    return f"{value:z.{digits}f}".replace("-", "−")


def words(name: str) -> str:
    """Return a name of the program as people write it.

    >>> words("flat_map")
    'flat map'
    """
    return name.replace("_", " ")


def several(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, its thousands apart.

    >>> several(1, "photo"), several(1200, "photo")
    ('1 photo', '1,200 photos')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def share(count: int, total: int) -> str:
    """Return a share in percent that reads 0 or 100 only where it is so.

    >>> share(0, 9), share(1, 3), share(1, 100_000), share(99_999, 100_000)
    ('0 %', '33.3 %', '< 0.1 %', '> 99.9 %')
    """
    if count in (0, total):
        return "0 %" if not count else "100 %"
    percent = 100 * count / total
    return "< 0.1 %" if percent < 0.1 else "> 99.9 %" if percent > 99.9 else f"{percent:.1f} %"


def listed(parts: Any, last: str = "and") -> str:
    """Return parts as a sentence lists them.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    parts = list(parts)
    return f" {last} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)

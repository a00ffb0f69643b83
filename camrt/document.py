"""A page that needs nothing beside it, with a policy that forbids it to load anything, and to run any script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from camrt.markup import Html, joined, tag

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(title: str, style: str, body: Html, script: str | None = None) -> str:
    """Return a page as HTML.

    Parameters
    ----------
    title : str
    style : str
        CSS.
    body : Html
    script : str, optional
        JavaScript, run when the body is there.
    """
    head = tag(
        "head", tag("meta", charset="utf-8"), tag("meta", http_equiv="Content-Security-Policy", content=policy(script)),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title), tag("style", Html(style)),
    )  # fmt: skip
    whole = tag("body", body, "" if script is None else tag("script", Html(script)))
    return f"<!doctype html>\n{tag('html', head, whole, lang='en')}\n"


def policy(script: str | None) -> str:
    """Return the policy of a page: no script, or this one, runs."""
    if script is None:
        return POLICY
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"{POLICY}; script-src 'sha256-{digest}'"


def sections(given: Mapping[str, tuple[str, Sequence[Html]]]) -> Html:
    """Return the parts of a page and, before them, links to each; empty ones are left out.

    Parameters
    ----------
    given : mapping of str to (str, sequence of Html)
        Titles and contents by the names that links go to.

    Examples
    --------
    >>> sections({"a": ("First", [tag("p", "text")]), "b": ("Second", [])})
    '<nav aria-label="Parts"><a href="#a">First</a></nav><main><section id="a"><h2>First</h2><p>text</p></section></main>'
    """
    filled = {name: part for name, part in given.items() if part[1]}
    links = [tag("a", title, href=f"#{name}") for name, (title, _) in filled.items()]
    parts = [tag("section", tag("h2", title), *content, id=name) for name, (title, content) in filled.items()]
    return joined(tag("nav", *links, aria_label="Parts"), tag("main", *parts))

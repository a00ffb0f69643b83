from __future__ import annotations

import base64
import hashlib

import pytest

from camrt.document import document, sections
from camrt.markup import tag


def test_a_page_without_a_script_lets_none_run():
    text = document("a < b", "p { color: red }", tag("p", "text"))
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert "default-src &#x27;none&#x27;" in text
    assert "script" not in text
    assert "<title>a &lt; b</title><style>p { color: red }</style></head><body><p>text</p></body>" in text


@pytest.mark.parametrize("script", ["let a = 1 < 2 && 'é'", ""])
def test_a_page_with_a_script_lets_only_that_one_run(script):
    text = document("title", "", tag("p", "text"), script)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{digest}&#x27;" in text
    assert f"<p>text</p><script>{script}</script></body>" in text


def test_sections_that_are_empty_are_neither_there_nor_linked():
    text = sections({"full": ("Full", [tag("p", "text")]), "empty": ("Empty", [])})
    assert 'href="#full"' in text
    assert "mpty" not in text

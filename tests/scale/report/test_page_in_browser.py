"""The page in a real browser, opened as a file: light and dark, wide and narrow."""

from __future__ import annotations

import pytest

from camrt.scale.report import page

from .datasets import summary_of

WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_never_scrolls_sideways_and_asks_for_nothing(browser, cornered, tmp_path, width, scheme):
    path = tmp_path / "report.html"
    path.write_text(page(summary_of(cornered)))
    opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, complaints = [], []
    opened.on("request", lambda request: None if request.url.startswith("data:") else asked.append(request.url))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.goto(path.as_uri())
    assert opened.evaluate(WIDTHS) == [width, width]
    ground, text = opened.evaluate("(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    assert ground != text
    assert (asked, complaints) == ([path.as_uri()], [])
    opened.close()

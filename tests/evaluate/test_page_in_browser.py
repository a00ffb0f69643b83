"""The report in a real browser, opened as a file: light and dark, wide and narrow, sorted."""

from __future__ import annotations

import pytest

from camrt.evaluate.page import page

NAMES = "[...document.querySelectorAll('#scores tbody.methods tr')].map((row) => row.cells[0].dataset.value)"
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@pytest.fixture(scope="module")
def report(summary, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page(summary), encoding="utf-8")
    return path


@pytest.fixture
def open_report(browser, report):
    """Return what opens the report; it may ask for nothing but itself, and complain of nothing."""
    pages, asked, complaints = [], [], []

    def open_report(width=1280, **options):
        opened = browser.new_page(viewport={"width": width, "height": 900}, **options)
        pages.append(opened)
        opened.on("request", lambda request: None if request.url.startswith("data:") else asked.append(request.url))
        opened.on("console", lambda message: complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("dialog", lambda dialog: complaints.append(dialog.message))
        opened.goto(report.as_uri())
        return opened

    yield open_report
    for opened in pages:
        opened.close()
    assert asked == [report.as_uri()] * len(pages)
    assert complaints == []


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_never_scrolls_sideways(open_report, width, scheme):
    scrolled, visible = open_report(width, color_scheme=scheme).evaluate(WIDTHS)
    assert scrolled == visible == width


def test_a_wide_table_scrolls_within_itself_and_by_keyboard(open_report):
    opened = open_report(360)
    opened.focus("#scores .wide")
    before = opened.evaluate("document.querySelector('#scores .wide').scrollLeft")
    opened.keyboard.press("ArrowRight")
    opened.wait_for_function("(before) => document.querySelector('#scores .wide').scrollLeft > before", arg=before)


def test_a_press_sorts_best_first_and_another_worst_first(open_report, summary):
    opened = open_report()
    assert opened.evaluate(NAMES) == [row.variant.name for row in summary.rows if row.variant.method and not row.unavailable]
    ranked = sorted(
        (row for row in summary.rows if row.variant.method and row.figures),
        key=lambda row: -row.figures["insertion_deletion"].mean,
    )
    names = [row.variant.name for row in ranked]
    opened.get_by_role("button", name="insertion − deletion").focus()
    for key, order, expected in (("Enter", "descending", names), ("Space", "ascending", names[::-1])):
        opened.keyboard.press(key)
        assert opened.evaluate(NAMES) == expected
        assert opened.locator("#scores th[aria-sort]").get_attribute("aria-sort") == order
    opened.get_by_role("button", name="average drop").click()
    by_drop = [row.variant.name for row in sorted(ranked, key=lambda row: row.figures["average_drop"].mean)]
    assert sorted(opened.evaluate(NAMES)) == sorted(by_drop)
    assert opened.evaluate(NAMES)[0] == by_drop[0]


def test_controls_and_what_could_not_run_stay_at_the_end(open_report):
    opened = open_report()
    opened.get_by_role("button", name="time").click()
    bodies = opened.evaluate("[...document.querySelectorAll('#scores tbody')].map((body) => body.className)")
    first = opened.evaluate("document.querySelector('#scores tbody.controls tr').className")
    assert (bodies, first) == (["methods", "controls", "absent"], "apart")


def test_the_table_is_whole_without_script(open_report, summary):
    opened = open_report(java_script_enabled=False)
    assert opened.locator("#scores th button").count() == 0
    assert opened.locator("#scores tbody.methods tr").count() == sum(
        bool(row.variant.method) and not row.unavailable for row in summary.rows
    )


def test_a_line_stands_out_while_its_name_has_the_focus(open_report):
    opened = open_report()
    opened.locator(".key li").nth(1).focus()
    assert opened.locator("#curves svg.dimmed").count() == opened.locator("#curves g.lit").count() > 0
    opened.locator("#scores th button").first.focus()
    assert opened.locator("#curves svg.dimmed").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_letters_of_plots_are_read_on_their_ground(open_report, scheme):
    code = "(e) => { const rgb = (c) => c.match(/[\\d.]+/g).slice(0, 3).map(Number); const of = (x, k) => rgb(getComputedStyle(x)[k]);"
    code += " return [of(e, 'fill'), of(e.closest('figure'), 'backgroundColor')]; }"
    letters, ground = open_report(color_scheme=scheme).locator("#curves svg text").first.evaluate(code)
    assert abs(sum(letters) - sum(ground)) > 3 * 150

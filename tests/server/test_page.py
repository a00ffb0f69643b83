"""The page of `camrt serve` and its API pages, in a real browser, of real servers."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import camrt
from tests import graphs
from tests.conftest import SAMPLES

from .conftest import Served, serving

TOKEN = "abcdefghijklmnopqrst"
PATIENCE = 15_000  # milliseconds
HAND_OVER = """([kind, data, name, type]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type}));
    const event = kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true})
        : new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
    document.querySelector("#drop").dispatchEvent(event);
}"""
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
MARKUP = "<img src=x onerror=document.title='bad'>"


@pytest.fixture(scope="module")
def cropped(tmp_path_factory) -> Iterator[tuple[Path, Served]]:
    """A bundle whose network sees the middle of a photo only, and a server of it."""
    export = pytest.importorskip("exporters").export
    folder = tmp_path_factory.mktemp("cropped")
    source = graphs.save(graphs.classifier(), folder / "tiny.onnx")
    export(source, folder / "bundle", overrides={"resize": 40, "scale": 1 / 255})
    with serving(str(folder / "bundle")) as server:
        yield folder / "bundle", server


@pytest.fixture(scope="module")
def closed() -> Iterator[Served]:
    """A server of two models that wants a token, and allows two classes, 12 clusters and 1 MiB."""
    limits = ("--max-targets", "2", "--max-clusters", "12", "--max-body", "1")
    with serving("shapes", "other=models/shapes", *limits, CAMRT_TOKENS=TOKEN) as server:
        yield server


class Watched:
    """A page of the browser, and whatever in it asked another host, broke the policy or failed by itself."""

    def __init__(self, browser, server: Served, **options):
        self.wrong: list[str] = []
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}} | options)
        self.page.set_default_timeout(PATIENCE)
        home = (server.url, "data:", "blob:")
        self.page.on("request", lambda r: None if r.url.startswith(home) else self.wrong.append(r.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, told) -> None:
        if not told.text.startswith("Failed to load resource"):  # a status of 400 or more
            self.wrong.append(told.text)


@pytest.fixture
def open_page(browser):
    """Return what opens a page of a server."""
    opened = []

    def open_page(server: Served, path: str = "/", **options):
        opened.append(Watched(browser, server, **options))
        opened[-1].page.goto(server.url + path)
        return opened[-1].page

    yield open_page
    for watched in opened:
        watched.page.close()
    assert [wrong for watched in opened for wrong in watched.wrong] == []


@pytest.fixture(scope="module")
def tab(browser, served) -> Iterator[Watched]:
    """One tab for all tests that need nothing else, because opening one takes longer than most tests."""
    watched = Watched(browser, served)
    yield watched
    watched.page.close()


@pytest.fixture
def page(tab, served):
    """The page as it is at first, with its samples there."""
    tab.page.unroute_all()
    tab.page.goto(f"{served.url}/")
    tab.page.wait_for_selector("#samples button:enabled >> nth=5")
    yield tab.page
    assert tab.wrong == []


def try_sample(page, name: str) -> None:
    page.click(f"#samples button[value={name}]")
    page.wait_for_selector("[data-state=done] #picture[data-shows]")


def shows(page, index: int, method: str) -> None:
    page.wait_for_selector(f"[data-state=done] #picture[data-shows='{index}'][data-method='{method}']")


def posts(page) -> list[tuple[str, int]]:
    """Return a list to which each request to explain adds its address and the bytes of its body."""
    found: list[tuple[str, int]] = []

    def note(response) -> None:
        if response.request.method == "POST":
            found.append((response.url, int(response.request.all_headers().get("content-length", 0))))

    page.on("response", note)
    return found


def saved_picture(page, folder, name: str | None = None) -> np.ndarray:
    """Return the picture that the page saves."""
    with page.expect_download() as saved:
        page.click("#save")
    assert name is None or saved.value.suggested_filename == name
    saved.value.save_as(folder / "saved.png")
    return cv2.imread(str(folder / "saved.png"))[..., ::-1]


def drawn(page, opacity: str) -> np.ndarray:
    """Return the pixels of the picture on the page, the heatmap being so opaque."""
    page.fill("#opacity", opacity)
    data = page.evaluate("document.querySelector('#picture').toDataURL().split(',')[1]")
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def change_answers(page, change) -> None:
    """Let each explanation be changed on its way."""

    def changed(route) -> None:
        answer = route.fetch()
        told = answer.json()
        change(told)
        route.fulfill(response=answer, body=json.dumps(told))

    page.route("**/v1/explain*", changed)


# --- a photo ----------------------------------------------------------------------------------------------------------------
def test_a_sample_shows_its_prediction_and_heatmap(page):
    try_sample(page, "star")
    shows(page, 3, "cluster-cam")
    first = page.inner_text("#classes label >> nth=0")
    assert "star" in first
    assert "9" in first
    assert "%" in first
    assert page.locator("#classes label").count() == 5
    assert page.get_attribute("#picture", "aria-label") == "The photo star, and where the network looked for star"
    assert "on cpu" in page.inner_text("#total")
    assert "11 passes" in page.inner_text("#total").replace("\xa0", " ")
    with_heatmap = page.locator("#picture").screenshot()
    page.fill("#opacity", "0")
    assert page.locator("#picture").screenshot() != with_heatmap


def test_the_saved_picture_is_what_camrt_draws(page, shapes, tmp_path):
    try_sample(page, "star_ring")
    ours = shapes.explain(SAMPLES / "star_ring.png", target="star").overlay(0)
    assert np.abs(saved_picture(page, tmp_path, "star_ring.star.cluster-cam.png").astype(int) - ours).max() <= 2


def test_what_the_network_did_not_see_is_not_coloured(open_page, cropped, tmp_path):
    path, server = cropped
    photo = np.random.default_rng(0).integers(0, 256, (101, 60, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), photo[..., ::-1])
    page = open_page(server)
    page.set_input_files("#file", tmp_path / "noise.png")
    page.wait_for_selector("[data-state=done] #picture[data-shows]")
    explanation = camrt.load(path, providers=["cpu"]).explain(photo, target=page.get_attribute("#picture", "data-shows"))
    seen = explanation.geometry.seen()
    assert 0.2 < seen.mean() < 0.5
    shown = [drawn(page, opacity) for opacity in ("0", "1")]
    coloured = (shown[0] != shown[1]).any(axis=2)
    size = replace(explanation.geometry, photo=coloured.shape)
    assert not coloured[~size.seen()].any()
    assert coloured[size.seen()].mean() > 0.99
    page.fill("#opacity", "0.5")
    theirs = saved_picture(page, tmp_path)
    assert np.array_equal(theirs[~seen], photo[~seen])
    assert np.abs(theirs.astype(int) - explanation.overlay(0)).max() <= 2


def test_the_saved_answer_has_all_but_pictures(page, tmp_path):
    try_sample(page, "heart")
    with page.expect_download() as saved:
        page.click("#keep")
    saved.value.save_as(tmp_path / "saved.json")
    told = json.loads((tmp_path / "saved.json").read_text())
    assert told["targets"][0]["label"] == "heart"
    assert told["method"] == "cluster-cam"
    assert told["milliseconds"]["total"] > 0
    assert "picture" not in told["targets"][0]
    assert "photo" not in told


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_dropped_or_pasted_photo_is_explained(page, kind):
    data = base64.b64encode((SAMPLES / "star.png").read_bytes()).decode()
    page.evaluate(HAND_OVER, [kind, data, "mine.png", "image/png"])
    shows(page, 3, "cluster-cam")
    assert page.get_attribute("#picture", "aria-label").startswith("The photo mine.png")


def test_a_photo_that_comes_before_the_models_are_known_is_kept_until_then(tab, served):
    held = []
    tab.page.route("**/v1/models", lambda route: held.append(route))
    tab.page.goto(f"{served.url}/")
    tab.page.set_input_files("#file", SAMPLES / "star.png")
    tab.page.wait_for_timeout(100)
    held[0].continue_()
    shows(tab.page, 3, "cluster-cam")
    tab.page.unroute_all()


def test_a_kind_that_the_browser_cannot_read_is_shown_as_the_server_reads_it(page, tmp_path):
    cv2.imwrite(str(tmp_path / "star.tiff"), cv2.imread(str(SAMPLES / "star.png")))
    page.set_input_files("#file", tmp_path / "star.tiff")
    shows(page, 3, "cluster-cam")
    assert page.evaluate("document.querySelector('#picture').width") == 768


# --- further questions ------------------------------------------------------------------------------------------------------
def test_switching_class_and_method_sends_no_photo_again(page):
    found = posts(page)
    page.set_input_files("#file", SAMPLES / "heart.png")
    shows(page, 6, "cluster-cam")
    assert [size for _, size in found] == [(SAMPLES / "heart.png").stat().st_size]
    page.click("#classes label >> nth=2")
    page.wait_for_selector("#picture:not([data-shows='6'])")
    assert len(found) == 1, "every class's heatmap has come with the first answer"
    page.select_option("#method", "grad-cam")
    page.wait_for_selector("[data-state=done] #picture[data-method=grad-cam]")
    page.select_option("#method", "cluster-cam")
    page.wait_for_selector("[data-state=done] #picture[data-method=cluster-cam]")
    assert [size for _, size in found[1:]] == [0], "by name, and what has been answered is not asked again"
    assert "&photo=" in found[1][0]


def test_a_photo_that_the_server_has_forgotten_is_sent_again_unnoticed(page):
    page.set_input_files("#file", SAMPLES / "heart.png")
    shows(page, 6, "cluster-cam")
    forgotten = {"status": 404, "content_type": "application/json", "body": '{"error": "not remembered"}'}
    page.route("**/v1/explain*&photo=*", lambda route: route.fulfill(**forgotten))
    found = posts(page)
    page.select_option("#method", "grad-cam")
    shows(page, 6, "grad-cam")
    assert ["&photo=" in url for url, _ in found] == [True, False]
    assert page.is_hidden("#alert")


def test_any_class_can_be_asked_for_and_set_against_another(page):
    try_sample(page, "star_ring")
    named = page.locator("#classes .name").all_inner_texts()
    assert "cross" not in named
    page.fill("#target", "cross")
    page.press("#target", "Enter")
    shows(page, 4, "cluster-cam")
    page.fill("#target", "star")
    page.fill("#versus", "ring")
    page.click("#other button")
    shows(page, 3, "cluster-cam")
    page.wait_for_selector("#caption >> text=star rather than ring")
    assert page.is_disabled("#classes input[value='5']")
    page.fill("#versus", "")
    page.click("#other button")
    page.wait_for_selector("#classes input[value='5']:enabled", state="attached")
    assert sorted(page.locator("#classes .name").all_inner_texts()) == sorted([*named, "cross"])


def test_clusters_are_asked_for_where_the_method_has_them(page):
    found = posts(page)
    try_sample(page, "star")
    page.fill("#clusters", "4")
    page.press("#clusters", "Enter")
    page.wait_for_selector("#total >> text=/5\\spasses/")
    assert "clusters=4" in found[-1][0]
    page.select_option("#method", "grad-cam")
    shows(page, 3, "grad-cam")
    assert "clusters" not in found[-1][0]
    assert page.is_hidden("#clusters")


def test_methods_are_compared_side_by_side(page):
    try_sample(page, "star_ring")
    offered = page.locator("#method option").all_inner_texts()
    page.click("#compare")
    page.wait_for_selector("#stop", state="hidden")
    assert page.locator("#figures b").all_inner_texts() == offered
    told = dict(zip(offered, page.locator("#figures small").all_inner_texts(), strict=True))
    assert re.search(r"ms\s+1\spass \+ 1\sbackward", told["grad-cam"])
    page.click("#figures button[value=grad-cam]")
    shows(page, 3, "grad-cam")
    assert page.get_attribute("#figures button[value=grad-cam]", "aria-pressed") == "true"


def test_comparing_can_be_stopped(page):
    try_sample(page, "star")
    page.route("**/v1/explain*method=hires-cam*", lambda route: None)
    page.click("#compare")
    page.wait_for_selector("#done >> text=2 of")
    with page.expect_event("requestfailed"):
        page.click("#stop")
    assert page.inner_text("#done").startswith("Stopped after 2 of")


def test_a_new_photo_cancels_what_is_under_way(page):
    page.route("**/v1/explain*sample=heart*", lambda route: None)
    page.click("#samples button[value=heart]")
    page.wait_for_selector("[data-state=working] #picture")
    with page.expect_event("requestfailed") as gone:
        page.click("#samples button[value=star]")
    assert "sample=heart" in gone.value.url
    shows(page, 3, "cluster-cam")


def test_waiting_can_be_cancelled(page):
    page.route("**/v1/explain*", lambda route: None)
    page.click("#samples button[value=heart]")
    page.click("#cancel")
    page.wait_for_selector("[data-state=idle]")


# --- what goes wrong --------------------------------------------------------------------------------------------------------
def test_errors_are_told_in_words(page, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    page.set_input_files("#file", tmp_path / "notes.png")
    page.wait_for_selector("[data-state=failed] #alert >> text=notes.png: not a supported image")
    (tmp_path / "notes.txt").write_text("no image")
    page.set_input_files("#file", tmp_path / "notes.txt")
    page.wait_for_selector("[data-state=failed] #alert >> text=notes.txt is no photo")
    try_sample(page, "heart")
    assert page.is_hidden("#alert")
    page.fill("#target", "hart")
    page.press("#target", "Enter")
    page.wait_for_selector("#alert >> text=Did you mean 'heart'?")
    assert page.is_visible("#picture"), "what was answered before stays"


def test_a_server_that_is_gone_can_be_tried_again(page):
    page.route("**/v1/explain*", lambda route: route.abort())
    page.click("#samples button[value=star]")
    page.wait_for_selector("#alert >> text=The server cannot be reached")
    page.unroute("**/v1/explain*")
    page.click("#again")
    shows(page, 3, "cluster-cam")


@pytest.mark.parametrize(
    ("outcome", "words"),
    [("flat_map", "The map is the same everywhere"), ("no_positive_evidence", "Nothing in the photo speaks for it"),
     ("not_finite", "numbers that are not finite")],
)  # fmt: skip
def test_a_heatmap_that_could_not_be_made_is_told_in_words(page, outcome, words):
    change_answers(page, lambda told: told["targets"][0].update(outcome=outcome, probability=None))
    try_sample(page, "star")
    assert words in page.inner_text("#outcome")
    page.keyboard.press("Escape")
    page.click("#classes label >> nth=1")
    page.wait_for_selector("#outcome", state="hidden")


def test_a_label_is_text_and_never_markup(page):
    change_answers(page, lambda told: told["targets"][0].update(label=MARKUP))
    try_sample(page, "star")
    assert page.inner_text("#caption strong") == MARKUP
    assert page.locator("main img[src=x]").count() == 0


# --- a token, and several models --------------------------------------------------------------------------------------------
def test_a_token_is_asked_for(open_page, closed):
    page = open_page(closed)
    page.fill("#token", "wrong")
    page.press("#token", "Enter")
    page.wait_for_selector("#alert >> text=not one of this server's")
    page.fill("#token", TOKEN)
    page.press("#token", "Enter")
    page.wait_for_selector("#samples button:enabled >> nth=5")
    assert page.is_hidden("#key")
    assert page.is_hidden("#alert")
    try_sample(page, "star")
    page.reload()
    page.wait_for_selector("#samples button:enabled >> nth=5")  # the tab remembers it
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


@pytest.fixture
def inside(open_page, closed):
    """The page of that server, with its token."""
    page = open_page(closed)
    page.fill("#token", TOKEN)
    page.press("#token", "Enter")
    page.wait_for_selector("#samples button:enabled >> nth=5")
    return page


def test_a_server_that_allows_fewer_classes_is_asked_for_fewer(inside):
    try_sample(inside, "star")
    assert inside.locator("#classes label").count() == 2
    inside.fill("#target", "cross")
    inside.press("#target", "Enter")
    shows(inside, 4, "cluster-cam")


def test_a_server_that_allows_fewer_clusters_is_asked_for_no_more(inside):
    found = posts(inside)
    try_sample(inside, "star")
    counts = inside.locator("#counts option").evaluate_all("all => all.map((one) => one.value)")
    assert counts == ["auto", "5", "10"]
    inside.fill("#clusters", "20")
    inside.press("#clusters", "Enter")
    inside.wait_for_selector("#total >> text=/13\\spasses/")
    assert inside.input_value("#clusters") == "12"
    assert "clusters=12" in found[-1][0]


def test_a_photo_that_is_larger_than_the_server_takes_is_not_sent(inside, tmp_path):
    found = posts(inside)
    (tmp_path / "large.png").write_bytes(bytes((1 << 20) + 1))
    inside.set_input_files("#file", tmp_path / "large.png")
    inside.wait_for_selector("#alert >> text=large.png has 1\u00a0MiB")
    assert found == []
    try_sample(inside, "star")


def test_a_token_is_still_asked_for_after_what_cannot_be_one_and_a_file_that_is_no_photo(open_page, closed, tmp_path):
    page = open_page(closed)
    page.fill("#token", "two words")
    page.press("#token", "Enter")
    page.wait_for_selector("#alert >> text=no spaces")
    (tmp_path / "notes.txt").write_text("no image")
    page.set_input_files("#file", tmp_path / "notes.txt")
    page.wait_for_selector("#alert >> text=is no photo")
    page.fill("#token", TOKEN)
    page.press("#token", "Enter")
    page.wait_for_selector("#samples button:enabled >> nth=5")
    assert page.is_hidden("#alert")


def test_one_of_several_models_is_chosen(inside):
    page = inside
    try_sample(page, "star")
    found = posts(page)
    page.select_option("#model", "other")
    page.wait_for_selector("#about >> text=other names 8 classes", state="attached")
    page.wait_for_selector("[data-state=done]")
    assert "model=other" in found[0][0]
    assert found[0][1] == 0


# --- for everyone -----------------------------------------------------------------------------------------------------------
def test_keyboard_alone_is_enough(page):
    def tab_to(what: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("(what) => document.activeElement.matches(what)", what):
                return
        pytest.fail(f"{what} cannot be reached")

    tab_to("#file")
    tab_to("#samples button[value=star_ring]")
    page.keyboard.press("Enter")
    shows(page, 3, "cluster-cam")
    tab_to("#opacity")
    page.keyboard.press("ArrowRight")
    assert page.input_value("#opacity") == "0.52"
    tab_to("#classes input")
    page.keyboard.press("ArrowDown")
    shows(page, 5, "cluster-cam")
    tab_to("#method")
    page.keyboard.press("ArrowDown")
    shows(page, 5, "group-cam")
    assert page.evaluate("document.activeElement.id") == "method"
    tab_to("#compare")
    page.keyboard.press("Enter")
    page.wait_for_selector("#figures button.there")


def test_phone_width_has_no_sideways_scrolling(open_page, served):
    page = open_page(served, viewport={"width": 375, "height": 740}, color_scheme="dark")
    page.wait_for_selector("#samples button:enabled >> nth=5")
    widths = [page.evaluate(WIDTHS)]
    try_sample(page, "star_ring")
    page.click("summary")
    widths.append(page.evaluate(WIDTHS))
    page.click("#compare")
    page.wait_for_selector("#stop", state="hidden")
    widths.append(page.evaluate(WIDTHS))
    page.goto(f"{served.url}/docs")
    page.wait_for_selector("[data-state=done]")
    widths.append(page.evaluate(WIDTHS))
    assert widths == [[375, 375]] * 4


def test_the_page_loads_nothing_from_elsewhere_and_breaks_no_policy(open_page, served):
    for path in ("/", "/docs"):
        answer = urllib.request.urlopen(served.url + path)
        policy = answer.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy
        assert "style-src 'self'" in policy
        assert "unsafe" not in policy
        text = answer.read().decode()
        assert not re.search(r"https?://|<style| style=| on\w+=", text)
        open_page(served, path).wait_for_selector(
            "#samples button:enabled, #objects"
        )  # `open_page` sees what is asked and refused


# --- the API's pages --------------------------------------------------------------------------------------------------------
@pytest.fixture
def docs(open_page, served):
    page = open_page(served, "/docs")
    page.wait_for_selector("[data-state=done]")
    return page


def test_the_docs_list_every_operation_with_its_parameters(docs, served):
    api = json.load(urllib.request.urlopen(f"{served.url}/openapi.json"))
    told = {f"{verb.upper()} {path}": operation for path, verbs in api["paths"].items() for verb, operation in verbs.items()}
    listed = docs.locator("#contents li").all_inner_texts()
    assert sorted(re.sub(r"\s+", " ", text) for text in listed) == sorted(told)
    for name, operation in told.items():
        article = docs.locator("article", has=docs.locator("h3", has_text=re.compile(rf"^{re.escape(name.replace(' ', ''))}$")))
        text = article.inner_text()
        assert all(parameter["name"] in text for parameter in operation.get("parameters", []))
        assert all(status in text for status in operation["responses"])
    assert docs.locator("#contents a").evaluate_all("all => all.every((a) => document.querySelector(a.hash))")
    assert docs.locator("main a[href^='#']").evaluate_all("all => all.every((a) => document.querySelector(a.hash))")


def test_the_command_lines_of_the_docs_work(docs, tmp_path):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    shutil.copy(SAMPLES / "star.png", tmp_path / "photo.jpg")
    lines = "\n".join(docs.locator("article pre").all_inner_texts()).replace("\\\n", " ").splitlines()
    lines = [
        line.replace("curl", "curl --fail-with-body --silent", 1)
        for line in lines
        if "/load'" not in line and "/unload'" not in line
    ]
    assert any("--data-binary @photo.jpg" in line for line in lines)
    assert any("/infer" in line for line in lines)
    done = subprocess.run("set -e\n" + "\n".join(lines), shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:]
    assert (tmp_path / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert np.load(tmp_path / "heatmap.npy").shape == (3, 384, 384)

"""The plain face: what it answers, in which forms, and how it refuses."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")

import camrt
from camrt.methods import METHODS

from .client import HEART, STAR, running


@pytest.fixture(scope="module")
def served():
    with running() as (client, service):
        yield client, service


@pytest.fixture(scope="module")
def client(served):
    return served[0]


def explain(client, body=HEART, headers=None, **query):
    return client.post("/v1/explain", params=query, content=body, headers=headers or {})


def error(response, status):
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    return response.json()["error"]


# --- what is answered -----------------------------------------------------------------------------------------------------
def test_the_answer_is_that_of_the_library(client, shapes):
    told = explain(client, top=2).json()
    expected = shapes.explain(HEART, top=2)
    assert [t["index"] for t in told["targets"]] == [t.index for t in expected.targets]
    assert [t["probability"] for t in told["targets"]] == pytest.approx([t.probability for t in expected.targets], abs=1e-6)
    assert told["prediction"][0] == pytest.approx(
        {"index": expected.targets[0].index, "label": "heart", "probability": expected.targets[0].probability}, abs=1e-6
    )
    assert len(told["prediction"]) == 5
    assert (told["passes"], told["tail_passes"], told["method"]) == (
        expected.run.passes,
        expected.run.tail_passes,
        "cluster-cam",
    )
    assert {"decode", "queue", "forward", "masked", "render", "total"} <= set(told["milliseconds"])


def test_the_array_is_the_heatmap_on_the_photo(client, shapes):
    answer = explain(client, headers={"Accept": "application/x-npy"}, top=2)
    array = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, shapes.explain(HEART, top=2).heatmap, atol=1e-6)
    assert answer.headers["X-Camrt-Targets"].startswith("6=0.8")


def test_the_png_is_the_overlay(client, shapes):
    answer = explain(client, headers={"Accept": "image/png,image/*;q=0.8"})
    assert answer.headers["content-type"] == "image/png"
    found = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(found.astype(int) - shapes.explain(HEART).overlay()).max() <= 1


def test_json_carries_a_picture_for_every_target_if_asked(client, shapes):
    told = explain(client, top=2, image="heatmap").json()
    expected = shapes.explain(HEART, top=2).heatmap
    for target, heatmap in zip(told["targets"], expected, strict=True):
        grey = cv2.imdecode(np.frombuffer(base64.b64decode(target["picture"]), np.uint8), cv2.IMREAD_UNCHANGED)
        assert grey.shape == (384, 384)
        np.testing.assert_allclose(grey / 255, heatmap, atol=1 / 255)
    assert all(t["picture"] is None for t in explain(client, top=2).json()["targets"])


def test_pictures_are_made_as_small_as_asked(client):
    photo = cv2.imencode(".jpg", np.full((100, 300, 3), 128, np.uint8))[1].tobytes()
    array = np.load(io.BytesIO(explain(client, photo, {"Accept": "application/x-npy"}, longest=60).content))
    assert array.shape == (1, 20, 60)


def test_a_form_a_kept_photo_and_a_sample_are_photos_too(client):
    whole = explain(client).json()
    form = client.post("/v1/explain", files={"photo": ("any name/../x.png", HEART, "image/png")}).json()
    kept = client.post("/v1/explain", params={"photo": whole["photo"], "method": "hires-cam"}).json()
    sample = client.post("/v1/explain", params={"sample": "heart"}).json()
    assert form["targets"] == whole["targets"] == sample["targets"]
    assert kept["photo"] == whole["photo"]
    assert kept["method"] == "hires-cam"
    assert "heart" in client.get("/v1/samples").json()
    assert client.get("/v1/samples/heart").content == HEART


def test_parameters_go_to_the_method(client):
    told = explain(client, clusters=4, param=["merge=evidence", "seed=3"]).json()
    assert (told["parameters"]["clusters"], told["parameters"]["merge"], told["parameters"]["seed"]) == (4, "evidence", 3)
    assert told["passes"] == 5


def test_classes_go_by_label_or_index_and_against_another(client):
    told = explain(client, target=["star", "6"], versus="ring").json()
    assert [(t["label"], t["versus"]["label"]) for t in told["targets"]] == [("star", "ring"), ("heart", "ring")]


def test_every_offered_method_answers(client):
    for described in client.get("/v1/methods").json():
        answer = explain(client, method=described["name"])
        assert answer.status_code == (422 if described["name"] == "cam" else 200), answer.text  # its tail is not linear


def test_models_tell_what_can_be_asked_of_them(client):
    (model,) = client.get("/v1/models").json()
    assert (model["name"], model["state"], model["classes"]) == ("shapes", "ready", 8)
    assert model["labels"][6] == "heart"
    assert set(model["methods"]) == set(METHODS) - {"score-cam", "rise"}


def test_a_heatmap_of_nothing_is_an_outcome_and_no_error(client):
    flat = cv2.imencode(".png", np.zeros((96, 96, 3), np.uint8))[1].tobytes()
    told = explain(client, flat, top=8).json()
    assert {t["outcome"] for t in told["targets"]} <= {"ok", "no_positive_evidence", "flat_map"}


# --- what is refused ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"model": "nothing"}, 404, "There is no model 'nothing'."),
        ({"model": "shape"}, 404, "Did you mean 'shapes'"),
        ({"method": "grad-cm"}, 422, "Did you mean 'grad-cam'"),
        ({"method": "rise"}, 422, "does not offer rise"),
        ({"target": "hart"}, 422, "Did you mean 'heart'"),
        ({"target": "99"}, 422, "0…7"),
        ({"top": "0"}, 422, "top"),
        ({"top": "many"}, 422, "top"),
        ({"top": "2", "target": "6"}, 422, "Give one of"),
        ({"clusters": "65"}, 422, "at most 64"),
        ({"clusters": "none"}, 422, "clusters must be"),
        ({"param": "clusters"}, 422, "NAME=VALUE"),
        ({"param": "speed=9"}, 422, "no parameter 'speed'"),
        ({"alpha": "nan"}, 422, "alpha"),
        ({"image": "gif"}, 422, "image"),
        ({"taget": "heart"}, 422, "Did you mean 'target'"),
        ({"merge": "evidence"}, 422, "param=NAME=VALUE"),
        ({"top": ["1", "2"]}, 422, "given 2 times"),
        ({"clusters": "4", "param": "clusters=5"}, 422, "given twice"),
        ({"longest": "0"}, 422, "longest"),
        ({"photo": "unknown"}, 422, "Give one of a body, photo and sample"),
        ({"sample": "heart"}, 422, "Give one of a body, photo and sample"),
    ],
)
def test_what_is_not_there_or_not_allowed_is_refused_in_words(client, query, status, words):
    assert words in error(explain(client, **query), status)


def test_a_photo_that_is_not_remembered_and_a_sample_that_is_not_there_are_404(client):
    assert "Send it again" in error(client.post("/v1/explain", params={"photo": "x"}), 404)
    for name in ("nothing", "../labels", "/etc/passwd", "..%2f..%2fbundle.json"):
        error(client.post("/v1/explain", params={"sample": name}), 404)
        assert client.get(f"/v1/samples/{name}").status_code == 404


@pytest.mark.parametrize("photo", [b"hello", HEART[:200], b"\xff\xd8\xff" * 50, b"GIF89a" + bytes(20)])
def test_what_is_no_photo_is_400(client, photo):
    error(explain(client, photo), 400)


def test_a_request_may_ask_for_less_time_than_the_server_gives(client):
    assert "0.001 s" in error(explain(client, timeout=0.001), 504)
    assert explain(client, timeout=50).status_code == 200
    error(explain(client, timeout=0), 422)


def test_no_photo_at_all_is_400(client):
    assert "There is no photo" in error(client.post("/v1/explain"), 400)


def test_a_form_without_a_photo_or_cut_short_is_400(client):
    assert "no file named photo" in error(client.post("/v1/explain", files={"picture": HEART}), 400)
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    error(client.post("/v1/explain", content=b"--x\r\nnonsense", headers=form), 400)
    error(client.post("/v1/explain", content=HEART, headers={"Content-Type": "multipart/form-data"}), 400)


def test_a_bomb_is_refused_by_its_header(client):
    bomb = HEART[:16] + (60_000).to_bytes(4, "big") * 2 + HEART[24:]
    assert "60000 x 60000" in error(explain(client, bomb), 400)


def test_a_form_of_answer_that_there_is_not_is_406(client):
    error(explain(client, headers={"Accept": "text/html"}), 406)
    error(explain(client, headers={"Accept": "image/png"}, image="none"), 406)


def test_what_is_not_there_is_404_and_another_verb_405(client):
    error(client.get("/nothing"), 404)
    error(client.get("/v1/explain"), 405)
    error(client.get("/static/../app.py"), 404)
    error(client.get("/static/%2e%2e%2fapp.py"), 404)


def test_pictures_of_too_many_pixels_are_refused_with_advice(shapes):
    with running(shapes, max_pixels=384 * 384) as (client, _):
        assert "longest=" in error(explain(client, top=2, image="overlay"), 422)
        assert explain(client, top=2, image="overlay", longest=200).status_code == 200


def test_limits_are_the_servers(shapes):
    with running(
        shapes, max_targets=2, max_clusters=5, methods=("cluster-cam", "grad-cam"), max_pixels=1000, max_decoded=1 << 20
    ) as (client, _):
        assert "At most 2 classes" in error(explain(client, top=3), 422)
        assert "at most 5" in error(explain(client, clusters=6), 422)
        assert "at most 5" in error(explain(client, param="tail_clusters=6"), 422)
        lowered = explain(client, cv2.imencode(".png", np.zeros((20, 20, 3), np.uint8))[1].tobytes()).json()["parameters"]
        assert (lowered["clusters"], lowered["tail_clusters"]) == (5, 5)
        assert "It offers: cluster-cam, grad-cam" in error(explain(client, method="eigen-cam"), 422)
        assert "384 x 384" in error(explain(client, method="grad-cam"), 400)


def test_an_unloaded_model_is_503_and_answers_when_it_is_back(shapes):
    with running(shapes) as (client, service):
        model = service.models.named("shapes")
        model.unload()
        assert "unloaded" in error(explain(client), 503)
        (told,) = client.get("/v1/models").json()
        assert (told["state"], told["classes"], told["methods"]) == ("unloaded", None, [])
        model.load()
        assert explain(client).status_code == 200


def test_errors_carry_no_internals(shapes, monkeypatch):
    with running(shapes) as (client, _):
        monkeypatch.setattr("camrt.server.model.answer", lambda *_: 1 / 0)
        assert error(explain(client), 500) == "The server failed; its log says why."
        monkeypatch.setattr("camrt.server.model.answer", _raising(camrt.BundleError("/secret/path: ORT says so")))
        assert "secret" not in error(explain(client), 503)


def _raising(exception):
    def call(*_):
        raise exception

    return call


def test_photos_of_one_group_fail_apart(shapes, monkeypatch):
    import camrt.server.model as module

    real = module.answer

    def too_many(engine, questions, images, turns):
        if len(images) > 1:
            raise camrt.DeviceMemoryError("full")
        return real(engine, questions, images, turns)

    with running(shapes, delay=0.2) as (client, _):
        monkeypatch.setattr(module, "answer", too_many)
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda photo: explain(client, photo), [HEART, STAR, HEART]))
        assert [a.json()["targets"][0]["label"] for a in answers] == ["heart", "star", "heart"]


def test_questions_about_other_classes_share_a_batch(shapes, monkeypatch):
    import camrt.server.model as module

    sizes, real = [], module.answer
    with running(shapes, delay=0.3) as (client, _):
        monkeypatch.setattr(module, "answer", lambda e, q, i, t: sizes.append(len(i)) or real(e, q, i, t))
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda label: explain(client, target=label).json(), ["heart", "star", "ring"]))
        assert sizes == [3]
        assert [a["targets"][0]["label"] for a in answers] == ["heart", "star", "ring"]
        alone = shapes.explain(HEART, targets=["star"])
        assert answers[1]["targets"][0]["probability"] == pytest.approx(alone.targets[0].probability, abs=1e-6)

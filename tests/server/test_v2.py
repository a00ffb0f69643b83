"""The Open Inference Protocol, version 2: Triton's client unchanged, requests as KServe's client sends them, and bad ones."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

import httpx2 as httpx

import camrt
from camrt.server.v2.classes import read_classes
from camrt.server.v2.outputs import DEFAULTS, OUTPUTS
from tests.conftest import LABELS

from .client import HEART, STAR, running

HEADER = "Inference-Header-Content-Length"
PREDICTED = ("logits", "probabilities", "targets", "labels")


@pytest.fixture(scope="module")
def triton(served):
    http = pytest.importorskip("tritonclient.http")
    with http.InferenceServerClient(served.url.removeprefix("http://"), connection_timeout=60, network_timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def client(served):
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def expected(shapes):
    return [shapes.explain(photo, top=2) for photo in (HEART, STAR)]


def photos(*encoded, shape=None):
    from tritonclient.http import InferInput

    tensor = InferInput("photo", shape or [len(encoded)], "BYTES")
    return [tensor.set_data_from_numpy(np.array(encoded, object).reshape(tensor.shape()))]


def tensor(name, array, datatype, binary=True):
    from tritonclient.http import InferInput

    return [InferInput(name, list(array.shape), datatype).set_data_from_numpy(array, binary_data=binary)]


def wanted(*names, binary=True):
    from tritonclient.http import InferRequestedOutput

    return [InferRequestedOutput(name, binary_data=binary) for name in names]


def decoded(encoded):
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)


def inputs_of(photo, shapes):
    """Return the network's input (C, H, W) for a photo."""
    return shapes.prepare(photo).x


def is_answer(result, explanations):
    """Compare what was answered with what the library found."""
    np.testing.assert_array_equal(result.as_numpy("targets"), [[t.index for t in e.targets] for e in explanations])
    np.testing.assert_allclose(result.as_numpy("logits"), [e.logits for e in explanations], atol=1e-5)
    np.testing.assert_allclose(
        result.as_numpy("probabilities"), [[t.probability for t in e.targets] for e in explanations], atol=1e-6
    )
    np.testing.assert_allclose(result.as_numpy("heatmap"), [e.network_heatmap for e in explanations], atol=1e-6)
    np.testing.assert_array_equal(result.as_numpy("outcomes"), [[t.outcome for t in e.targets] for e in explanations])


# --- Triton's client: what there is ---------------------------------------------------------------------------------------
def test_the_server_tells_what_it_is_and_that_it_is_ready(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    told = triton.get_server_metadata()
    assert (told["name"], told["version"]) == ("camrt", camrt.__version__)
    assert "binary_tensor_data" in told["extensions"]


def test_models_are_listed_ready_and_described(triton):
    assert triton.get_model_repository_index() == [{"name": "shapes", "version": "1", "state": "READY", "reason": ""}]
    assert triton.is_model_ready("shapes")
    assert triton.is_model_ready("shapes", "1")
    assert not triton.is_model_ready("nothing")
    assert not triton.is_model_ready("shapes", "2")
    told = triton.get_model_metadata("shapes", "1")
    assert (told["name"], told["versions"]) == ("shapes", ["1"])
    inputs = {one["name"]: (one["datatype"], one["shape"]) for one in told["inputs"]}
    assert inputs == {"image": ("FP32", [-1, 3, 96, 96]), "pixels": ("UINT8", [-1, -1, -1, 3]), "photo": ("BYTES", [-1])}
    outputs = {one["name"]: (one["datatype"], one["shape"]) for one in told["outputs"]}
    assert list(outputs) == list(OUTPUTS)
    assert outputs["heatmap"] == ("FP32", [-1, -1, 96, 96])
    assert outputs["maps"] == ("FP32", [-1, -1, 12, 12])


def test_every_output_is_of_the_datatype_and_shape_that_is_told(triton):
    told = {one["name"]: one for one in triton.get_model_metadata("shapes")["outputs"]}
    result = triton.infer("shapes", photos(HEART, STAR), outputs=wanted(*OUTPUTS), parameters={"top": 3})
    for one in result.get_response()["outputs"]:
        expected = told[one["name"]]
        assert one["datatype"] == expected["datatype"]
        assert len(one["shape"]) == len(expected["shape"])
        assert all(pattern in (-1, size) for size, pattern in zip(one["shape"], expected["shape"], strict=True))
        assert result.as_numpy(one["name"]).shape == tuple(one["shape"])


# --- Triton's client: inference -------------------------------------------------------------------------------------------
def test_two_encoded_photos_are_answered_as_by_the_library(triton, expected):
    jpeg = cv2.imencode(".jpg", np.full((40, 60, 3), 128, np.uint8))[1].tobytes()
    is_answer(triton.infer("shapes", photos(HEART, STAR), parameters={"top": 2}), expected)
    is_answer(triton.infer("shapes", photos(HEART, STAR, shape=[2, 1]), parameters={"top": 2}, model_version="1"), expected)
    assert triton.infer("shapes", photos(HEART, jpeg)).as_numpy("heatmap").shape == (2, 1, 96, 96)


def test_two_at_once_are_answered_as_one_by_one(triton):
    both = triton.infer("shapes", photos(HEART, STAR))
    for i, photo in enumerate((HEART, STAR)):
        alone = triton.infer("shapes", photos(photo))
        for name in DEFAULTS:
            np.testing.assert_allclose(both.as_numpy(name)[i], alone.as_numpy(name)[0], atol=1e-5 if name == "logits" else 1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_a_preprocessed_tensor_is_answered_as_its_photo(triton, shapes, expected, binary):
    images = np.stack([inputs_of(photo, shapes) for photo in (HEART, STAR)])
    is_answer(triton.infer("shapes", tensor("image", images, "FP32", binary), parameters={"top": 2}), expected)


@pytest.mark.parametrize("binary", [True, False])
def test_pixels_are_answered_as_their_photo(triton, expected, binary):
    pixels = np.stack([decoded(HEART), decoded(STAR)]) if binary else decoded(HEART)[None]
    is_answer(triton.infer("shapes", tensor("pixels", pixels, "UINT8", binary), parameters={"top": 2}), expected[: len(pixels)])


def test_only_the_outputs_asked_for_are_returned_in_their_order(triton):
    result = triton.infer("shapes", photos(HEART), outputs=wanted("maps", "targets"), request_id="mine")
    assert [one["name"] for one in result.get_response()["outputs"]] == ["maps", "targets"]
    assert result.get_response()["id"] == "mine"
    assert result.as_numpy("logits") is None


def test_without_outputs_named_the_usual_ones_are_returned(triton):
    result = triton.infer("shapes", photos(HEART))
    assert tuple(one["name"] for one in result.get_response()["outputs"]) == DEFAULTS


def test_binary_and_json_answers_are_the_same_and_may_be_mixed(triton):
    names = [name for name in OUTPUTS if name != "overlay"]
    binary = triton.infer("shapes", photos(HEART), outputs=wanted(*names))
    plain = triton.infer("shapes", photos(HEART), outputs=wanted(*names, binary=False))
    mixed = triton.infer("shapes", photos(HEART), outputs=wanted(*names[::2], binary=False) + wanted(*names[1::2]))
    for name in names:
        for other in (plain, mixed):
            same = [[one.decode() if isinstance(one, bytes) else one for one in r.as_numpy(name).flat] for r in (binary, other)]
            np.testing.assert_array_equal(same[0], same[1]) if name == "labels" else np.testing.assert_allclose(
                same[0], same[1], atol=1e-6
            )


def test_parameters_go_to_the_method(triton, shapes):
    given = {"method": "cluster-cam", "target": "star", "versus": "ring", "clusters": 4, "merge": "evidence", "seed": 3}
    result = triton.infer(
        "shapes", photos(HEART), parameters=given, priority=1, sequence_id=7, sequence_start=True, timeout=30_000_000
    )
    told = result.get_response()["parameters"]
    assert (told["method"], told["provider"]) == ("cluster-cam", "cpu")
    is_answer(result, [shapes.explain(HEART, target="star", versus="ring", clusters=4, merge="evidence", seed=3)])


def test_another_method_and_several_classes_by_label_and_index(triton, shapes):
    result = triton.infer("shapes", photos(HEART), parameters={"method": "grad-cam", "targets": "star, 6,ring"})
    is_answer(result, [shapes.explain(HEART, targets=["star", 6, "ring"], method="grad-cam")])
    one = triton.infer("shapes", photos(HEART), outputs=wanted("labels"), parameters={"target": 6})
    assert one.as_numpy("labels").tolist() == [[b"heart"]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_requests_may_be_compressed(triton, shapes, expected, algorithm):
    images = np.stack([inputs_of(photo, shapes) for photo in (HEART, STAR)])
    result = triton.infer(
        "shapes", tensor("image", images, "FP32"), parameters={"top": 2},
        request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
    )  # fmt: skip
    is_answer(result, expected)


def test_many_at_once_each_get_their_own_answer(triton, expected):
    asked = [triton.async_infer("shapes", photos(photo), parameters={"top": 2}) for photo in (HEART, STAR) * 3]
    for i, pending in enumerate(asked):
        is_answer(pending.get_result(), [expected[i % 2]])


def test_overlays_are_pictures_of_the_photo(triton, shapes):
    given = {"top": 2, "alpha": 0.3, "colormap": "jet"}
    found = triton.infer("shapes", photos(HEART), outputs=wanted("overlay"), parameters=given).as_numpy("overlay")
    explanation = shapes.explain(HEART, top=2)
    for i, picture in enumerate(found[0]):
        assert np.abs(decoded(picture).astype(int) - explanation.overlay(i, alpha=0.3, colormap="jet")).max() <= 1
    small = triton.infer("shapes", photos(HEART), outputs=wanted("overlay"), parameters={"longest": 50}).as_numpy("overlay")
    assert decoded(small[0, 0]).shape == (50, 50, 3)


def test_errors_reach_the_client_in_words(triton):
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="Did you mean 'heart'"):
        triton.infer("shapes", photos(HEART), parameters={"target": "hart"})
    with pytest.raises(InferenceServerException, match="no parameter 'speed'"):
        triton.infer("shapes", photos(HEART), parameters={"speed": 9})
    with pytest.raises(InferenceServerException, match="no model 'nothing'"):
        triton.infer("nothing", photos(HEART))
    with pytest.raises(InferenceServerException, match="within 1e-06 s"):
        triton.infer("shapes", photos(HEART), timeout=1)


# --- the model repository -------------------------------------------------------------------------------------------------
def test_models_are_unloaded_and_loaded(triton, expected):
    from tritonclient.utils import InferenceServerException

    try:
        triton.unload_model("shapes")
        assert triton.get_model_repository_index()[0] == {
            "name": "shapes",
            "version": "1",
            "state": "UNAVAILABLE",
            "reason": "unloaded",
        }
        assert not triton.is_model_ready("shapes")
        assert not triton.is_server_ready()
        assert triton.is_server_live()
        with pytest.raises(InferenceServerException, match="unloaded"):
            triton.infer("shapes", photos(HEART))
        with pytest.raises(InferenceServerException, match="unloaded"):
            triton.get_model_metadata("shapes")
    finally:
        triton.load_model("shapes")
    assert triton.is_server_ready()
    is_answer(triton.infer("shapes", photos(HEART, STAR), parameters={"top": 2}), expected)


def test_loading_takes_neither_files_nor_configurations_nor_new_names(triton):
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="'config' is not taken"):
        triton.load_model("shapes", config="{}")
    with pytest.raises(InferenceServerException, match="is not taken"):
        triton.load_model("shapes", config="{}", files={"file:1/model.onnx": b"x"})
    for name in ("nothing", "..", "models/shapes", "/etc"):
        with pytest.raises(InferenceServerException) as caught:
            triton.load_model(name)
        assert caught.value.status() in ("404", "405")
    assert triton.is_model_ready("shapes")


def test_a_read_only_server_neither_loads_nor_unloads(shapes):
    with running(shapes, read_only=True) as (client, _):
        for verb in ("load", "unload"):
            refused(client.post(f"/v2/repository/models/shapes/{verb}"), 403, "read-only")
        assert client.get("/v2/models/shapes/ready").json() == {"name": "shapes", "ready": True}


def test_the_index_may_leave_out_what_is_not_ready(shapes, tiny):
    with running(shapes, tiny) as (client, service):
        service.models.named("shapes").unload()
        assert [m["state"] for m in client.post("/v2/repository/index").json()] == ["UNAVAILABLE", "READY"]
        assert [m["name"] for m in client.post("/v2/repository/index", json={"ready": True}).json()] == [tiny.manifest.name]
        refused(client.post("/v2/repository/index", json={"ready": "yes"}), 400, "ready")


# --- requests as others send them -----------------------------------------------------------------------------------------
def infer(client, body, headers=None, path="shapes"):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(f"/v2/models/{path}/infer", content=content, headers=headers or {})


def refused(response, status, words=""):
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    assert words in response.json()["error"]
    assert len(response.json()["error"]) < 1500


def outputs(response):
    assert response.status_code == 200, response.text
    assert HEADER not in response.headers
    return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in response.json()["outputs"]}


def photo_in_json(photo=HEART):
    return {
        "name": "photo", "shape": [1], "datatype": "BYTES", "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(photo).decode()],
    }  # fmt: skip


def test_a_request_as_kserves_client_sends_it_is_answered_in_json(client, shapes, expected):
    x = inputs_of(HEART, shapes)
    body = {
        "id": "11111111-2222", "model_name": "shapes", "parameters": {"top": 2},
        "inputs": [{"name": "image", "shape": [1, *x.shape], "datatype": "FP32", "data": x.ravel().tolist()}],
        "outputs": None,
    }  # fmt: skip
    response = infer(client, body, {"Content-Type": "application/json"})
    found = outputs(response)
    assert response.json()["id"] == "11111111-2222"
    assert (response.json()["model_name"], response.json()["model_version"]) == ("shapes", "1")
    np.testing.assert_allclose(found["heatmap"][0], expected[0].network_heatmap, atol=1e-6)
    body["inputs"][0]["data"] = x[None].tolist()
    np.testing.assert_array_equal(outputs(infer(client, body, path="shapes/versions/1"))["heatmap"], found["heatmap"])


def test_a_binary_request_and_answer_are_as_the_protocol_has_them(client):
    head = {
        "inputs": [{"name": "photo", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(HEART) + 4}}],
        "outputs": [
            {"name": "targets", "parameters": {"binary_data": True}},
            {"name": "labels"},
            {"name": "logits", "parameters": {"binary_data": True}},
        ],
    }
    encoded = json.dumps(head).encode()
    body = encoded + struct.pack("<I", len(HEART)) + HEART
    response = infer(client, body, {HEADER: str(len(encoded)), "Content-Type": "application/octet-stream"})
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[HEADER])
    told = json.loads(response.content[:length])
    assert [one.get("parameters", {}).get("binary_data_size") for one in told["outputs"]] == [8, None, 32]
    assert told["outputs"][1]["data"] == ["heart"]
    assert struct.unpack("<q8f", response.content[length:])[0] == 6


def test_binary_data_output_is_for_outputs_that_do_not_say(client):
    body = {
        "inputs": [photo_in_json()], "parameters": {"binary_data_output": True},
        "outputs": [{"name": "targets"}, {"name": "labels", "parameters": {"binary_data": False}}],
    }  # fmt: skip
    response = infer(client, body)
    told = json.loads(response.content[: int(response.headers[HEADER])])
    assert ["data" in one for one in told["outputs"]] == [False, True]


def test_overlays_in_json_are_base64_and_say_so(client):
    (overlay,) = infer(client, {"inputs": [photo_in_json()], "outputs": [{"name": "overlay"}]}).json()["outputs"]
    assert overlay["parameters"] == {"content_type": "base64"}
    assert decoded(base64.b64decode(overlay["data"][0])).shape == (384, 384, 3)


def test_health_is_told_as_kserve_reads_it(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True, "live": True}
    assert client.get("/v2/models/shapes/ready").json() == {"name": "shapes", "ready": True}
    for path in ("nothing", "shapes/versions/2", "nothing/versions/1"):
        for leaf in ("", "/ready"):
            refused(client.get(f"/v2/models/{path}{leaf}"), 404)
        refused(infer(client, {"inputs": [photo_in_json()]}, path=path), 404)


def test_what_needs_no_explanation_takes_one_pass(shapes, monkeypatch):
    with running(shapes) as (client, service):

        async def none(*_):
            raise AssertionError("nothing is to be explained")

        monkeypatch.setattr(service, "explain", none)
        body = {"inputs": [photo_in_json()], "parameters": {"top": 8}, "outputs": [{"name": name} for name in PREDICTED]}
        response = infer(client, body)
        assert response.json()["parameters"]["passes"] == 1
        found = outputs(response)
        monkeypatch.undo()
        explained = outputs(infer(client, body | {"outputs": [*body["outputs"], {"name": "outcomes"}]}))
        for name in ("logits", "probabilities"):
            np.testing.assert_allclose(found[name], explained[name], atol=1e-6)
        for name in ("targets", "labels"):
            np.testing.assert_array_equal(found[name], explained[name])


def test_explanations_are_counted_and_logged(shapes, caplog):
    with running(shapes) as (client, _), caplog.at_level("INFO", "camrt.server"):
        infer(client, {"inputs": [photo_in_json()], "parameters": {"top": 2}, "outputs": [{"name": "outcomes"}]})
        text = client.get("/metrics").text
        assert 'camrt_images_total{method="cluster-cam",model="shapes",outcome="ok"} 2.0' in text
        assert 'camrt_stage_seconds_count{model="shapes",stage="render"} 1.0' in text
        (record,) = [r for r in caplog.records if getattr(r, "route", "") == "/v2/models/{model}/infer"]
        assert (record.model, record.images, record.explained_by, record.outcomes) == ("shapes", 1, "cluster-cam", ["ok", "ok"])


# --- classes in one string --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("dog", [3]),
        ("3", [3]),
        ("dog,ant, 2", [3, 0, 2]),
        ("bee, honeybee", [1]),
        ("honeybee", [1]),
        ("bee,HONEYBEE ,ant", [1, 0]),
        ("ant, crane, hoist, dog", [0, 4, 3]),
        ("hoist,crane,hoist", [4, 4]),
        ("0,1,2,3,4,0,1", [0, 1, 2, 3]),
    ],
)
def test_the_longest_run_that_is_a_label_is_a_class(tiny, text, classes):
    assert tiny.manifest.labels == tuple(LABELS)
    assert read_classes(tiny.manifest, text, 3) == classes[:4]


@pytest.mark.parametrize("text", ["", "dog,", ",dog", "cat", "5", "1.5", "honeybee, cat"])
def test_what_is_no_class_in_a_string_is_refused(tiny, text):
    with pytest.raises(camrt.UnknownTarget):
        read_classes(tiny.manifest, text, 3)


# --- what is refused --------------------------------------------------------------------------------------------------------
GOOD = {"name": "pixels", "shape": [1, 1, 2, 3], "datatype": "UINT8", "data": [0, 50, 100, 150, 200, 250]}


def asked(*inputs, **more):
    return {"inputs": list(inputs or [GOOD]), **more}


def pixels(**changes):
    return asked({key: value for key, value in (GOOD | changes).items() if value is not ...})


def image(**changes):
    return asked({"name": "image", "shape": [1, 3, 96, 96], "datatype": "FP32", "data": [0.0] * 27648} | changes)


BAD = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"id": "\xff"}',
    "another encoding": '{"inputs": []}'.encode("utf-16"),
    "no object": b"[]",
    "deep": b"[" * 100_000,
    "many lists": b'{"inputs": [' + b"[]," * 1_000_000 + b"[]]}",
    "NaN": b'{"inputs": [NaN]}',
    "many digits": b'{"id": ' + b"1" * 5000 + b"}",
    "no inputs": {},
    "inputs null": {"inputs": None},
    "inputs an object": {"inputs": {"pixels": GOOD}},
    "inputs of numbers": {"inputs": [1]},
    "two inputs": asked(GOOD, GOOD),
    "no name": pixels(name=...),
    "a name of another kind": pixels(name=7),
    "an unknown name": pixels(name="pixel" * 1000),
    "a surrogate": pixels(name="\ud800"),
    "no datatype": pixels(datatype=...),
    "an unknown datatype": pixels(datatype="UINT7"),
    "BF16": pixels(datatype="BF16"),
    "another datatype": pixels(datatype="INT64"),
    "no shape": pixels(shape=...),
    "a negative shape": pixels(shape=[1, -1, -2, 3]),
    "a huge shape": pixels(shape=[10**9, 10**9, 10**9, 3]),
    "an absurd shape": pixels(shape=[10**400]),
    "a large shape": pixels(shape=[1, 10**5, 10**5, 3]),
    "a fractional shape": pixels(shape=[1.0, 1, 2, 3]),
    "another rank": pixels(shape=[1, 2, 3]),
    "no rank": pixels(shape=[], data=[0]),
    "other channels": pixels(shape=[1, 1, 3, 2]),
    "no images": pixels(shape=[0, 1, 2, 3], data=[]),
    "no pixels": pixels(shape=[1, 0, 2, 3], data=[]),
    "too many images": pixels(shape=[17, 1, 1, 3], data=[0] * 51),
    "too few elements": pixels(data=[1]),
    "elements out of range": pixels(data=[0, 0, 0, 0, 0, 256]),
    "ragged": pixels(data=[[[[0, 0, 0], [0, 0]]]]),
    "no data": pixels(data=...),
    "data null": pixels(data=None),
    "data a string": pixels(data="AAAA"),
    "data and bytes": pixels(parameters={"binary_data_size": 6}),
    "bytes without a header": pixels(data=..., parameters={"binary_data_size": 6}),
    "a negative size": pixels(data=..., parameters={"binary_data_size": -1}),
    "a size of another kind": pixels(data=..., parameters={"binary_data_size": "6"}),
    "shared memory in": pixels(data=..., parameters={"shared_memory_region": "x", "shared_memory_byte_size": 6}),
    "parameters of an input no object": pixels(parameters=[1]),
    "an image of another size": image(shape=[1, 3, 48, 192]),
    "an image of FP64": image(datatype="FP64"),
    "an image too large for FP32": image(data=[1e39] * 27648),
    "a photo in text": asked({"name": "photo", "shape": [1], "datatype": "BYTES", "data": ["hello"]}),
    "a photo in no base64": asked(photo_in_json() | {"data": ["?"]}),
    "a photo that is none": asked(photo_in_json(b"hello")),
    "an empty photo": asked(photo_in_json(b"")),
    "a photo of three axes": asked(photo_in_json() | {"shape": [1, 1, 1]}),
    "photos of two axes": asked(photo_in_json() | {"shape": [1, 2], "data": ["", ""]}),
    "an id of another kind": asked(id=7),
    "parameters no object": asked(parameters="top"),
    "a parameter of another kind": asked(parameters={"targets": ["heart"]}),
    "a long parameter": asked(parameters={"target": "x" * 2000}),
    "a long name": asked(parameters={"x" * 2000: 1}),
    "binary_data_output no flag": asked(parameters={"binary_data_output": 1}),
    "a timeout below 0": asked(parameters={"timeout": -1}),
    "a fractional timeout": asked(parameters={"timeout": 1.5}),
    "a huge timeout": asked(parameters={"timeout": 10**30}),
    "outputs no list": asked(outputs="heatmap"),
    "an output without a name": asked(outputs=[{}]),
    "an unknown output": asked(outputs=[{"name": "heatmaps"}]),
    "an output twice": asked(outputs=[{"name": "maps"}, {"name": "maps"}]),
    "binary_data no flag": asked(outputs=[{"name": "maps", "parameters": {"binary_data": "yes"}}]),
    "shared memory out": asked(outputs=[{"name": "maps", "parameters": {"shared_memory_region": "x"}}]),
    "classification": asked(outputs=[{"name": "probabilities", "parameters": {"classification": 3}}]),
}  # fmt: skip


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_what_is_not_as_the_protocol_has_it_is_400(client, body):
    refused(infer(client, body), 400)
    assert client.get("/v2/health/ready").status_code == 200


NOT_ALLOWED = {
    "an unknown method": {"method": "grad-cm"},
    "a method of another kind": {"method": 3},
    "a method not offered": {"method": "rise"},
    "an unknown parameter": {"clutser": 3},
    "an unknown class": {"target": "hart"},
    "a class beyond": {"target": 8},
    "a class of another kind": {"target": 1.0},
    "a class that is a flag": {"target": True},
    "unknown classes": {"targets": "heart,hart"},
    "no classes": {"targets": ""},
    "too many classes": {"targets": ",".join(["1"] * 17)},
    "target and top": {"target": 1, "top": 2},
    "top 0": {"top": 0},
    "top as text": {"top": "two"},
    "versus itself": {"target": 6, "versus": "heart"},
    "too many clusters": {"clusters": 65},
    "no clusters": {"clusters": "none"},
    "alpha beyond": {"alpha": 1.5},
    "alpha as text": {"alpha": "0.5"},
    "an unknown colormap": {"colormap": "hot"},
    "a colormap of another kind": {"colormap": 1},
    "longest 0": {"longest": 0},
    "longest as text": {"longest": "50"},
}  # fmt: skip


@pytest.mark.parametrize("parameters", NOT_ALLOWED.values(), ids=NOT_ALLOWED)
def test_what_is_not_there_or_not_allowed_is_422(client, parameters):
    refused(infer(client, asked(parameters=parameters)), 422)


LENGTHS = {
    "more than there is": "100000",
    "negative": "-1",
    "a word": "all",
    "another script": "٣",
    "absurd": "9" * 30,
    "zero": "0",
    "within": "3",
}


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_a_header_that_does_not_fit_is_400(client, length):
    refused(infer(client, asked(), {HEADER: length.encode()}), 400)


@pytest.mark.parametrize(
    ("size", "behind"),
    [(6, b""), (6, b"12345"), (6, b"1234567"), (5, b"12345"), (0, b""), (10**30, b"123456"), (None, b"123456")],
)
def test_bytes_that_do_not_fit_are_400(client, size, behind):
    told = {} if size is None else {"data": ..., "parameters": {"binary_data_size": size}}
    head = json.dumps(pixels(**told)).encode()
    refused(infer(client, head + behind, {HEADER: str(len(head))}), 400)


@pytest.mark.parametrize(
    "elements", [b"", b"\1\0", b"\xff\xff\xff\xff", struct.pack("<I", 3) + b"ab", struct.pack("<I", 1) + b"abc"]
)
def test_elements_of_bytes_that_do_not_fit_are_400(client, elements):
    tensor = {"name": "photo", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(elements)}}
    head = json.dumps(asked(tensor)).encode()
    refused(infer(client, head + elements, {HEADER: str(len(head))}), 400)


def test_a_body_that_is_no_gzip_or_in_an_unknown_encoding_is_refused(client):
    refused(infer(client, asked(), {"Content-Encoding": "gzip"}), 400)
    refused(infer(client, asked(), {"Content-Encoding": "br"}), 415)


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize(
    "body", [b"[", b"[]", b'{"parameters": {"config": "x"}}', b'{"parameters": {"file:../x": "x"}}', b'{"parameters": []}']
)
def test_loading_and_unloading_refuse_what_they_do_not_take(client, verb, body):
    refused(client.post(f"/v2/repository/models/shapes/{verb}", content=body), 400)
    assert client.get("/v2/models/shapes/ready").status_code == 200


def test_limits_are_the_servers(shapes):
    with running(shapes, max_images=2, max_pixels=20_000, max_decoded=3 * 384 * 384, max_targets=8) as (client, _):
        two = pixels(shape=[2, 1, 1, 3])["inputs"][0]
        refused(infer(client, asked(two, parameters={"top": 2})), 422, "heatmaps of 96 x 96")
        assert outputs(infer(client, asked(two)))["heatmap"].shape == (2, 1, 96, 96)
        refused(infer(client, asked(pixels(shape=[3, 1, 1, 3], data=[0] * 9)["inputs"][0])), 400, "from 1 to 2")
        wide = pixels(shape=[1, 100, 150, 3], data=[9] * 45_000)["inputs"][0]
        refused(infer(client, asked(wide, outputs=[{"name": "overlay"}], parameters={"top": 2})), 422, "longest")
        assert (
            infer(client, asked(wide, outputs=[{"name": "overlay"}], parameters={"top": 2, "longest": 100})).status_code == 200
        )
    with running(shapes, max_pixels=384 * 384, max_decoded=3 * 384 * 384) as (client, _):
        twice = photo_in_json() | {"shape": [2], "data": [base64.b64encode(HEART).decode()] * 2}
        refused(infer(client, asked(twice)), 413, "decoded")


def test_scores_that_are_not_finite_are_an_outcome_and_no_json(client):
    x = np.full((1, 3, 96, 96), np.nan, "<f4").tobytes()
    told = {"name": "image", "shape": [1, 3, 96, 96], "datatype": "FP32", "parameters": {"binary_data_size": len(x)}}

    def answer(**more):
        head = json.dumps(asked(told, **more)).encode()
        return infer(client, head + x, {HEADER: str(len(head))})

    assert outputs(answer(outputs=[{"name": "outcomes"}]))["outcomes"] == [[3]]
    refused(answer(outputs=[{"name": "logits"}]), 422, "binary data")
    assert answer(parameters={"binary_data_output": True}).status_code == 200


def test_one_bad_photo_of_two_refuses_both_and_says_why(client):
    both = photo_in_json() | {"shape": [2], "data": [base64.b64encode(p).decode() for p in (HEART, HEART[:200])]}
    refused(infer(client, asked(both)), 400)


def test_a_model_may_be_unloaded_while_work_for_it_waits(shapes, monkeypatch):
    import camrt.server.model as module

    real, begun, going_on = module.answer, threading.Event(), threading.Event()

    def slow(*arguments):
        begun.set()
        going_on.wait(30)
        return real(*arguments)

    with running(shapes, timeout=5, delay=0) as (client, service), ThreadPoolExecutor(20) as pool:
        monkeypatch.setattr(module, "answer", slow)
        body = asked(photo_in_json(), outputs=[{"name": "outcomes"}])
        pending = [pool.submit(infer, client, body) for _ in range(20)]
        begun.wait(30)
        while service.dispatcher.waiting < 4:
            time.sleep(0.01)
        assert client.post("/v2/repository/models/shapes/unload").status_code == 200
        going_on.set()
        statuses = {one.result().status_code for one in pending}
        assert service.dispatcher.alive
        assert statuses <= {200, 503}
        assert client.post("/v2/repository/models/shapes/load").status_code == 200
        assert infer(client, body).status_code == 200

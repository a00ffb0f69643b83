"""What each library is asked by peers.py: the same explanation of one image, by the same weights, to a heatmap of H × W."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

import camrt
from camrt.image import normalise, upsample
from camrt.session import open_session
from tests.benchmarks.eager import Eager, forward, stretch, twin

ONE = "1 pass"
BATCH = 32  # torchcam's default for Score-CAM


@dataclass(frozen=True)
class Scene:
    """What is explained: one network in the forms that the libraries take, one image, one class.

    Attributes
    ----------
    model : nn.Module
    layer : str
        Module path whose output is what the bundle was cut at.
    onnx : Path
        The uncut network, with a free batch.
    explainer : camrt.Explainer
    pixels : ndarray of shape (H, W, 3), uint8
    x : ndarray of shape (1, 3, H, W), float32
        The same, preprocessed.
    target : int
    threads : int
    clusters : sequence of int
        The K of Cluster-CAM.
    """

    model: nn.Module
    layer: str
    onnx: Path
    explainer: camrt.Explainer
    pixels: np.ndarray
    x: np.ndarray
    target: int
    threads: int
    clusters: Sequence[int]

    @property
    def size(self) -> tuple[int, int]:
        """Return H and W."""
        return self.explainer.manifest.size


@dataclass(frozen=True)
class Row:
    """One call to measure.

    Attributes
    ----------
    method : str
        What is computed; rows of one method are compared.
    by : str
        Who computes it.
    call : callable
        Returns the heatmap (H, W), or the logits of a bare pass.
    engine : str
        Whose bare passes it stands on.
    floor : str
        The method of those passes; "" for a bare pass itself.
    judged : callable, optional
        Gives what must equal camrt's, where `call` makes a choice of its own; by default `call`.
    """

    method: str
    by: str
    call: Callable[[], np.ndarray]
    engine: str
    floor: str = ONE
    judged: Callable[[], np.ndarray] | None = None


def several(clusters: int) -> str:
    return f"1 + {clusters} passes"


def clustered(clusters: int) -> str:
    return f"cluster-cam, K = {clusters}"


def repeated(x: np.ndarray, masked: int) -> list[np.ndarray]:
    """Return the batches of a bare run: one image and, where some are masked, as many more."""
    return [x, *([x.repeat(masked, axis=0)] if masked else [])]


def bare(name: str, scene: Scene, run: Callable[[int], np.ndarray]) -> Iterator[Row]:
    """Return the rows of an engine's bare passes: `run` takes how many images are masked."""
    yield Row(ONE, name, partial(run, 0), name, floor="")
    for clusters in scene.clusters:
        yield Row(several(clusters), name, partial(run, clusters), name, floor="")


# --- camrt ----------------------------------------------------------------------------------------------------------------
ORT = f"ONNX Runtime {onnxruntime.__version__}"
SETTINGS: dict[str, dict[str, Any]] = {"hires-cam": {}, "grad-cam": {}, "recipro-cam": {"score": "logit"}}  # as OpenVINO XAI


def of_onnxruntime(scene: Scene) -> Iterator[Row]:
    session, _ = open_session(scene.onnx, scene.explainer.engine.sessions.choice, scene.threads)
    batches = {k: repeated(scene.x, k) for k in (0, *scene.clusters)}
    return bare(ORT, scene, lambda masked: [session.run(None, {"image": b}) for b in batches[masked]][-1][0])


def asked(scene: Scene) -> dict[str, dict[str, Any]]:
    """Return what camrt is asked, by the name of the method that is compared."""
    clusters = {clustered(k): {"method": "cluster-cam", "clusters": k, "masking": "image"} for k in scene.clusters}
    return clusters | {name: {"method": name, **settings} for name, settings in SETTINGS.items()}


def of_camrt(scene: Scene) -> Iterator[Row]:
    def explain(**how: Any) -> np.ndarray:
        return scene.explainer.explain(scene.pixels, target=scene.target, **how).network_heatmap[0]

    for name, how in asked(scene).items():
        floor = several(how["clusters"]) if "clusters" in how else ONE
        yield Row(name, f"camrt {camrt.__version__}", partial(explain, **how), ORT, floor)


def reference(scene: Scene, **how: Any) -> np.ndarray:
    """Return N(up(map)) (H, W) of camrt's signed map, without the ReLU that not every library ends with."""
    maps = scene.explainer.explain(scene.pixels, target=scene.target, **how).maps
    return upsample(normalise(maps, scene.size), scene.size)[0]


# --- PyTorch --------------------------------------------------------------------------------------------------------------
TORCH = f"eager PyTorch {torch.__version__.partition('+')[0]}"


def of_torch(scene: Scene) -> Iterator[Row]:
    model, x = twin(scene.model, trains=False), torch.from_numpy(scene.x)
    batches = {k: [torch.from_numpy(b) for b in repeated(scene.x, k)] for k in (0, *scene.clusters)}
    yield from bare(TORCH, scene, lambda masked: forward(model, *batches[masked]))
    eager = Eager(scene.model, scene.layer, scene.size)
    yield Row("hires-cam", f"{TORCH}, by hand", lambda: eager.hires_cam(x, scene.target), TORCH)
    from sklearn.cluster import KMeans

    from camrt.methods.cluster_cam import cluster_maps

    features = scene.explainer.engine.features(scene.explainer.engine.put(scene.x)).numpy()
    for clusters in scene.clusters:
        same = cluster_maps(features, clusters).labels[0]
        judged = partial(eager.cluster_cam, x, scene.target, lambda points, labels=same: labels)
        for runs in (1, 10):
            labels = KMeans(clusters, n_init=runs, random_state=0).fit_predict
            call = partial(eager.cluster_cam, x, scene.target, labels)
            yield Row(clustered(clusters), f"{TORCH}, KMeans(n_init={runs})", call, TORCH, several(clusters), judged)


def of_torchcam(scene: Scene) -> Iterator[Row]:
    import torchcam
    from torchcam.methods import GradCAM

    model, x = twin(scene.model, trains=True), torch.from_numpy(scene.x)
    extractor = GradCAM(model, scene.layer)

    def explain() -> np.ndarray:
        (found,) = extractor(scene.target, model(x))
        return stretch(found, scene.size)[0].numpy()

    yield Row("grad-cam", f"torchcam {torchcam.__version__}", explain, TORCH)


def of_grad_cam(scene: Scene) -> Iterator[Row]:
    library = import_grad_cam()
    from importlib.metadata import version

    x = torch.from_numpy(scene.x)
    wanted = [library.utils.model_targets.ClassifierOutputTarget(scene.target)]
    for name, kind in (("hires-cam", library.HiResCAM), ("grad-cam", library.GradCAM)):
        model = twin(scene.model, trains=True)
        extractor = kind(model=model, target_layers=[model.get_submodule(scene.layer)])
        call = lambda extractor=extractor: extractor(input_tensor=x, targets=wanted)[0]  # noqa: E731
        yield Row(name, f"pytorch-grad-cam {version('grad-cam')}", call, TORCH)


def import_grad_cam() -> ModuleType:
    """Return pytorch_grad_cam; where torchvision is missing, names that stand for what it imports and nothing here calls."""
    stubs = {name: ModuleType(f"torchvision{name}") for name in ("", ".transforms", ".transforms.functional")}
    for name in ("Compose", "Normalize", "ToTensor"):
        setattr(stubs[".transforms"], name, None)
    stubs[".transforms.functional"].resize = None  # type: ignore[attr-defined]
    missing = importlib.util.find_spec("torchvision") is None
    if missing:
        sys.modules.update({stub.__name__: stub for stub in stubs.values()})
    try:
        import pytorch_grad_cam
    finally:
        if missing:  # others ask whether torchvision is there
            for stub in stubs.values():
                del sys.modules[stub.__name__]
    return pytorch_grad_cam


# --- OpenVINO -------------------------------------------------------------------------------------------------------------
def of_openvino(scene: Scene) -> Iterator[Row]:
    """Return the rows of OpenVINO in its own precision, which is bfloat16 where the CPU has it, and in float32."""
    import openvino

    core = openvino.Core()
    model = core.read_model(scene.onnx)
    release = openvino.__version__.partition("-")[0]
    own = core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
    batches = {k: repeated(scene.x, k) for k in (0, *scene.clusters)}
    for precision in dict.fromkeys(("f32", own)):
        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": scene.threads}
        name = f"OpenVINO {release}, {precision}"
        compiled = core.compile_model(model, "CPU", options)
        yield from bare(name, scene, lambda k, net=compiled: [net(b) for b in batches[k]][-1][0])
        yield from _openvino_xai(scene, core, options, name)


def _openvino_xai(scene: Scene, core: Any, options: dict[str, Any], engine: str) -> Iterator[Row]:
    import openvino_xai
    from openvino_xai.explainer.explainer import ExplainMode

    logging.getLogger("openvino_xai").setLevel(logging.WARNING)
    model = core.read_model(scene.onnx)
    model.reshape([1, 3, *scene.size])  # it wants to know the sizes, and frees the batch of its copy
    cut_at = scene.explainer.manifest.layer.name
    node = next(op for op in model.get_ordered_ops() if op.get_output_size() and cut_at in op.output(0).get_names())
    explainer = openvino_xai.Explainer(
        model,
        openvino_xai.Task.CLASSIFICATION,
        explain_mode=ExplainMode.WHITEBOX,
        explain_method=openvino_xai.Method.RECIPROCAM,
        target_layer=node.get_friendly_name(),
    )
    # The library compiles with OpenVINO's defaults and takes no options: compiled once more with the precision and threads.
    explainer.method._model_compiled = core.compile_model(explainer.method.prepare_model(load_model=False), "CPU", options)

    def explain() -> np.ndarray:
        found = explainer(scene.x, targets=[scene.target], colormap=False)
        return found.saliency_map[scene.target].astype(np.float32)

    yield Row("recipro-cam", f"OpenVINO XAI, {options['INFERENCE_PRECISION_HINT']}", explain, engine)


LIBRARIES: dict[str, Callable[[Scene], Iterator[Row]]] = {
    "onnxruntime": of_onnxruntime,
    "camrt": of_camrt,
    "torch": of_torch,
    "grad-cam": of_grad_cam,
    "torchcam": of_torchcam,
    "openvino": of_openvino,
}


def score_cams(scene: Scene) -> Iterator[Row]:
    """Return the rows of Score-CAM, which runs the network once for every channel."""
    how = {"method": "score-cam", "variant": "torchcam"}
    ours = lambda: scene.explainer.explain(scene.pixels, target=scene.target, **how).network_heatmap[0]  # noqa: E731
    yield Row("score-cam", f"camrt {camrt.__version__}", ours, ORT)
    import torchcam
    from torchcam.methods import ScoreCAM

    model, x = twin(scene.model, trains=False), torch.from_numpy(scene.x)
    extractor = ScoreCAM(model, scene.layer, batch_size=BATCH)

    def explain() -> np.ndarray:
        with torch.inference_mode():
            scores = model(x)
            (found,) = extractor(scene.target, scores)
        return stretch(found, scene.size)[0].numpy()

    yield Row("score-cam", f"torchcam {torchcam.__version__}", explain, TORCH)

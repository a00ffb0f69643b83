"""Which defaults serve best: one factor of Cluster-CAM at a time, every method, on real models and photos.

    CAMRT_REAL=… python tests/benchmarks/study.py factors     one factor at a time; 40 photos, curves of 15 points
    CAMRT_REAL=… python tests/benchmarks/study.py upsampling  how heatmaps are upsampled
    CAMRT_REAL=… python tests/benchmarks/study.py finalists   the finalists and the cheap methods, all photos, the whole protocol
    CAMRT_REAL=… python tests/benchmarks/study.py slow        Score-CAM and RISE beside them, on 20 photos
    CAMRT_REAL=… python tests/benchmarks/study.py sanity      ROAD, noise, seeds and shuffled weights, on 20 photos

Results are kept in build/study as they come, and a run that was stopped goes on with them.  The class is that which the network
names (COCO: the labelled one, as its photos show several things); an object is looked for where that is its class.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

import camrt
from camrt import heatmap as heatmaps
from camrt.evaluate import Asked, Evaluation, Subject, describe, find_photos, read_variants, summarise
from camrt.evaluate.tables import text_table
from camrt.explainer import Explainer
from camrt.metrics import PROTOCOLS

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ["CAMRT_REAL"])
KEPT = ROOT / "build" / "study"
SCENES, SCENE_SEED, SCENE_SIZE = 120, 700_000_000, 384
REAL_MODELS = ("mobilenet_v2_tv", "squeezenet11_gluon", "googlenet_caffe")
CLUSTER = "cluster-cam"
FACTORS = [CLUSTER] + [
    f"{CLUSTER}:{setting}"
    for setting in (
        "merge=evidence", "merge=extremes",
        *(f"clusters={k}" for k in (4, 6, 8, 16, 24, 32, 48, 64, "auto")),
        *(f"tail_clusters={k}" for k in (10, 20, 64, 128)),
        "metric=cosine", "baseline=blur", "score=logit", "clustering=spectral", "clustering=agglomerative",
        "masking=image", "masking=image:merge=evidence", "masking=image:merge=extremes", "masking=image:score=logit",
        "masking=image:baseline=blur", "masking=image:clusters=32",
        "masking=features", "masking=features:score=logit", "masking=features:clusters=32",
    )
]  # fmt: skip
METHODS = ["group-cam", "group-cam:variant=2021-03", "hires-cam", "grad-cam", "grad-cam++", "xgrad-cam", "layer-cam", "eigen-cam",
           "eigengrad-cam", "cam", "ablation-cam", "recipro-cam"]  # fmt: skip
FINALISTS = [CLUSTER, f"{CLUSTER}:clusters=24", f"{CLUSTER}:masking=image"]


@dataclass(frozen=True)
class Part:
    """A part of the study: what is compared, on how many photos, with how many points."""

    methods: list[str]
    models: tuple[str, ...]
    photos: int
    points: int | None
    coco: bool = False
    figures: tuple[str, ...] = ("faithfulness", "localisation")


PARTS = {
    "factors": Part(FACTORS + METHODS, ("mobilenet_v2_tv", "squeezenet11_gluon", "shapes"), 40, 15),
    "upsampling": Part([CLUSTER, "grad-cam", "group-cam"], ("mobilenet_v2_tv", "squeezenet11_gluon", "shapes"), 40, 15),
    "finalists": Part(FINALISTS + METHODS, (*REAL_MODELS, "mobilenet_v2_int8_qdq", "shapes"), 1000, None, coco=True),
    "slow": Part([CLUSTER, f"{CLUSTER}:clusters=24", "grad-cam", "score-cam", "rise:masks=1000"], (*REAL_MODELS, "shapes"), 20, None),
    "sanity": Part(
        [CLUSTER, f"{CLUSTER}:masking=image", "group-cam", "grad-cam", "layer-cam", "eigen-cam", "recipro-cam"],
        ("mobilenet_v2_tv", "squeezenet11_gluon"), 20, None, figures=("road", "stability", "seeds", "randomisation"),
    ),
}


def bundle(name: str, threads: int) -> Explainer:
    """Return a model's explainer, exported once."""
    folder = ROOT / "build" / name
    if name != "shapes" and not folder.exists():
        from exporters import export

        described = REAL / "models" / f"{name}.json"
        how = {"preprocess": described} if described.exists() else {"preset": "imagenet"}
        export(REAL / "models" / f"{name}.onnx", folder, **how)  # type: ignore[arg-type]
    return camrt.load(name if name == "shapes" else folder, providers=["cpu"], threads=threads)


def scenes() -> Path:
    """Return a folder of fresh scenes of the built-in model, with pixel masks of their shapes, drawn once."""
    folder = KEPT / "scenes"
    if not folder.exists():
        sys.path.insert(0, str(ROOT / "models" / "shapes"))
        from scenes import draw

        (folder / "photos").mkdir(parents=True)
        (folder / "masks").mkdir()
        rows = ["file,class_index"]
        for i in range(SCENES):
            scene = draw(SCENE_SEED + i, SCENE_SIZE)
            cv2.imwrite(str(folder / "photos" / f"{i:03}.png"), scene.image[..., ::-1])
            cv2.imwrite(str(folder / "masks" / f"{i:03}.png"), np.where(scene.masks[0] > 0, 255, 0).astype(np.uint8))
            rows.append(f"{i:03}.png,{scene.labels[0]}")
        (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def photos(explainer: Explainer, count: int, coco: bool = False) -> list[Subject]:
    """Return at most so many photos, evenly spread, that suit a model."""
    if explainer.manifest.name == "shapes":
        folder = scenes()
        found = find_photos([folder / "photos"])
        found = describe(found, explainer.manifest, labels=folder / "labels.csv", masks=folder / "masks")
    elif coco:
        found = describe(find_photos([REAL / "photos"]), explainer.manifest, masks=REAL / "photos" / "masks.csv")
        found = [s for s in found if s.mask is not None]
    else:
        found = find_photos([REAL / "photos"])
        found = describe(found, explainer.manifest, labels=REAL / "photos/labels.csv", boxes=REAL / "photos/boxes.csv")
        found = [s for s in found if s.label is not None]
    return [found[len(found) * i // count] for i in range(count)] if count < len(found) else found


# --- upsampling -----------------------------------------------------------------------------------------------------------
def bicubic(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    planes = maps.reshape(-1, *maps.shape[-2:]).astype(np.float32)
    return np.stack([cv2.resize(p, size[::-1], interpolation=cv2.INTER_CUBIC) for p in planes]).reshape(*maps.shape[:-2], *size)


def smoothed(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return maps upsampled bilinearly, then blurred by half a cell."""
    fine = bilinear(maps, size).reshape(-1, *size)
    sigma = size[0] / maps.shape[-2] / 2
    return np.stack([cv2.GaussianBlur(p, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for p in fine]).reshape(
        *maps.shape[:-2], *size
    )


bilinear = heatmaps.upsample
UPSAMPLINGS: dict[str, Callable[[np.ndarray, tuple[int, int]], np.ndarray]] = {
    "bilinear": bilinear, "bicubic": bicubic, "smoothed": smoothed,
}  # fmt: skip


@contextmanager
def upsampled_by(name: str) -> Iterator[None]:
    """Make every heatmap by another upsampling; the masks stay bilinear."""
    heatmaps.upsample = UPSAMPLINGS[name]
    try:
        yield
    finally:
        heatmaps.upsample = bilinear


# --- the parts ------------------------------------------------------------------------------------------------------------
def show(title: str, explainer: Explainer, subjects: list[Subject], part: Part, folder: Path, target: str = "top") -> None:
    """Measure what is not there yet, and print the table."""
    asked = Asked(replace(PROTOCOLS["rise"], points=part.points), part.figures)
    evaluation = Evaluation(explainer, subjects, read_variants(part.methods), asked, target)
    summary = summarise(evaluation, evaluation.run(folder))
    right, labelled = summary.accuracy
    print(f"\n{title}: {len(summary.photos)} photos, {right} of {labelled} named rightly")
    print("\n".join(text_table(summary)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--photos", type=int, default=1000, help="at most")
    parser.add_argument("--threads", type=int, default=0, help="of one operator; 1 where a process a core runs")
    options = parser.parse_args()
    part = PARTS[options.part]
    for name in options.models or part.models:
        explainer = bundle(name, options.threads)
        subjects = photos(explainer, min(part.photos, options.photos))
        if options.part == "upsampling":
            for way in UPSAMPLINGS:
                with upsampled_by(way):
                    show(f"{name}, {way}", explainer, subjects, part, KEPT / f"upsampling-{way}" / name)
            continue
        show(name, explainer, subjects, part, KEPT / options.part / name)
        if part.coco and name != "shapes":
            show(
                f"{name}, COCO",
                explainer,
                photos(explainer, options.photos, coco=True),
                part,
                KEPT / f"{options.part}-coco" / name,
                "label",
            )


if __name__ == "__main__":
    main()

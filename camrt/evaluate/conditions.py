"""Under which conditions the figures were found: everything that somebody needs who wants to find them again."""

from __future__ import annotations

from collections.abc import Iterable

from camrt.evaluate import cascade, measures, variant
from camrt.evaluate.summary import Summary
from camrt.markup import Html, definitions, joined, several, tag
from camrt.metrics import interval
from camrt.metrics.road import PERCENTILES

CONTROL_MAPS = {
    "random map": f"{variant.CELLS} × {variant.CELLS} uniform random numbers, upsampled; the same for the same pixels",
    "centre map": f"a Gaussian spot in the centre, σ {variant.SPREAD:g} of the shorter side",
}
RANGE = "of the range of pixel values"
SCORES = {"logits": "softmax of the scores", "probabilities": "softmax of the scores", "sigmoid": "sigmoid of the score"}
MEANING = (
    "Faithfulness (insertion, deletion, average drop, increase, ADCC, ROAD) asks the network itself: does its p "
    "follow the pixels that the heatmap calls important? It does so on images that no camera took (blurred, masked, "
    "imputed), to which the network may react for other reasons. Look for methods that are good in several of these "
    "figures.",
    "Localisation (pointing game, energy) asks whether the heatmap lies on the object that people marked. A network "
    "that looks at the background is then blamed on the method: a faithful heatmap may score low.",
    "Stability and agreement of seeds say how far a heatmap changes where nothing of importance did. Randomised "
    "weights are a check of sanity: a heatmap that stays alike when the network forgets what it learned does not show "
    "what it learned.",
    "A heatmap that could not be made counts as zeros, with all that follows for the means: no photo is left out in "
    "favour of a method. Its pixels are then all alike, and appear and vanish row by row.",
    "The controls look at nothing: what a method has over them is what it gains by looking. Their coherency, and the "
    "stability of the centre map, are 1 because nothing can change them, and say nothing in their favour.",
    "An average says what to expect on photos like these. Photos of another kind need an evaluation of their own.",
)


def meaning() -> list[Html]:
    """Return what the figures can tell, and what they cannot."""
    return [tag("p", text) for text in MEANING]


def conditions(summary: Summary) -> Html:
    """Return protocol, parameters, versions and hashes."""
    return joined(
        tag("h3", "Model"), definitions(_model(summary)), tag("h3", "Protocol"), definitions(_protocol(summary)),
        tag("h3", "Methods"), _methods(summary), tag("h3", "Software"), definitions(_software(summary)),
    )  # fmt: skip


def _model(summary: Summary) -> Iterable[tuple[str, object]]:
    explainer = summary.evaluation.explainer
    manifest = explainer.manifest
    module = f", module {manifest.layer.module}" if manifest.layer.module else ""
    return [
        ("bundle", manifest.name),
        ("SHA-256 of its bundle.json", tag("code", explainer.engine.bundle.sha256)),
        ("made from", manifest.source.file),
        ("SHA-256 of that", tag("code", manifest.source.sha256)),
        ("layer", f"{manifest.layer.name} ({manifest.layer.operator}{module}): {manifest.layer.reason}"),
        ("input", f"{manifest.size[0]} × {manifest.size[1]}"),
        ("features", " × ".join(map(str, manifest.features.shape[1:]))),
        ("classes", manifest.classes),
        ("p", SCORES.get(manifest.kind, "the network's output itself")),
    ]  # fmt: skip


def _protocol(summary: Summary) -> Iterable[tuple[str, object]]:
    evaluation = summary.evaluation
    groups, percent = evaluation.asked.groups, ", ".join(map(str, PERCENTILES))
    told = {
        "faithfulness": ("insertion and deletion", _curves(summary)),
        "localisation": ("pointing game", f"{several(evaluation.asked.tolerance, 'pixel')} around the object count as it"),
        "road": ("ROAD", f"{percent} % of the pixels imputed, with noise of σ {measures.ROAD_NOISE:g} {RANGE}"),
        "stability": ("stability", f"{measures.NOISES} copies with noise of σ {measures.NOISE:g} {RANGE}"),
        "seeds": ("agreement of seeds", f"{measures.SEEDS} seeds, the method's own the first of them"),
        "randomisation": ("randomised weights", _cascade()),
    }
    return [
        ("explained class", "the one that the network names" if evaluation.target == "top" else "the photo's label"),
        ("groups of figures", ", ".join(groups)),
        *(entry for group, entry in told.items() if group in groups),
        ("intervals", _intervals()),
        *((name, CONTROL_MAPS.get(name)) for name in (v.name for v in evaluation.variants if v.method is None)),
    ]


def _curves(summary: Summary) -> str:
    protocol, (height, width) = summary.evaluation.asked.protocol, summary.evaluation.explainer.manifest.size
    step = "" if protocol.points else f", {protocol.pixels_a_step} · H = {protocol.pixels_a_step * height} pixels a step"
    points = several(len(protocol.counts(height, width)), "point")
    blur = f"a {protocol.blur_kernel} × {protocol.blur_kernel} Gaussian of σ {protocol.blur_sigma:g}"
    return (
        f"protocol {protocol.name}, {points}{step}; insertion starts from the image blurred with {blur}; deletion sets "
        "pixels to 0, the mean colour"
    )


def _cascade() -> str:
    photos = several(cascade.RANDOMISED_PHOTOS, "photo")
    return f"shuffled in {cascade.STAGES} stages, from those of the last layers to all of them; on the first {photos}"


def _intervals() -> str:
    level, count = f"{interval.LEVEL * 100:g} %", interval.RESAMPLES
    return f"percentile bootstrap over photos, {level}, {count} resamples; differences are paired by photo"


def _methods(summary: Summary) -> Html:
    return definitions((v.name, _method(v)) for v in summary.evaluation.variants if v.method is not None)


def _method(given: variant.Variant) -> Html:
    assert given.method is not None
    settings = ", ".join(f"{name} = {value}" for name, value in given.settings.items()) or "no parameters"
    return joined(tag("code", settings), tag("br"), given.method.citation)


def _software(summary: Summary) -> Iterable[tuple[str, object]]:
    return summary.versions.items()

"""What there is: models and methods, as the plain face lists them."""

from __future__ import annotations

from camrt.methods import GRADIENTS, METHODS
from camrt.server.errors import Refusal
from camrt.server.model import Model
from camrt.server.options import Options
from camrt.server.v1.schema import Limits, MethodAnswer, ModelAnswer


def model_answer(model: Model, options: Options) -> ModelAnswer:
    """Return what is told of a model."""
    limits = Limits(
        targets=options.max_targets, clusters=options.max_clusters, pixels=options.max_pixels, body=options.max_body
    )
    try:
        explainer = model.take().explainer
    except Refusal:
        return ModelAnswer(name=model.name, state=model.state, limits=limits)
    manifest = explainer.manifest
    can = [n for n in options.methods if manifest.gradient_missing is None or GRADIENTS not in METHODS[n].needs]
    return ModelAnswer(
        name=model.name, state=model.state, classes=manifest.classes, labels=list(manifest.labels),
        input=list(manifest.image.shape[1:]), layer=manifest.layer.name, methods=can, provider=explainer.engine.provider,
        sha256=explainer.engine.bundle.sha256, limits=limits,
    )  # fmt: skip


def method_answer(name: str) -> MethodAnswer:
    """Return what is told of a method."""
    method = METHODS[name]
    parameters = {
        key: {"default": p.default, "allowed": p.allowed, "choices": list(p.choices), "help": p.help}
        for key, p in method.parameters.items()
    }
    return MethodAnswer.model_validate(
        {
            "name": name,
            "passes": method.passes,
            "citation": method.citation,
            "needs": list(method.needs),
            "parameters": parameters,
        }
    )

"""What the plain face answers, as OpenAPI describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """Why there is no answer."""

    error: str = Field(examples=["shapes has no class 'hart'. Did you mean 'heart'?"])


class Class(BaseModel):
    """A class of the network; `probability` is null where the network gave no finite scores."""

    index: int = Field(examples=[6])
    label: str = Field(examples=["heart"])
    probability: float | None = Field(examples=[0.98])


class Other(BaseModel):
    """The class against which another is explained."""

    index: int
    label: str


class Explained(Class):
    """A class that was explained; `picture` is a PNG in base64, as `image` asked for."""

    outcome: str = Field(description="ok, flat_map, no_positive_evidence or not_finite", examples=["ok"])
    versus: Other | None = None
    picture: str | None = Field(None, examples=["iVBORw0KGgo…"])


class BundleName(BaseModel):
    """Which bundle answered, and the SHA-256 of its bundle.json."""

    name: str = Field(examples=["shapes"])
    sha256: str


class Window(BaseModel):
    """Where the network's input lies on the photo, which is resized first."""

    resized: list[int] = Field(description="Height and width of the resized photo")
    top: int = Field(description="Where the input begins on it; negative where the photo is padded")
    left: int
    network: list[int] = Field(description="Height and width of the input")


class Answer(BaseModel):
    """What the network names, and where it looked."""

    model: str = Field(examples=["shapes"])
    photo: str | None = Field(
        None, description="The photo's name in further questions, `?photo=`, while the server remembers it", examples=["x9Q…"]
    )
    width: int
    height: int
    prediction: list[Class] = Field(description="The five most probable classes")
    targets: list[Explained]
    notes: list[str] = Field(description="fewer_clusters, empty_cluster_reseeded, chunk_halved, provider_fallback")
    method: str = Field(examples=["cluster-cam"])
    parameters: dict[str, bool | int | float | str]
    passes: int = Field(description="Forward passes of the network that the image took", examples=[11])
    tail_passes: int
    backward_passes: int
    milliseconds: dict[str, float] = Field(
        examples=[{"decode": 2.1, "queue": 0.3, "forward": 1.5, "masked": 9.2, "total": 14.0}]
    )
    provider: str = Field(examples=["cpu"])
    versions: dict[str, str]
    bundle: BundleName
    geometry: Window


class Limits(BaseModel):
    """What a request may ask for at once."""

    targets: int = Field(examples=[16])
    clusters: int = Field(examples=[64])
    pixels: int = Field(description="Of a photo, and of all pictures of one answer", examples=[25_000_000])
    body: int = Field(description="Bytes", examples=[16_777_216])


class ModelAnswer(BaseModel):
    """A model of this server."""

    name: str
    state: str = Field(description="ready, loading, failing or unloaded")
    classes: int | None = None
    labels: list[str] = []
    input: list[int] = Field(default=[], description="Channels, height and width of the network's input")
    layer: str | None = None
    methods: list[str] = Field(default=[], description="Those that can be asked of it here")
    provider: str | None = None
    sha256: str | None = None
    limits: Limits


class ParameterAnswer(BaseModel):
    """A parameter of a method."""

    default: bool | int | float | str
    allowed: str = Field(examples=["a whole number from 1 to 4096 or auto"])
    choices: list[str]
    help: str


class MethodAnswer(BaseModel):
    """A method that this server offers."""

    name: str
    passes: str = Field(description="What an image costs")
    citation: str
    needs: list[str]
    parameters: dict[str, ParameterAnswer]


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The photo or the request cannot be read", 401: "A token is needed", 403: "Asked in another site's name",
        404: "There is no such model, sample or kept photo", 406: "None of the media types can be had",
        408: "The body came too slowly", 413: "The body is too large", 415: "The Content-Encoding is unknown",
        422: "What is asked is not there, or not allowed", 429: "Too many requests of this client are under way",
        500: "The server failed", 503: "Too much is under way, or the model cannot answer now", 504: "It took too long",
    }.items()
}  # fmt: skip
PHOTO = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "requestBody": {
        "description": "The photo: JPEG, PNG, WebP, BMP, GIF or TIFF; none with `photo` or `sample`",
        "required": False,
        "content": {
            "image/*": PHOTO,
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"photo": PHOTO["schema"]}, "required": ["photo"]}
            },
        },
    }
}

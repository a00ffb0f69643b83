"""Make the small ONNX files that Keras and TFLite users really have, with what their makers' own runtimes answer.

    python3.11 -m venv makers
    makers/bin/pip install tensorflow-cpu==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 numpy==2.4.6
    makers/bin/python make_fixtures.py FOLDER

Each NAME.onnx is written by the converter as it is called every day, on networks of a few blocks with seeded weights.
Beside it lies NAME.npz with

- `images`, three inputs as the file wants them;
- `outputs`, the answers of Keras or of the TFLite interpreter, which never saw the ONNX file;
- `features` (N, C, h, w), what Keras' layer before the closing pooling says, channels first; for tflite_int8 the floats.

| file | made by | input, H W = 16 20 | what is in it |
| --- | --- | --- | --- |
| keras_residual | Keras' own `model.export` | N H W 3 float32, 0…255 | Rescaling, normalisation, a residual Add, softmax |
| keras_flatten | tf2onnx, `--saved-model` | N H W 3 float32, 0…1 | Flatten of rows, columns, channels; Dense, softmax |
| keras_flatten_nchw | and `--inputs-as-nchw` | N 3 H W float32, 0…1 | the same network; channels still last inside |
| keras_binary | tf2onnx, `--saved-model` | N H W 3 uint8, 0…255 | a Cast, Rescaling, one sigmoid |
| tflite_int8 | tf2onnx, `--tflite` | N H W 3 uint8, 0…255 | int8, one scale a channel; softmax in uint8 |
| tflite_excite | tf2onnx, `--tflite` | N H W 3 float32, -1…1 | depthwise, squeeze and excitation, hard swish |
| tflite_late | tf2onnx, `--tflite` | N H W 3 float32, -1…1 | convolutions and hard swish behind the global pooling |

The seeds fix weights and images; `outputs` may differ in the last digits on other machines.  ONNX Runtime's answers to
tflite_int8 lie up to 8 of 255 from the interpreter's, which rounds every sum to int8 by integer arithmetic.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import onnx
import tensorflow as tf
from keras import Model, Sequential, layers

SIZE = (16, 20)  # unequal, and no map has as many channels as rows or columns: no confusion of axes goes unseen
CLASSES = 5
IMAGES = 3
CALIBRATION = 32
OPSET = 15
SPREAD = 2.0
LAST_MAP = "last_map"  # the layer at which a heatmap belongs


# --- networks ---------------------------------------------------------------------------------------------------------
def residual() -> Model:
    """Pixels of 0…255 in, Rescaling inside; two blocks with normalisation, the second with a skip."""
    image = layers.Input((*SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False)(x)
    x = skip = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU(name=LAST_MAP)(layers.Add()([layers.BatchNormalization()(x), skip]))
    x = layers.GlobalAveragePooling2D()(x)
    return Model(image, layers.Dense(CLASSES, activation="softmax")(x))


def flatten() -> Model:
    """The network of every tutorial."""
    return Sequential(
        [
            layers.Input((*SIZE, 3)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(9, 3, activation="relu", name=LAST_MAP),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def binary() -> Model:
    """Cat or dog: one score."""
    return Sequential(
        [
            layers.Input((*SIZE, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(6, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(9, 3, padding="same", activation="relu", name=LAST_MAP),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def excite() -> Model:
    """Two depthwise separable blocks, the second weighted by squeeze and excitation, as in MobileNetV3."""
    image = layers.Input((*SIZE, 3))
    x = layers.Conv2D(12, 3, strides=2, padding="same", activation="hard_swish")(image)
    for excited, name in ((False, None), (True, LAST_MAP)):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        if excited:
            squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
            squeezed = layers.Conv2D(4, 1, activation="relu")(squeezed)
            x = layers.Multiply()([x, layers.Conv2D(12, 1, activation="hard_sigmoid")(squeezed)])
        x = layers.Conv2D(12, 1, activation="hard_swish", name=name)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(image, layers.Dense(CLASSES, activation="softmax")(x))


def late() -> Model:
    """Layers between global pooling and scores, on maps of one cell that keep their four axes, as in MobileNetV3."""
    image = layers.Input((*SIZE, 3))
    x = layers.Conv2D(7, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Conv2D(12, 3, padding="same", activation="hard_swish", name=LAST_MAP)(x)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(14, 1, activation="hard_swish")(x)
    x = layers.Flatten()(layers.Conv2D(CLASSES, 1)(x))
    return Model(image, layers.Softmax()(x))


def seeded(network: Model, seed: int) -> Model:
    """Give a network He-scaled kernels, and norms and biases that are not neutral."""
    rng = np.random.default_rng(seed)
    draws: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
        "gamma": lambda shape: rng.uniform(0.7, 1.3, shape),
        "beta": lambda shape: rng.normal(0, 0.1, shape),
        "moving_mean": lambda shape: rng.normal(0, 0.1, shape),
        "moving_variance": lambda shape: rng.uniform(0.7, 1.3, shape),
        "bias": lambda shape: rng.normal(0, 0.1, shape),
    }
    for layer in network.layers:
        per_channel = isinstance(layer, layers.DepthwiseConv2D)
        for variable in layer.weights:
            if variable.name in draws:
                variable.assign(draws[variable.name](variable.shape))
            elif variable.name == "kernel":
                fan_in = np.prod(variable.shape[:2] if per_channel else variable.shape[:-1])
                variable.assign(rng.normal(0, np.sqrt(2 / fan_in), variable.shape))
    return network


def spread(network: Model, images: np.ndarray) -> Model:
    """Move and stretch the last layer with weights, so that its scores lie around 0 and differ between images."""
    last = [layer for layer in network.layers if hasattr(layer, "kernel")][-1]
    taken = np.asarray(Model(network.inputs, last.input)(images))
    scores = (taken @ np.asarray(last.kernel)).reshape(len(images), -1)
    stretch = SPREAD / scores.std(axis=0)
    last.kernel.assign(last.kernel * stretch)
    last.bias.assign(-scores.mean(axis=0) * stretch)
    return network


# --- inputs -----------------------------------------------------------------------------------------------------------
def pixels(count: int, seed: int) -> np.ndarray:
    """Return images (N, H, W, 3) uint8: noise, each with a bright patch of its own colour somewhere."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 160, (count, *SIZE, 3), np.uint8)
    for image in images:
        top, left = rng.integers(0, np.array(SIZE) - 6)
        image[top : top + 6, left : left + 6] = rng.integers(100, 256, 3)
    return images


def unit(images: np.ndarray) -> np.ndarray:
    """0…255 → 0…1."""
    return (images / 255).astype(np.float32)


def signed(images: np.ndarray) -> np.ndarray:
    """0…255 → -1…1."""
    return (images / 127.5 - 1).astype(np.float32)


# --- the makers' tools ------------------------------------------------------------------------------------------------
def tf2onnx(*arguments: str | Path) -> None:
    """Run the converter's command line."""
    command = [sys.executable, "-m", "tf2onnx.convert", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")


def saved_model(network: Model, folder: Path, dtype: type = np.float32) -> Path:
    """Write a network as TensorFlow serves it; a uint8 input is cast inside."""
    signature = [tf.TensorSpec((None, *SIZE, 3), dtype, name="image")]
    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint("serve", lambda image: network(tf.cast(image, tf.float32), training=False), input_signature=signature)
    archive.write_out(folder, verbose=False)
    return folder


def tflite(network: Model, path: Path, calibration: np.ndarray | None = None) -> Path:
    """Write a .tflite file; with calibration images int8, taking and giving uint8."""
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: samples(calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    path.write_bytes(converter.convert())
    return path


def samples(images: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Give images one by one, as the calibration takes them."""
    for image in images:
        yield [image[None]]


def interpret(path: Path, images: np.ndarray) -> np.ndarray:
    """Return what the TFLite interpreter answers, image by image."""
    # the plain kernels: the optimised ones round some sums differently
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tf.lite.Interpreter(str(path), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in images:
        interpreter.set_tensor(taken["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(given["index"])[0])
    return np.stack(outputs)


# --- fixtures ---------------------------------------------------------------------------------------------------------
def last_map(network: Model, images: np.ndarray) -> np.ndarray:
    """Return what the layer before the closing pooling answers, (N, C, h, w)."""
    answers = Model(network.inputs, network.get_layer(LAST_MAP).output).predict(images, verbose=0)
    return np.asarray(answers).transpose(0, 3, 1, 2)


def keep(target: Path, name: str, images: np.ndarray, outputs: np.ndarray, features: np.ndarray) -> None:
    """Write the inputs and the answers, forget where the model lay, and say how far the answers lie apart."""
    model = onnx.load(target / f"{name}.onnx")
    model.graph.doc_string = ""
    onnx.save(model, target / f"{name}.onnx")
    np.savez_compressed(target / f"{name}.npz", images=images, outputs=outputs, features=features)
    size = (target / f"{name}.onnx").stat().st_size
    print(f"{name}: {size} bytes, features {features.shape}, outputs\n{np.array2string(outputs, precision=3)}")


def make(target: Path, work: Path) -> None:
    """Write all fixtures into `target`."""
    raw = pixels(IMAGES, seed=1)
    images = raw.astype(np.float32)

    network = spread(seeded(residual(), seed=1), images)
    answers, features = network.predict(images, verbose=0), last_map(network, images)  # first: Keras exports what was called
    network.export(target / "keras_residual.onnx", format="onnx", opset_version=OPSET, verbose=False)
    keep(target, "keras_residual", images, answers, features)

    network = spread(seeded(flatten(), seed=2), unit(raw))
    answers, features = network.predict(unit(raw), verbose=0), last_map(network, unit(raw))
    folder = saved_model(network, work / "flatten")
    convert = ("--saved-model", folder, "--opset", OPSET, "--output")
    tf2onnx(*convert, target / "keras_flatten.onnx")
    keep(target, "keras_flatten", unit(raw), answers, features)
    tf2onnx(*convert, target / "keras_flatten_nchw.onnx", "--inputs-as-nchw", "image")
    keep(target, "keras_flatten_nchw", unit(raw).transpose(0, 3, 1, 2), answers, features)

    network = spread(seeded(binary(), seed=3), images)
    folder = saved_model(network, work / "binary", np.uint8)
    tf2onnx("--saved-model", folder, "--opset", OPSET, "--output", target / "keras_binary.onnx")
    keep(target, "keras_binary", raw, network.predict(images, verbose=0), last_map(network, images))

    network = spread(seeded(residual(), seed=4), images)
    file = tflite(network, work / "int8.tflite", pixels(CALIBRATION, seed=2).astype(np.float32))
    tf2onnx("--tflite", file, "--opset", OPSET, "--output", target / "tflite_int8.onnx")
    keep(target, "tflite_int8", raw, interpret(file, raw), last_map(network, images))

    for name, build, seed in (("tflite_excite", excite, 5), ("tflite_late", late, 6)):
        network = spread(seeded(build(), seed), signed(raw))
        file = tflite(network, work / f"{name}.tflite")
        tf2onnx("--tflite", file, "--opset", OPSET, "--output", target / f"{name}.onnx")
        keep(target, name, signed(raw), interpret(file, signed(raw)), last_map(network, signed(raw)))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        make(target, Path(work))

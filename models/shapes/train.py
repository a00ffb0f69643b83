"""Train the default bundle's network on generated scenes and write its weights.

    python models/shapes/train.py --weights build/shapes.safetensors

Two thirds of the training scenes hold one named shape, one third hold two; the target of those is half of each class.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from network import CLASSES, ShapeNet
from safetensors.torch import save_file
from scenes import draw
from torch.nn import functional

SIZE = 96
TRAIN_SEED, TEST_SEED = 0, 500_000_000
ONE_OF_THREE = 3


def sample(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the network-sized image (96, 96, 3) uint8 and its target distribution (8,) float32."""
    scene = draw(seed, 2 * SIZE, classes=2 if seed % ONE_OF_THREE == 0 else 1)
    target = np.zeros(CLASSES, np.float32)
    target[list(scene.labels)] = 1 / len(scene.labels)
    return cv2.resize(scene.image, (SIZE, SIZE), interpolation=cv2.INTER_AREA), target


def dataset(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    with ProcessPoolExecutor() as pool:
        images, targets = zip(*pool.map(sample, range(first, first + count), chunksize=256), strict=True)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(targets))


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 → float32 in [-1, 1], the bundle's preprocessing."""
    return (images.float() / 255 - 0.5) / 0.5


def jitter(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip and turn by right angles: eightfold symmetry of every class."""
    horizontally, vertically, transposed = torch.rand(3, generator=generator) < 0.5
    if horizontally:
        images = images.flip(3)
    if vertically:
        images = images.flip(2)
    if transposed:
        images = images.transpose(2, 3)
    return images


def accuracy(network: ShapeNet, images: torch.Tensor, targets: torch.Tensor) -> float:
    """Share of scenes with one named shape on which the top class is that shape."""
    network.eval()
    single = targets.max(dim=1).values == 1
    with torch.no_grad():
        predicted = torch.cat([network(normalise(batch)).argmax(dim=1) for batch in images[single].split(500)])
    return (predicted == targets[single].argmax(dim=1)).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    started = time.time()
    images, targets = dataset(TRAIN_SEED, options.scenes)
    test_images, test_targets = dataset(TEST_SEED, 3000)
    print(f"{options.scenes} scenes drawn in {time.time() - started:.0f} s", flush=True)

    network = ShapeNet()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    steps = options.epochs * (options.scenes // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(options.epochs):
        network.train()
        losses = []
        for chosen in torch.randperm(options.scenes, generator=generator).split(options.batch)[
            : options.scenes // options.batch
        ]:
            logits = network(jitter(normalise(images[chosen]), generator))
            loss = functional.cross_entropy(logits, targets[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        score = accuracy(network, test_images, test_targets)
        print(
            f"epoch {epoch + 1:2d}  loss {np.mean(losses):.4f}  test accuracy {score:.4f}  {time.time() - started:.0f} s",
            flush=True,
        )
    options.weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), options.weights)


if __name__ == "__main__":
    main()

"""How good heatmaps are, measured: plain functions of arrays and of a `score`, (n, C, H, W) → (n,)."""

from camrt.metrics.adcc import adcc, coherency, complexity
from camrt.metrics.correlation import agreement, rank_correlation
from camrt.metrics.curve import PROTOCOLS, Curve, Protocol, deletion, insertion
from camrt.metrics.drop import average_drop, increase, masked
from camrt.metrics.interval import Interval, bootstrap, paired
from camrt.metrics.pointing import box_region, energy_pointing_game, pointing_game
from camrt.metrics.randomisation import depths, randomised
from camrt.metrics.road import impute, road

__all__ = [
    "PROTOCOLS",
    "Curve",
    "Interval",
    "Protocol",
    "adcc",
    "agreement",
    "average_drop",
    "bootstrap",
    "box_region",
    "coherency",
    "complexity",
    "deletion",
    "depths",
    "energy_pointing_game",
    "impute",
    "increase",
    "insertion",
    "masked",
    "paired",
    "pointing_game",
    "randomised",
    "rank_correlation",
    "road",
]

"""What /metrics tells, in Prometheus' words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from camrt.explanation import Explanation

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Counters:
    """The counters of one server; memory and processor time of the process are among them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

        own: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter("camrt_requests", "Requests answered.", ("route", "status"), **own)
        self.seconds = Histogram(
            "camrt_request_seconds", "From the first byte to the last.", ("route",), buckets=SECONDS, **own
        )
        self.stages = Histogram(
            "camrt_stage_seconds", "What each stage of an explanation took.", ("model", "stage"), buckets=SECONDS, **own
        )
        self.images = Counter("camrt_images", "Heatmaps by outcome.", ("model", "method", "outcome"), **own)
        self.group = Histogram(
            "camrt_batch_images", "Images that shared a batch, of one request or of several.", buckets=range(1, 9), **own
        )
        self.under_way = Gauge("camrt_requests_under_way", "Requests that are being answered.", **own)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Tell a value that is read when it is asked for."""
        Gauge(f"camrt_{name}", text, registry=self._registry).set_function(read)

    def explained(self, model: str, explanation: Explanation, after: Mapping[str, float]) -> None:
        """Count an explanation, and what was done with it after, in milliseconds."""
        for stage, ms in {**explanation.run.timings, **after}.items():
            self.stages.labels(model, stage).observe(ms / 1e3)
        for target in explanation.targets:
            self.images.labels(model, explanation.run.method, target.outcome.word).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

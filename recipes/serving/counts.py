"""What the service counts, for Prometheus. Needs prometheus-client."""

import sys
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from data_prep.labels import LABELS

LATENCIES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds
BATCHES = (1, 2, 4, 8, 16, 32, 64)  # frames


class Counts:
    """Counts since the start: answers by label, errors by status, who hung up, what batches there were."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "safe_unsafe_answers", "Frames answered, by answer.", ["answer"], registry=self.registry
        )
        self._errors = Counter(
            "safe_unsafe_errors",
            "Requests and frames without an answer, by status.",
            ["status"],
            registry=self.registry,
        )
        self._gone = Counter(
            "safe_unsafe_gone", "Requests whose caller hung up before the answer.", registry=self.registry
        )
        self._latency = Histogram(
            "safe_unsafe_latency_seconds",
            "From a request's last byte to a frame's answer.",
            buckets=LATENCIES,
            registry=self.registry,
        )
        self._frames = Histogram(
            "safe_unsafe_batch_frames", "Frames answered at once.", buckets=BATCHES, registry=self.registry
        )
        self._seconds = Histogram(
            "safe_unsafe_batch_seconds", "The model's time for a batch.", buckets=LATENCIES, registry=self.registry
        )
        self._waiting = Gauge("safe_unsafe_waiting", "Frames that wait.", registry=self.registry)
        for label in LABELS:
            self._answers.labels(label)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Have the metrics say what `waiting` returns whenever they are asked for."""
        self._waiting.set_function(waiting)

    def answered(self, label: str, seconds: float) -> None:
        """Count an answer that took so long."""
        self._answers.labels(label).inc()
        self._latency.observe(seconds)

    def refused(self, status: int) -> None:
        """Count a request, or a frame, that got no answer, and say so in a line that holds nothing of it."""
        self._errors.labels(str(status)).inc()
        print(f"refused: {status} {HTTPStatus(status).phrase}", file=sys.stderr, flush=True)

    def gone(self) -> None:
        """Count a caller that hung up."""
        self._gone.inc()

    def batch(self, frames: int, seconds: float) -> None:
        """Count a batch."""
        self._frames.observe(frames)
        self._seconds.observe(seconds)

    def in_words(self) -> str:
        """Return in a line how many frames were answered, how many got none, and who hung up."""
        values = {
            name: sum(sample.value for metric in collected.collect() for sample in metric.samples)
            for name, collected in (("answered", self._answers), ("refused", self._errors), ("hung up", self._gone))
        }
        return ", ".join(f"{value:.0f} {name}" for name, value in values.items())

    def as_text(self) -> bytes:
        """Return all counts in Prometheus's text format."""
        return generate_latest(self.registry)

"""What the service counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class ServiceMetrics:
    """
    Args:
        queue_length (`Callable[[], int]`): Pictures accepted and not yet scored.
    """

    def __init__(self, queue_length: Callable[[], int]):
        registry = self._registry = CollectorRegistry()  # its own: a process may hold several services
        ProcessCollector(registry=registry)  # memory, processor time, open files
        self.requests = Counter(
            "roc4mllm_requests", "Requests answered; 499: the client left", ["path", "status"], registry=registry
        )
        self.pictures = Counter("roc4mllm_pictures", "Pictures answered", ["outcome"], registry=registry)
        for outcome in ("scored", "failed"):
            self.pictures.labels(outcome)
        self.batch_size = Histogram(
            "roc4mllm_batch_size", "Pictures per forward pass", buckets=SIZES, registry=registry
        )
        self.seconds = Histogram(
            "roc4mllm_request_seconds", "From headers to answer", ["path"], buckets=SECONDS, registry=registry
        )
        Gauge("roc4mllm_queue_length", "Pictures accepted and not yet scored", registry=registry).set_function(
            queue_length
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count one request."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def scored(self, records: list[dict[str, object]]) -> int:
        """Count the pictures of one answer; how many of them failed."""
        failed = sum(record["error"] is not None for record in records)
        self.pictures.labels("failed").inc(failed)
        self.pictures.labels("scored").inc(len(records) - failed)
        return failed

    def text(self) -> bytes:
        """All of it in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)


__all__ = ["CONTENT_TYPE", "ServiceMetrics"]

"""What one client may ask of the service, and what all of them together may hold."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ServiceLimits:
    """
    Args:
        max_batch (`int`, *optional*, defaults to 8): Pictures per forward pass.
        queue_size (`int`, *optional*, defaults to 256): Pictures accepted and not yet scored; 429 beyond it.
        max_bytes (`int`, *optional*, defaults to 64 MiB): Of one request's body, or of all that its URLs lead to.
        max_pixels (`int`, *optional*, defaults to 50 million): Of one picture; decoded, each takes 3 bytes or more.
        max_files (`int`, *optional*, defaults to 32): Pictures of one request.
        timeout (`float`, *optional*, defaults to 30): Seconds that a request's body may take to arrive (408), and as
            many again until its pictures are scored (504).

    Raises:
        ValueError: If a limit is below 1, the timeout not above 0, or a request within `max_files` could never enter
            the queue.
    """

    max_batch: int = 8
    queue_size: int = 256
    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_files: int = 32
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == "timeout" and not 0 < value < math.inf:
                raise ValueError(f"timeout must be a number of seconds above 0, got {value}")
            if name != "timeout" and not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.max_files > self.queue_size:
            raise ValueError(
                f"a request of {self.max_files} files could never enter a queue of {self.queue_size} pictures; lower "
                "--max-files or raise --queue-size"
            )

    @property
    def held_bytes(self) -> int:
        """Of the bodies of all requests together; 429 beyond it."""
        return 16 * self.max_bytes


__all__ = ["ServiceLimits"]

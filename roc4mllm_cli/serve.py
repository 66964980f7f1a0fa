"""`roc4mllm serve`: scores over HTTP."""

from .arguments import (
    HIGHEST_PORT,
    PATIENT_THREADS,
    Commands,
    add_running_options,
    add_serving_options,
    at_least,
    number,
)


def add_command(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="score pictures over HTTP",
        description="Start an HTTP service: POST /score with files, GET /model, /health, /ready, /metrics, and /docs "
        "for all of it. Pictures of many clients are scored together. A line of JSON per request goes to stderr. "
        "SIGTERM and Ctrl-C end it once what it accepted is answered.",
        allow_abbrev=False,
    )
    add_serving_options(parser)
    parser.add_argument(
        "--port", type=at_least(0, HIGHEST_PORT), default=8000, help="0 takes a free one (default: 8000)"
    )
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument("--api-key-env", metavar="NAME", help="ask clients for the key in this environment variable")
    keys.add_argument(
        "--api-key-file", metavar="FILE", help="ask clients for one of the keys in this file, one a line"
    )
    parser.add_argument("--allow-urls", action="store_true", help="also fetch pictures from public addresses")
    for name, default, text in LIMITS:
        option = "--" + name.replace("_", "-")
        help_text = f"{text} (default: {default})"
        parser.add_argument(option, type=at_least(1), default=default, metavar="N", help=help_text)
    parser.add_argument(
        "--timeout",
        type=number,
        default=30.0,
        metavar="SECONDS",
        help="for a request to arrive, and again for its scores (default: 30)",
    )
    add_running_options(parser)
    parser.set_defaults(environment=PATIENT_THREADS)


LIMITS = (
    ("max_batch", 8, "pictures at once"),
    ("queue_size", 256, "pictures accepted and not yet scored; beyond it clients are told to come back"),
    ("max_bytes", 64 * 1024 * 1024, "size of a request"),
    ("max_pixels", 50_000_000, "size of a picture"),
    ("max_files", 32, "pictures of a request"),
)

"""`roc4mllm serve`: the HTTP service in this process."""

import argparse
import ipaddress
import os
from dataclasses import fields
from pathlib import Path

from ..inference.service.limits import ServiceLimits
from .loading import load


def run(args: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    try:
        import python_multipart  # noqa: F401 (starlette would miss it only when a form comes)

        from ..inference.service.app import create_app
        from ..inference.service.logs import log_as_json_lines, logger
        from ..inference.service.server import listen, server_of
    except ModuleNotFoundError as error:
        raise ImportError(f"the service needs {error.name}: pip install 'roc4mllm[serve]'") from error
    # What is wrong with the arguments is said before a model is loaded.
    limits = ServiceLimits(**{field.name: getattr(args, field.name) for field in fields(ServiceLimits)})
    keys = read_keys(args)
    with listen(args.host, args.port) as listener:
        app = create_app(load(args), limits, keys, args.allow_urls)
        log_as_json_lines()
        if not keys and not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
            logger.warning("whoever reaches this address may score: no API key was set")
        server_of(app).run(sockets=[listener])
    return 0


def read_keys(args: argparse.Namespace) -> list[str]:
    """
    The API keys, of which none is empty.

    Raises:
        ValueError: If keys were asked for and there is none.
        OSError: If the file cannot be read.
    """
    if args.api_key_env is not None:
        place, text = f"the environment variable {args.api_key_env}", os.environ.get(args.api_key_env, "")
    elif args.api_key_file is not None:
        place, text = (
            repr(args.api_key_file),
            Path(args.api_key_file).read_text(encoding="utf-8-sig", errors="replace"),
        )
    else:
        return []
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not keys or not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise ValueError(f"{place} holds no API key: expected a line of printable ASCII without spaces")
    return keys

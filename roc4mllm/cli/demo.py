"""`roc4mllm demo`: serve a page to try a model on, until told to end."""

import argparse
import sys
import threading

from ..inference.demo.serve_demo import check_gradio, serve_demo
from .interruption import exit_when_told
from .loading import load


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    check_gradio()
    scorer = load(args)
    options = {name: getattr(args, name) for name in ("host", "port", "share", "max_files", "max_megabytes")}
    with exit_when_told(), serve_demo(scorer, **options) as page:
        print(f"The demo is at {page.local_url} (Ctrl-C ends it)", file=sys.stderr)
        if page.share_url:
            print(f"Everybody who knows the address can use it at {page.share_url}", file=sys.stderr)
        elif args.share:
            raise ValueError("no public link could be opened; without --share the demo runs on this machine")
        threading.Event().wait()
    return 0


__all__ = ["run"]

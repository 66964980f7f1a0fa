"""`python -m roc4mllm_cli`, for launchers that start modules."""

import sys

from . import main

sys.exit(main())

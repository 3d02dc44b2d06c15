"""A configuration for Parsl's own tests: `pytest --pyargs parsl.tests --config parsl_config.py`."""

import os

from parsl.config import Config

from headrace.integrations.parsl import HeadraceExecutor


def fresh_config():
    return Config(executors=[HeadraceExecutor(max_workers=2, mode=os.environ.get("HEADRACE_MODE", "processes"))])

"""The user's folder for what can be made again."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """This package's folder among the user's caches, which may not exist yet."""
    caches = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or caches) / "mlx_qwen3tts"

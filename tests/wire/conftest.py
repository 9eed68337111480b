"""The proxy and its bench are plain modules beside the tests; `tests/campaigns/wire.py` uses them too."""

from __future__ import annotations

import sys
from pathlib import Path

# pytest imports by path (importlib mode), so the folder of a test is not on the path by itself.
sys.path.insert(0, str(Path(__file__).parent))

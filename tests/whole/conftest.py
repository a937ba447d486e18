"""What the whole tests need of the machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

TOOLS = ("/usr/bin/storescp", "/usr/bin/storescu", "/usr/bin/dcmdump", "/usr/bin/dciodvfy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [tool for tool in TOOLS if not Path(tool).exists()]
    if missing:
        skip = pytest.mark.skip(reason=f"needs {', '.join(missing)} (Debian packages dcmtk, dicom3tools)")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)

"""docs/apps.md: its programs in Python print what it shows. The one for Node is run by tests/server/test_clients.py."""

from pathlib import Path

import pytest

from docs import refresh

PAGE = Path(__file__).parents[2] / "docs" / "apps.md"


@pytest.mark.thorough
def test_everything_it_shows_is_what_is_printed(tmp_path):
    differences = refresh.refresh(PAGE, tmp_path, check=True)
    assert not differences, "\n".join(differences)

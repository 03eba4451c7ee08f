"""What commands print, whatever they print to."""

import io
import json
import sys

import pytest

from o2s.terminal import print_json


def test_json_is_printed_whatever_the_terminal_can_write(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="latin-1"))
    print_json({"name": "日本"})
    sys.stdout.flush()
    assert json.loads(written.getvalue()) == {"name": "日本"}

"""The command as a test runs it, in this process."""

import re
import sys

import pytest

from o2s import cli


def o2s(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    sys.argv = ["o2s", *map(str, arguments)]
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def untimed(err: str) -> str:
    """Standard error without the lines that steps of more than a second leave."""
    return re.sub(r"(?m)^o2s: [^\n]*: [\d.]+ s\n", "", err)

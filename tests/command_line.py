"""The command as a test runs it, in this process."""

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

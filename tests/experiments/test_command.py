"""Exit codes of command lines."""

import pytest

from experiments._common._command import exit_code
from experiments._common.data import DataError


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("no images"), 2, "error: no images"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_a_run_that_cannot_go_on(error, code, message, capsys):
    def run(number):
        assert number == 3
        raise error

    assert exit_code(run, 3, interrupted="stopped") == code
    assert capsys.readouterr().err.strip() == message


def test_other_runs():
    assert exit_code(lambda: "a record") == 0
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 / 0)

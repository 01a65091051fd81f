"""`python -m experiments.cifar10`: see README.md, or `--help`."""

import sys

from experiments._common._command import exit_code

from ._run import run
from ._settings import parse


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; 0 when it is done, 2 when arguments or data make no sense, 130 on Ctrl-C."""
    settings = parse(arguments)
    return exit_code(run, settings)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m experiments.cifar10`: see README.md, or `--help`."""

import sys

from . import data
from ._run import run
from ._settings import parse


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; 0 when it is done, 2 when arguments or data make no sense, 130 on Ctrl-C."""
    settings = parse(arguments)
    try:
        run(settings)
    except data.DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

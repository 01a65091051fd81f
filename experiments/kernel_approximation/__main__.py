"""`python -m experiments.kernel_approximation`: see README.md, or `--help`."""

import sys

from experiments.cifar10 import data

from ._exact import DamagedFile
from ._run import run
from ._settings import parse


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; 0 when it is done, 2 when arguments or data make no sense, 130 on Ctrl-C."""
    settings = parse(arguments)
    try:
        run(settings)
    except (data.DataError, DamagedFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues the exact kernel", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

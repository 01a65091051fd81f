"""What every experiment's command line does with a run that cannot go on."""

import sys
from collections.abc import Callable

from .data import DataError


def exit_code(run: Callable[..., object], *arguments, interrupted: str = "interrupted") -> int:
    """Runs; 0 when it is done, 2 when data are missing or damaged, 130 on Ctrl-C, with a line."""
    try:
        run(*arguments)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return 130
    return 0

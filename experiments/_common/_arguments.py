"""Words of a command line as settings, and a dataclass of settings as a command line."""

import argparse
import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

from ._networks import activation

LARGEST = {"train": 50_000, "test": 10_000}  # images of CIFAR-10
Settings = TypeVar("Settings")


def option(
    default: Any,
    type: Callable = str,
    help: str = "",
    name: str = "N",
    as_given: bool = False,
) -> Any:
    """A field of a dataclass of settings that `settings_from` reads from a command line.

    Args:
        default: a tuple takes one or more words; a boolean is a flag with its negation.
        type: of one word, such as `count`.
        help: what the option is.
        name: how the help calls a word.
        as_given: several values stay as they are; otherwise each counts once, numbers in order.
    """
    own = {"type": type, "help": help, "metavar": name}
    return dataclasses.field(default=default, metadata={"own": own, "as_given": as_given})


def settings_from(
    kind: type[Settings], module: str, text: str | None, arguments: list[str] | None
) -> tuple[Settings, argparse.ArgumentParser]:
    """Settings from the command line, and the parser, for errors that concern several of them.

    A field that is no `option` is a count.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=text)
    for name, field in fields.items():
        own: dict[str, Any] = {"type": count, "metavar": "N"} | field.metadata.get("own", {})
        if isinstance(field.default, bool):
            own = {"help": own["help"], "action": argparse.BooleanOptionalAction}
        if isinstance(field.default, tuple):
            own["nargs"] = "+"
        parser.add_argument(f"--{name.replace('_', '-')}", default=field.default, **own)
    given = vars(parser.parse_args(arguments))
    for name, value in given.items():
        if isinstance(value, list):
            once = value if fields[name].metadata.get("as_given") else list(dict.fromkeys(value))
            numbers = not isinstance(value[0], str) and once is not value
            given[name] = tuple(sorted(once) if numbers else once)
    return kind(**given), parser


def one_of(known):
    """An argparse type: a name in `known`, whatever its case; the error lists them all."""
    by_lower = {name.lower(): name for name in known}

    def parse_name(text: str) -> str:
        if text.lower() not in by_lower:
            raise argparse.ArgumentTypeError(f"unknown name {text!r}; known: {listed(known)}")
        return by_lower[text.lower()]

    return parse_name


def duration(text: str) -> float:
    """An argparse type: seconds, or a number of minutes or hours such as `90`, `5m` and `1.5h`."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in ("s", "m", "h") else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; needed: 300, 5m or 1.5h")
    return seconds


def nonlinearity(text: str) -> str:
    """An argparse type: a nonlinearity that can be made."""
    try:
        activation(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text.lower()


def up_to(largest: int):
    """An argparse type: a count that is at most `largest`."""

    def parse_count(text: str) -> int:
        value = count(text)
        if value > largest:
            raise argparse.ArgumentTypeError(f"{value:,} asked for, but CIFAR-10 has {largest:,}")
        return value

    return parse_count


def count(text: str) -> int:
    """An argparse type: an integer that is at least 1."""
    value = _number(int, text, "an integer")
    if value < 1:
        raise argparse.ArgumentTypeError(f"at least 1 needed, got {value}")
    return value


def seed(text: str) -> int:
    """An argparse type: a seed that `jax.random.key` takes without x64."""
    value = _number(int, text, "an integer")
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"between 0 and 2**32 - 1 needed, got {value}")
    return value


def non_negative(text: str) -> float:
    """An argparse type: a finite number that is not negative."""
    value = _number(float, text, "a number")
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"a finite number >= 0 needed, got {text}")
    return value


def positive(text: str) -> float:
    """An argparse type: a finite positive number."""
    value = non_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError("a number > 0 needed, got 0")
    return value


def _number(kind, text: str, needed: str):
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{needed} needed, got {text!r}") from None


def listed(names) -> str:
    return ", ".join(names)


def at_least_two(text: str) -> int:
    """An argparse type: an integer from 2 on, such as images whose kernel can be centred."""
    value = count(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"at least 2 needed, got {value}")
    return value

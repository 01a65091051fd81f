"""Widths from a number of seconds."""

import argparse

import pytest

from experiments._common._arguments import duration
from experiments.cifar10 import __main__ as entry
from experiments.cifar10 import _budget
from experiments.cifar10._budget import LADDER, widths_within


@pytest.fixture
def rates(monkeypatch):
    monkeypatch.setattr(_budget, "_rate", lambda: 2e11)
    monkeypatch.setattr(_budget, "_host_rate", lambda: 1e11)
    monkeypatch.setattr(_budget.os, "sysconf", lambda name: 4096 if "PAGE_SIZE" in name else 2**23)


def widths(seconds, images=60_000, train=50_000):
    return widths_within(seconds, images, train, (32, 32, 3), grid=3, views=2, rank=96)


def test_more_seconds_give_wider_maps(rates):
    found = [LADDER.index(widths(seconds)) for seconds in (100, 200, 400, 1200, 3600, 1e6)]
    assert found == sorted(found)
    assert found[0] < found[2] < found[-1] == len(LADDER) - 1
    assert LADDER.index(widths(100, 6_000, 5_000)) > found[0]


def test_the_gram_matrix_must_fit(rates, monkeypatch):
    monkeypatch.setattr(_budget.os, "sysconf", lambda name: 512 if "PAGE_SIZE" in name else 2**23)
    assert widths(1e6) == (32, 1024)


def test_too_little_says_what_is_needed(rates):
    with pytest.raises(ValueError, match=r"a budget of 20 seconds .* \(16, 256\) need about \d+"):
        widths(20)


def test_rates_are_measured():
    assert _budget._rate() > 1e8
    assert _budget._host_rate() > 1e8


def test_the_job_takes_it(images, tmp_path, capsys):
    words = f"--data-dir {images} --train 60 --test 20 --seed 1 --out {tmp_path} --budget"
    assert entry.main([*words.split(), "1s"]) == 2
    assert "--budget: a budget of 1 seconds is too small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400)]
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1", "0", "1d", "nan", "inf"])
def test_what_is_no_duration(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"needed: 300, 5m or 1\.5h"):
        duration(text)

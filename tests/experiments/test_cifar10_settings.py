"""Arguments of the CIFAR-10 job: bad ones end it at once, with code 2 and a remedy."""

import pytest

from experiments._common._networks import ACTIVATIONS
from experiments.cifar10._settings import Settings, parse


def test_defaults():
    assert parse([]) == Settings()


def test_everything():
    words = (
        "--recipe Myrtle7 --activation GELU --kernel nngp --method randomfeatures "
        "--width 32 --train 100 --test 50 --flip --no-standardise --zca-reg 0.5 "
        "--diag-reg 1 1e-3 1 --select LOO --batch-size 8 --seed 3 --b-std 0.1"
    )
    settings = parse(words.split())
    assert settings.recipe == "myrtle7"
    assert settings.activation == "gelu"
    assert settings.method == "RandomFeatures"
    assert (settings.width, settings.train, settings.test) == ((32,), 100, 50)
    assert settings.diag_reg == (1e-3, 1.0)
    assert settings.select == "loo"
    assert settings.b_std == 0.1
    assert settings.preprocessing.zca_reg == 0.5
    assert not settings.preprocessing.standardise
    assert settings.preprocessing.layer_norm
    assert parse(["--activation", "LeakyRelu:0.2"]).activation == "leakyrelu:0.2"
    assert parse(["--no-zca"]).preprocessing.zca_reg is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--activation swish", "unknown name 'swish'; known: " + ", ".join(ACTIVATIONS)),
        ("--activation leakyrelu", "Numbers go after a colon"),
        ("--activation relu:a", "Numbers go after a colon"),
        ("--method magic", "unknown name 'magic'; known: Nystroem"),
        ("--recipe vgg", "known: patches, myrtle5, myrtle7, myrtle10"),
        ("--kernel ck", "known: ntk, nngp"),
        ("--select test", "known: accuracy, gcv, loo, validation"),
        ("--width 0", "argument --width: at least 1 needed, got 0"),
        ("--width ten", "an integer needed, got 'ten'"),
        ("--width 8 16 8", "3 numbers for 2 nonlinearities of patches; give one, or one for each"),
        ("--batch-size -4", "argument --batch-size: at least 1 needed, got -4"),
        ("--diag-reg 1e-3 -0.1", "argument --diag-reg: a finite number >= 0 needed, got -0.1"),
        ("--diag-reg nan", "a finite number >= 0 needed, got nan"),
        ("--zca-reg -1", "argument --zca-reg: a finite number >= 0 needed"),
        ("--W-std 0", "a number > 0 needed"),
        ("--train 0", "at least 1 needed"),
        ("--train 50001", "50,001 asked for, but CIFAR-10 has 50,000"),
        ("--test 10001", "10,001 asked for, but CIFAR-10 has 10,000"),
        ("--digits --data-dir images", "give one of the two"),
        ("--seed -1", "between 0 and"),
        ("--select validation --train 1", "at least two training images"),
        ("--rank 0", "at least 1 needed, got 0"),
        ("--rank 8 --method RandomFeatures", "of Nystroem alone"),
        ("--budget soon", "'soon' is no duration"),
        ("--budget 5m --width 8", "give it without --width"),
        ("--budget 5m --recipe myrtle5", "with no other recipe"),
    ],
)
def test_nonsense_ends_with_code_2(words, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(words.split())
    assert exit_.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())

"""The demo, with shorter training."""

import argparse
import math

import pytest
import torch
from torch import nn

from contrastloss import demo

MODELS = ["raw pixels", "untrained encoder", "trained encoder"]


@pytest.fixture(scope="module")
def digits():
    return demo.Digits.load()


@pytest.fixture
def few(digits, monkeypatch):
    """Uses a tenth of the images, for tests in which the quality of the encoder does not matter."""
    part = demo.Digits(*(v[:128] for v in (digits.train, digits.train_labels)),
                       *(v[:128] for v in (digits.test, digits.test_labels)))  # fmt: skip
    monkeypatch.setattr(demo.Digits, "load", lambda: part)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(arguments)


def test_digits_are_split_without_overlap(digits):
    assert digits.train.shape == (1024, 1, 8, 8)
    assert digits.test.shape == (773, 1, 8, 8)
    assert len(digits.train_labels) == 1024
    assert torch.cat([digits.train_labels, digits.test_labels]).bincount().tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    assert 0 <= digits.train.min() < digits.train.max() == 1


def test_augmented_images_differ_and_keep_their_digit(digits):
    torch.manual_seed(0)
    first, second = demo.augment(digits.train), demo.augment(digits.train)
    assert first.shape == digits.train.shape
    assert ((first - second).flatten(1).norm(dim=1) > 0.1).all()
    views, images = (nn.functional.normalize(v.flatten(1)) for v in (first, digits.train))
    nearest = (views @ images.mT).argmax(1)
    kept = (digits.train_labels[nearest] == digits.train_labels).float().mean()
    assert kept > 0.4  # with a random neighbour it would be 0.1


@pytest.mark.parametrize(("turn", "expected"), [(0, 1.0), (1, 0.0)])
def test_accuracy_of_perfect_and_of_wrong_features(turn, expected):
    labels = torch.arange(10).repeat(8)
    images = nn.functional.one_hot(labels, 64).float().view(-1, 1, 8, 8)
    digits = demo.Digits(images, labels, images[:20], (labels[:20] + turn) % 10)
    assert demo.accuracies(digits, nn.Flatten()) == [expected] * len(demo.LABELS)


@pytest.mark.parametrize("loss", demo.CHOICES)
def test_every_loss_takes_a_step(loss):
    torch.manual_seed(0)
    whole, model = demo.Digits.load(), demo.encoder()
    digits = demo.Digits(whole.train[:96], whole.train_labels[:96], whole.test, whole.test_labels)
    first, second, third = demo.train(model, digits, demo.LOSSES[loss](), loss, range(3))
    assert third < max(first, second)


EXTRA = [
    pytest.param(loss, marks=pytest.mark.extra) for loss in ("nt_xent", "clip", "barlow_twins")
]


@pytest.mark.parametrize("loss", ["supcon", "groco", *EXTRA])
def test_a_loss_trains(loss):
    result = demo.run(loss, epochs=3)
    assert list(result.accuracy) == MODELS
    for values in result.accuracy.values():
        assert all(0.3 < value <= 1 for value in values)
        assert values == sorted(values)  # more labels help
    assert result.accuracy["raw pixels"][-1] > 0.97
    assert result.accuracy["trained encoder"] != result.accuracy["untrained encoder"]
    assert len(result.curve) == 3
    assert all(math.isfinite(value) for value in result.curve)
    assert result.curve[2] < result.curve[0]
    assert result.seconds > 0
    before, after = result.memory
    assert before is None or 0 < before <= after
    assert result.table().count("%") == len(MODELS) * len(demo.LABELS)


def test_a_short_training_beats_the_untrained_encoder_and_raw_pixels():
    result = demo.run(epochs=15)
    pixels, before, after = (result.accuracy[model][0] for model in MODELS)
    assert after > max(pixels, before) + 0.04


def test_same_seed_same_run(few):
    first = demo.run(epochs=1, seed=3).curve
    assert demo.run(epochs=1, seed=3).curve == first
    assert demo.run(epochs=1, seed=4).curve != first


def test_backend_by_name(few):
    named = demo.run(epochs=1, backend="reference").curve
    assert named == pytest.approx(demo.run(epochs=1).curve, rel=1e-5)


def test_command_prints_the_table_and_writes_the_picture(few, tmp_path, capsys):
    output = tmp_path / "picture.png"
    assert demo.main(parse("--epochs", "1", "--output", str(output))) == 0
    printed = capsys.readouterr().out
    assert "supervised" not in printed
    for expected in (*MODELS, "1 per class", "5 per class", "all labels", "s per epoch"):
        assert expected in printed
    assert output.read_bytes().startswith(b"\x89PNG")


def test_command_says_that_supcon_sees_the_labels(few, tmp_path, capsys):
    demo.main(parse("--loss", "supcon", "--epochs", "1", "--output", str(tmp_path / "p.png")))
    assert "supervised" in capsys.readouterr().out


def test_command_prints_nt_xent_beside_another_loss(few, tmp_path, capsys):
    demo.main(parse("--loss", "groco", "--epochs", "2", "--output", str(tmp_path / "p.png")))
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if "trained by nt_xent" in line)
    accuracy = demo.run(epochs=2).accuracy["trained encoder"]
    assert line.split()[3::2] == [f"{100 * value:.1f}" for value in accuracy]


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "0"],
        ["--epochs", "9" * 50],
        ["--loss", "none"],
        ["--backend", "none"],
        ["--seed", "-1"],
        ["--seed", "9" * 50],
    ],
)
def test_wrong_arguments_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        parse(*words)
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("picture", "expected a name that ends in .png, .jpg, .pdf, .svg"),
        ("picture.bmp", "expected a name that ends in .png"),
        ("folder.png", "expected a file that can be written: Is a directory"),
        ("file/picture.png", "expected a file that can be written: "),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_training(
    path, message, tmp_path, capsys
):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        parse("--output", str(tmp_path / path))
    error = capsys.readouterr().err
    assert f"argument --output: got {tmp_path / path}, {message}" in error


def test_checking_an_output_leaves_files_as_they_are(tmp_path):
    old = tmp_path / "old.png"
    old.write_bytes(b"old")
    parse("--output", str(old))
    new = parse("--output", str(tmp_path / "deep" / "new.PNG")).output
    assert old.read_bytes() == b"old"
    assert new.parent.is_dir()
    assert not new.exists()

# SPDX-License-Identifier: Apache-2.0
"""Training a network: it learns, it resumes to the same bits, the test images are seen once."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from arch2vec_fast._files import read_lines
from arch2vec_fast.darts import Network
from arch2vec_fast.darts.augment import normalize
from arch2vec_fast.darts.images import ImageSet
from arch2vec_fast.darts.recipes import TrainRecipe
from arch2vec_fast.darts.train import Speed, evaluate, train
from arch2vec_fast.spaces.darts import Genotype

GENOTYPE = Genotype.from_items(
    "0:sep_conv_3x3|1:skip_connect|0:max_pool_3x3|1:dil_conv_3x3"
    "|2:skip_connect|0:avg_pool_3x3|3:none|1:sep_conv_5x5"
)
TINY = replace(
    TrainRecipe.small(), channels=4, layers=3, epochs=3, batch_size=32, drop_path=0.2, cutout=4,
    flip=True, mean_of_last=2,
)  # fmt: skip


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "weights.pt", weights_only=True)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_learns_and_reports(stripes: ImageSet, tmp_path: Path) -> None:
    heard = []
    recipe = replace(TINY, epochs=6, drop_path=0, cutout=0, flip=False)
    result = train(
        GENOTYPE, stripes, recipe, out=tmp_path, on_epoch=lambda *line: heard.append(line)
    )
    assert result.test > 0.8  # a third by chance
    assert len(result.validation) == 6
    assert result.reward == pytest.approx(sum(result.validation[-2:]) / 2)
    assert result.test_top5 == 1.0  # of three classes
    assert [epoch for epoch, _ in heard] == list(range(6))
    assert heard[-1][1]["loss"] < 0.5 * heard[0][1]["loss"]
    network = Network(GENOTYPE, recipe.network(classes=3))
    network.load_state_dict(weights(tmp_path))
    assert evaluate(network, stripes) == pytest.approx((result.test, 1.0))


def test_interrupted_is_uninterrupted(stripes: ImageSet, tmp_path: Path) -> None:
    whole = train(GENOTYPE, stripes, TINY, out=tmp_path / "whole", seed=5)

    def stop(epoch: int, line: dict[str, float]) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(GENOTYPE, stripes, TINY, out=tmp_path / "cut", seed=5, on_epoch=stop)
    resumed = train(GENOTYPE, stripes, TINY, out=tmp_path / "cut", seed=5)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert replace(resumed, seconds=0.0) == replace(whole, seconds=0.0)
    other = train(GENOTYPE, stripes, TINY, out=tmp_path / "other", seed=6)
    assert other.validation != whole.validation or not same(
        weights(tmp_path / "whole"), weights(tmp_path / "other")
    )


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads({threads})  # another number adds in another order
from pathlib import Path
from toy import toy_images
from darts.test_train import GENOTYPE, TINY, train
train(GENOTYPE, toy_images(), TINY, out=Path({out!r}))
"""


def test_a_kill_costs_nothing_but_time(stripes: ImageSet, tmp_path: Path) -> None:
    train(GENOTYPE, stripes, TINY, out=tmp_path / "whole")
    script = SCRIPT.format(
        tests=str(Path(__file__).parent.parent),
        threads=torch.get_num_threads(),
        out=str(tmp_path / "cut"),
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut" / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(GENOTYPE, stripes, TINY, out=tmp_path / "cut")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    lines = [line for _, line in read_lines(tmp_path / "cut" / "metrics.jsonl")]
    assert [line.get("epoch") for line in lines] == [0, 1, 2, None]


def test_the_test_images_are_seen_once(
    stripes: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arch2vec_fast.darts import train as module

    scored = []
    score = module._Trainer.score

    def spy(self, images, labels):
        scored.append(len(labels))
        return score(self, images, labels)

    monkeypatch.setattr(module._Trainer, "score", spy)
    first = train(GENOTYPE, stripes, TINY, out=tmp_path)
    again = train(GENOTYPE, stripes, TINY, out=tmp_path)
    assert scored == [20, 20, 20, 40]  # held-out ones thrice, the test images after the last epoch
    assert again == first


def test_a_step_is_the_plain_step(stripes: ImageSet, tmp_path: Path) -> None:
    """One epoch of one batch, without anything random but the order, against a loop by hand."""
    recipe = replace(
        TINY, epochs=1, batch_size=180, padding=0, flip=False, cutout=0, drop_path=0,
        label_smoothing=0.1, validation_fraction=0.1,
    )  # fmt: skip
    speed = Speed(channels_last=False)
    train(GENOTYPE, stripes, recipe, out=tmp_path, seed=3, speed=speed)
    torch.manual_seed(3)
    network = Network(GENOTYPE, recipe.network(classes=3))
    optimizer = torch.optim.SGD(
        network.parameters(), recipe.learning_rate, momentum=0.9, weight_decay=3e-4
    )
    mean, std = torch.tensor(stripes.mean), torch.tensor(stripes.std)
    pixels = normalize(stripes.train_images[:180], mean, std)
    logits = network(pixels).main
    F.cross_entropy(logits, stripes.train_labels[:180], label_smoothing=0.1).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimizer.step()
    trained = weights(tmp_path)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-3, atol=2e-5, msg=name)


def test_presets_are_the_published_settings() -> None:
    query = TrainRecipe.get("query")
    assert (query.epochs, query.batch_size, query.channels, query.layers) == (50, 96, 36, 20)
    assert query.learning_rate_at(0) == 0.025
    assert query.learning_rate_at(25) == pytest.approx(0.0125)
    assert query.drop_path_at(25) == pytest.approx(0.1)
    imagenet = TrainRecipe.get("imagenet")
    assert imagenet.learning_rate_at(10) == pytest.approx(0.1 * 0.97**10)
    for name in TrainRecipe.names():
        recipe = TrainRecipe.get(name)
        assert TrainRecipe.from_dict(recipe.to_dict()) == recipe


def test_other_images_of_the_same_size_are_another_training(
    stripes: ImageSet, tmp_path: Path
) -> None:
    recipe = replace(TINY, epochs=1)
    result = train(GENOTYPE, stripes, recipe, out=tmp_path)
    other = replace(stripes, test_labels=stripes.test_labels.flip(0))
    with pytest.raises(ValueError, match=r"holds another training \(its images differ\)"):
        train(GENOTYPE, other, recipe, out=tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["images"]["sha256"]  # as a version that kept none wrote it
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert train(GENOTYPE, stripes, recipe, out=tmp_path).test == result.test


def test_rejects(stripes: ImageSet, tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=1)
    train(GENOTYPE, stripes, recipe, out=tmp_path / "a")
    with pytest.raises(ValueError, match=r"holds another training \(its seed differ\)"):
        train(GENOTYPE, stripes, recipe, out=tmp_path / "a", seed=1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no training"):
        train(GENOTYPE, stripes, recipe, out=tmp_path / "b")
    with pytest.raises(ValueError, match="no preset 'large'"):
        TrainRecipe.get("large")
    with pytest.raises(ValueError, match=r"recipe\.drop_path: 1\.0 is outside"):
        replace(recipe, drop_path=1.0)
    with pytest.raises(ValueError, match=r"recipe\.batch_size: 1 is below 2"):
        replace(recipe, batch_size=1)
    with pytest.raises(FloatingPointError, match=r"loss: nan in epoch 0; lower recipe\.learning"):
        train(GENOTYPE, stripes, replace(recipe, learning_rate=1e30), out=tmp_path / "c")
    for preset, message in (
        (TrainRecipe.cifar10(), "recipe: cifar10 has an auxiliary head for images of 32x32"),
        (TrainRecipe.imagenet(), "recipe: imagenet halves images five times, stripes has 16x16"),
    ):
        with pytest.raises(ValueError, match=message):
            train(GENOTYPE, stripes, preset, out=tmp_path / "c" / "d")
    assert not (tmp_path / "c").exists()
    (tmp_path / "a" / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"checkpoint\.pt: not a whole file of tensors"):
        train(GENOTYPE, stripes, recipe, out=tmp_path / "a")

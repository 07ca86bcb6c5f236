"""Pretext targets: each against a literal loop over pixels, and what a supernet makes of them."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_supernets import make, tiny_task

from nasharness.optimizers.darts import DARTS
from nasharness.optimizers.supernet.pretext import PRETEXTS, Colourisation, Jigsaw, Rotation, make_pretext


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(n: int = 40, channels: int = 3, side: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, channels, side, side, generator=_generator(seed))


def test_rotation_turns_as_often_as_it_says() -> None:
    images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).repeat(32, 1, 1, 1)
    by_hand = {0: [[1, 2], [3, 4]], 1: [[2, 4], [1, 3]], 2: [[4, 3], [2, 1]], 3: [[3, 1], [4, 2]]}
    turned, targets = Rotation()(images, _generator())
    for image, target in zip(turned, targets.tolist(), strict=True):
        assert image[0].tolist() == by_hand[target]
    assert set(targets.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 5), (6, 3), (7, 4)])
def test_jigsaw_moves_quarters_and_leaves_the_middle(height: int, width: int) -> None:
    images = torch.randn(60, 2, height, width, generator=_generator())
    shuffled, targets = Jigsaw()(images, _generator(3))
    orders = list(itertools.permutations(range(4)))
    h, w = height // 2, width // 2
    corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w)]
    for before, after, target in zip(images, shuffled, targets.tolist(), strict=True):
        literal = before.clone()
        for place, quarter in enumerate(orders[target]):
            (y, x), (v, u) = corners[place], corners[quarter]
            for i in range(h):
                for j in range(w):
                    literal[:, y + i, x + j] = before[:, v + i, u + j]
        assert torch.equal(after, literal)


def test_jigsaw_knows_every_order() -> None:
    _, targets = Jigsaw()(_images(600), _generator())
    assert set(targets.tolist()) == set(range(24))


def test_colourisation_tells_colours_apart() -> None:
    colours = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 1.0, 0], [0, 1.0, 1.0], [1.0, 0, 1.0]])
    grey, targets = Colourisation(hues=8)(colours[:, :, None, None].expand(-1, -1, 4, 4), _generator())
    assert grey.shape == (6, 1, 4, 4)
    torch.testing.assert_close(grey[:, 0, 0, 0], colours.mean(dim=1))
    assert len(set(targets.tolist())) == 6
    # Red: across 1 / sqrt 2, along 1 / sqrt 6, so 60 degrees, the second of eight sectors of 45; blue: 180 degrees.
    assert targets[0] == 1
    assert targets[2] in (3, 4, 5)


def test_colourisation_looks_at_hue_alone() -> None:
    images = _images()
    _, targets = Colourisation()(images, _generator())
    _, brighter = Colourisation()(2.0 * images + 1.0, _generator())
    _, other = Colourisation()(-images, _generator())
    assert torch.equal(targets, brighter)
    assert torch.equal((targets + 4) % 8, other)


@pytest.mark.parametrize("name", sorted(PRETEXTS))
def test_the_same_generator_gives_the_same_targets(name: str) -> None:
    pretext, images = make_pretext(name), _images()
    before = images.clone()
    once, again = pretext(images, _generator()), pretext(images, _generator())
    assert torch.equal(once[0], again[0])
    assert torch.equal(once[1], again[1])
    assert torch.equal(images, before)
    assert once[0].shape[1] == pretext.channels(3)
    assert once[1].dtype == torch.int64
    assert 0 <= int(once[1].min()) <= int(once[1].max()) < pretext.num_classes


def test_images_that_a_task_cannot_be_made_of() -> None:
    with pytest.raises(ValueError, match="three channels, not 1"):
        make_pretext("colourisation").channels(1)
    with pytest.raises(ValueError, match="three channels, not 1"):
        make_pretext("colourisation")(_images(channels=1), _generator())
    with pytest.raises(ValueError, match="square images, not 4 x 6"):
        make_pretext("rotation")(torch.zeros(1, 1, 4, 6), _generator())
    with pytest.raises(ValueError, match="2 x 2 pixels"):
        make_pretext("jigsaw")(torch.zeros(1, 1, 1, 6), _generator())
    with pytest.raises(ValueError, match="at least 2"):
        Colourisation(hues=1)


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'rotation'"):
        make_pretext("rotations")
    with pytest.raises(ValueError, match="did you mean 'colourisation'"):
        make_pretext("colorization")
    with pytest.raises(ValueError, match="choose classify, rotation"):
        make_pretext("xyz")


@pytest.mark.parametrize(("name", "channels"), [("rotation", 1), ("jigsaw", 1), ("colourisation", 3)])
def test_a_supernet_is_trained_on_it(name: str, channels: int) -> None:
    search = make(DARTS, task=tiny_task(channels=channels), pretext=name, epochs=1)
    search.space.check(search.ask().arch)
    assert search.images.num_classes == PRETEXTS[name]().num_classes
    assert search.supernet.settings["num_classes"] == search.images.num_classes

"""Generators go on where they were."""

import random

import numpy as np
import torch

from mmseg_m2f.engine.resume.random_states import capture_random_states, restore_random_states, separate_randomness


def draw() -> tuple:
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(1).item()  # noqa: NPY002


def test_restore_random_states__draws_the_same_again(tmp_path):
    draw()
    states = capture_random_states()
    torch.save(states, tmp_path / "states.pth")
    restore_random_states(states)  # the type checks of the tests have drawn from Python's generator
    expected = [draw() for _ in range(3)]
    restore_random_states(torch.load(tmp_path / "states.pth", weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_separate_randomness__leaves_the_generators_alone():
    states = capture_random_states()
    expected = draw()
    restore_random_states(states)
    with separate_randomness(7):
        inside = draw()
    assert draw() == expected
    with separate_randomness(7):
        assert draw() == inside

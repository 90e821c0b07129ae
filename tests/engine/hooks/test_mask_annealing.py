from unittest.mock import Mock

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_m2f.engine.hooks import MaskAnnealing
from mmseg_m2f.models.query_decoders import EncoderMaskDecoder
from mmseg_m2f.structures import FeatureSpec


def runner_at(iteration: int, max_iters: int, num_blocks: int = 4) -> Mock:
    model = torch.nn.Module()
    model.decode_head = torch.nn.Module()
    model.decode_head.query_decoder = EncoderMaskDecoder(2, FeatureSpec((8,), (16,), num_blocks))
    return Mock(spec=Runner, model=model, iter=iteration, max_iters=max_iters)


def probabilities(iteration: int, max_iters: int = 600, **options: float) -> list[float]:
    runner = runner_at(iteration, max_iters)
    MaskAnnealing(**options).before_train_iter(runner, 0)
    return runner.model.decode_head.query_decoder.attn_mask_probs.tolist()


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [
        (0, [1, 1, 1, 1]),
        (100, [1, 1, 1, 1]),
        (150, [0.5**0.9, 1, 1, 1]),
        (175, [0.25**0.9, 1, 1, 1]),
        (200, [0, 1, 1, 1]),
        (310, [0, 0, 0.9**0.9, 1]),
        (480, [0, 0, 0, 0.2**0.9]),
        (501, [0, 0, 0, 0]),
        (599, [0, 0, 0, 0]),
    ],
)
def test_mask_annealing__by_hand(iteration, expected):
    assert probabilities(iteration) == pytest.approx(expected, abs=1e-6)


def test_mask_annealing__own_fractions_and_power():
    assert probabilities(60, 100, start=0.0, end=0.8, length=0.2, power=1.0) == pytest.approx([0, 0, 0, 1])
    assert probabilities(30, 100, start=0.0, end=0.8, length=0.2, power=2.0) == pytest.approx([0, 0.25, 1, 1])
    assert probabilities(30, 100, start=0.0, end=0.7, length=0.4, power=1.0) == pytest.approx([0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (-0.1, 0.5), (0.5, 1.0)])
def test_mask_annealing__wrong_fractions(start, end):
    with pytest.raises(ValueError, match=f"start < end < 1, got start={start}, end={end}"):
        MaskAnnealing(start=start, end=end)


@pytest.mark.parametrize("length", [0.0, 0.6])
def test_mask_annealing__wrong_length(length):
    with pytest.raises(ValueError, match=f"0 < length <= end - start = 0.5, got length={length}"):
        MaskAnnealing(start=0.25, end=0.75, length=length)


def test_mask_annealing__another_decoder():
    runner = runner_at(0, 10)
    runner.model.decode_head.query_decoder = torch.nn.Identity()
    with pytest.raises(ValueError, match="expected EncoderMaskDecoder .* got Identity"):
        MaskAnnealing().before_train_iter(runner, 0)


@pytest.mark.parametrize(
    ("leaf", "starts", "ends"),
    [
        (
            "pmt_dinov3_vit_l_coco-panoptic-640_12e",
            [0, 23651, 32520, 41389, 50258, 59128],
            [3000, 38433, 47302, 56171, 65040, 73910],
        ),
        (
            "pmt_dinov3_vit_l_ade20k-512_16e",
            [0, 5384, 7403, 9422, 11442, 13461],
            [3000, 8749, 10769, 12788, 14807, 16826],
        ),
    ],
)
def test_mask_annealing__times_of_each_block_as_published(leaf, starts, ends):
    cfg = Config.fromfile(f"configs/pmt/{leaf}.py")
    (settings,) = (dict(hook) for hook in cfg.custom_hooks if hook.type == "mmseg_m2f.MaskAnnealing")
    settings.pop("type")
    hook = MaskAnnealing(**settings)
    for block, (start, end) in enumerate(zip(starts, ends, strict=True)):
        for iteration, expected in ((start - 2, 1.0), (start + (end - start) / 2, 0.5**0.9), (end + 2, 0.0)):
            found = hook.probabilities(max(iteration, 0) / cfg.max_iters, 6)[block]
            assert found == pytest.approx(expected, abs=1e-3)


def test_mask_annealing__times_of_another_number_of_blocks():
    with pytest.raises(ValueError, match="has times for 2 blocks, expected 4"):
        probabilities(0, blocks=[(0.0, 0.5), (0.5, 1.0)])


@pytest.mark.parametrize("blocks", [[(0.5, 0.5)], [(0.1,)], [(-0.1, 0.5)], [(0.5, 1.1)]])
def test_mask_annealing__times_that_are_none(blocks):
    with pytest.raises(ValueError, match="a start and an end for each block"):
        MaskAnnealing(blocks=blocks)

"""ECENet's head against its formulas, its published size and what must not change its results."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from tests.models.conftest import NUM_CLASSES, make_sample

CHANNELS = [8, 16, 32, 64]


def config(**arguments: object) -> dict:
    return (
        dict(type="mmseg_m2f.ExplicitClassHead", in_channels=CHANNELS, num_classes=NUM_CLASSES, channels=16) | arguments
    )


def build_head(**arguments: object) -> torch.nn.Module:
    head = MODELS.build(config(**arguments))
    head.init_weights()
    return head


def make_maps(height: int = 64, width: int = 96, *, batch: int = 2) -> list[torch.Tensor]:
    """Of a backbone whose strided layers round up."""
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
    return [torch.randn(batch, channels, *size) for channels, size in zip(CHANNELS, sizes, strict=True)]


def make_samples(labels: torch.Tensor) -> list:
    return [make_sample(x, img_path=f"image {i}") for i, x in enumerate(labels)]


def make_labels(height: int = 64, width: int = 96, *, batch: int = 2) -> torch.Tensor:
    labels = torch.randint(NUM_CLASSES - 1, (batch, height // 8, width // 8))  # the last class does not occur
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[0, :16] = 255
    return labels


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 130)])
def test_answer__size_and_share_of_the_masks(height, width):
    head, maps = build_head().eval(), make_maps(height, width)
    said = head.describe(maps)
    assert said.logits.shape == (2, NUM_CLASSES, -(-height // 4), -(-width // 4))
    assert torch.equal(head(maps), said.logits)
    share = said.logits - said.pixel_logits
    assert share.min() > 0
    assert share.max() < 1
    assert said.class_probs.min() > 0
    assert said.class_probs.max() < 1
    total = sum(said.mask_logits)
    torch.testing.assert_close(share, said.class_probs[..., None, None] * total.sigmoid(), rtol=1e-4, atol=1e-5)


def test_answer__flow_of_the_levels():
    """The steps of the method, one by one, with the modules of the head."""
    head, maps = build_head().eval(), make_maps()
    lateral = [conv(x) for conv, x in zip(head.laterals, head.reconstruction(maps), strict=True)]
    masks = [head.first_masks(lateral[3])]
    classes = head.tokens[0](masks[0])
    refined = [lateral[3]]
    for step, level in enumerate((2, 1, 0)):
        attended, mask = head.attentions[step](lateral[level], classes)
        classes = head.updaters[step](head.tokens[step + 1](mask), classes)
        masks.append(mask)
        refined.append(attended)
    enlarged = refined[3:]
    for times, x in ((1, refined[2]), (2, refined[1]), (3, refined[0])):
        for ghost in head.upsamplings[3 - times]:
            first = ghost.primary(x)
            x = F.pixel_shuffle(torch.cat([first, ghost.cheap(first)], 1), 2)
        enlarged.append(x)
    pixel_logits = head.conv_seg(head.fusion(torch.cat(enlarged, 1)))
    total = sum(F.interpolate(mask, (16, 24), mode="bilinear", align_corners=False) for mask in masks)
    probs = head.class_embed(classes).softmax(-1)
    sure = torch.stack([probs[:, k, k] for k in range(NUM_CLASSES)], 1)
    expected = pixel_logits + sure[..., None, None] * total.sigmoid()
    torch.testing.assert_close(head(maps), expected)


def test_answer__order_of_classes():
    head, maps, order = build_head().eval(), make_maps(), torch.randperm(NUM_CLASSES)
    expected = head(maps)[:, order]
    with torch.no_grad():
        for module in (head.first_masks[1], head.class_embed, head.conv_seg):
            for parameter in module.parameters():
                parameter.copy_(parameter[order])
    torch.testing.assert_close(head(maps), expected)


def test_answer__batch_mates_do_not_matter():
    head, maps = build_head().eval(), make_maps(batch=3)
    torch.testing.assert_close(head([x[1:2] for x in maps]), head(maps)[1:2])


def test_levels__two_are_enough():
    head = build_head(in_channels=CHANNELS[2:], in_index=[2, 3])
    maps = make_maps()
    assert head.eval()(maps).shape == (2, NUM_CLASSES, 4, 6)


def expected_mask_losses(mask_maps, labels, *, void_is_background=False):
    """Focal and dice loss of each class of each image, in loops."""
    focal, dice = [], []
    for image, label_map in enumerate(labels):
        known = torch.ones_like(label_map, dtype=torch.bool) if void_is_background else label_map != 255
        for k in label_map[label_map != 255].unique().tolist():
            for maps in mask_maps:
                logits = F.interpolate(maps[image : image + 1, k : k + 1], label_map.shape, mode="bilinear")[0, 0]
                p, m = logits[known].sigmoid().double(), (label_map == k)[known].double()
                inside = -0.25 * (1 - p) ** 2 * p.log() * m
                outside = -0.75 * p**2 * (1 - p).log() * (1 - m)
                focal.append((inside + outside).mean())
                dice.append(1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1))
    return 5 * sum(focal) / len(focal), 2 * sum(dice) / len(dice)


@pytest.mark.parametrize("void_is_background", [False, True])
def test_losses__equal_the_formulas(void_is_background):
    head = build_head(void_is_background=void_is_background).eval()
    maps, labels = make_maps(), make_labels()
    losses = head.loss(maps, make_samples(labels))
    assert set(losses) == {"loss_ce", "acc_seg", "loss_mask", "loss_dice", "loss_div"}
    said = head.describe(maps)
    supervised = [sum(said.mask_logits[:3])]
    focal, dice = expected_mask_losses(supervised, labels, void_is_background=void_is_background)
    assert losses["loss_mask"].item() == pytest.approx(focal.item(), rel=1e-4)
    assert losses["loss_dice"].item() == pytest.approx(dice.item(), rel=1e-4)
    per_map = []
    for _, diverse in head.reconstruction.reconstruct(maps):
        covered = diverse.flatten(2).softmax(-1).amax(1).sum(-1)
        per_map.append((1 - covered / diverse.shape[1]).mean())
    assert losses["loss_div"].item() == pytest.approx(0.2 * sum(per_map).item() / 4, rel=1e-5)
    enlarged = F.interpolate(said.logits, labels.shape[1:], mode="bilinear", align_corners=False)
    entropy = F.cross_entropy(enlarged, labels, ignore_index=255, reduction="sum") / labels.numel()
    assert losses["loss_ce"].item() == pytest.approx(entropy.item(), rel=1e-5)


def test_losses__reach_every_parameter():
    head = build_head()
    losses = head.loss(make_maps(), make_samples(make_labels()))
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_losses__class_absent_from_the_crop_has_no_mask():
    """Only what the masks of other classes need of it remains, nothing pulls at its own."""
    head, samples = build_head(), make_samples(make_labels())
    masks = [torch.randn(2, NUM_CLASSES, 16, 24, requires_grad=True) for _ in range(4)]
    sum(head._mask_losses(masks, samples).values()).backward()
    assert not masks[0].grad[:, -1].any()
    assert masks[0].grad[:, :-1].flatten(2).any(-1).all()
    assert masks[3].grad is None  # the finest level's mask, left out


def test_losses__void_crop():
    head = build_head()
    losses = head.loss(make_maps(), make_samples(torch.full((2, 64, 96), 255)))
    assert all(value.isfinite().all() for value in losses.values())
    assert losses["loss_mask"] == losses["loss_dice"] == losses["loss_ce"] == 0
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_losses__label_beyond_the_classes_is_named():
    labels = make_labels()
    labels[1, 5, 5] = 77
    with pytest.raises(ValueError, match=r"image 1: expected labels 0…4 or 255 .* got \[77\]"):
        build_head().loss(make_maps(), make_samples(labels))


@pytest.mark.parametrize("test_cfg", [dict(mode="whole"), dict(mode="slide", crop_size=(64, 64), stride=(48, 48))])
def test_segmentor__trains_and_predicts(test_cfg):
    model = MODELS.build(
        dict(
            type="mmseg.EncoderDecoder",
            backbone=dict(type="mmseg.ResNet", depth=18, base_channels=8, norm_cfg=dict(type="BN")),
            decode_head=config(),
            test_cfg=ConfigDict(test_cfg),
        )
    )
    images, labels = torch.randn(2, 3, 97, 130), make_labels(104, 136)[:, :97, :130]
    samples = [make_sample(x, img_path="x", ori_shape=(97, 130), img_shape=(97, 130)) for x in labels]
    losses = model.train().loss(images, samples)
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert {"decode.loss_mask", "decode.loss_dice", "decode.loss_div", "decode.loss_ce"} < set(losses)
    predicted = model.eval().predict(images, samples)
    assert [sample.pred_sem_seg.data.shape for sample in predicted] == [(1, 97, 130)] * 2


def test_autocast__answers_in_float32():
    head = build_head()
    with torch.autocast("cpu", torch.bfloat16):
        said = head.describe(make_maps())
        losses = head.loss(make_maps(), make_samples(make_labels()))
    assert said.logits.dtype == torch.float32
    assert all(value.isfinite().all() for value in losses.values())


def test_deep_copy__is_independent():
    head, maps = build_head().eval(), make_maps()
    before, twin = head(maps), copy.deepcopy(head)
    with torch.no_grad():
        twin.conv_seg.bias.add_(1)
    assert torch.equal(head(maps), before)
    torch.testing.assert_close(twin(maps), before + 1)


@pytest.mark.parametrize(
    ("width", "millions", "gigas"), [(96, 8.69, 89.8), (128, 9.89, 91.3), (192, 13.19, 95.2)], ids=["t", "b", "l"]
)
def test_size__by_hand(width, millions, gigas):
    """Behind Swin on 640×640 pixels of ADE20K, added up layer by layer without the products of attention."""
    channels = [width, 2 * width, 4 * width, 8 * width]
    with FakeTensorMode():
        head = MODELS.build(dict(type="mmseg_m2f.ExplicitClassHead", in_channels=channels, num_classes=150)).eval()
        maps = [torch.empty(1, x, 160 // 2**i, 160 // 2**i) for i, x in enumerate(channels)]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            head(maps)
    assert sum(p.numel() for p in head.parameters()) == pytest.approx(millions * 1e6, rel=5e-3)
    attention = 2 * 150 * 256 * sum((160 // 2**i) ** 2 for i in range(3))
    assert counter.get_total_flops() / 2 - attention == pytest.approx(gigas * 1e9, rel=5e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(attention=dict(attn_sign=0)), "attn_sign must be -1 or 1, got 0"),
        (dict(in_index=[0, 1]), r"decode_head.in_index: expected one index for each of in_channels .*, got \[0, 1\]"),
        (
            dict(attention=dict(num_heads=3)),
            "decode_head.attention.num_heads: expected a divisor of channels, .*, got 3",
        ),
        (dict(in_channels=[8]), r"in_channels: expected two maps or more, .* got \[8\]"),
    ],
)
def test_arguments__wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(config(**arguments))

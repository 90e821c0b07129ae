"""Results do not depend on the images beside them in a batch, nor on how far they are padded."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_m2f.config.load import load_config
from mmseg_m2f.models.segmentors import MaskDetector
from mmseg_m2f.models.segmentors.own_canvas import own_canvas, split_by_canvas

#: One of each pixel decoder and method.
LEAVES = [
    "mask2former_r18_shapes_debug",
    "mask2former_r18_shapes-panoptic_demo",
    "mask2former-hamburger_mscan_tiny_shapes_demo",
    "mask2former_coc_tiny_shapes_demo",
    "maskformer_r18_shapes_debug",
    "detr-tiny_r18_shapes_debug",
    "segvit_tiny_shapes_debug",
    "segvit-shrunk_tiny_shapes_demo",
    "eomt_tiny_shapes-panoptic_demo",
    "mask-dino_r18_shapes-panoptic_demo",
    "mask-dino_r18_shapes_demo",
    "pmt_tiny_shapes_demo",
]
#: Per-pixel heads, in mmseg's EncoderDecoder.
PER_PIXEL_LEAVES = [
    "segformer_r18_shapes_demo",
    "semantic-fpn_coc_tiny_shapes_debug",
    "ecenet_r18_shapes_debug",
    "cac-segnext_mscan_tiny_shapes_demo",
]
SIZES = [(64, 96), (40, 70), (96, 48)]


def build(name: str) -> nn.Module:
    cfg = load_config(name, {"pretrained": False})
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    model.data_preprocessor.test_cfg = dict(size_divisor=32)  # mmseg's
    model.data_preprocessor.pad_size_divisor = 32  # mmdet's
    if isinstance(model, MaskDetector):
        model.test_cfg.update(object_threshold=0.0, soft_masks=not model.test_cfg.panoptic)
    else:
        model.test_cfg.return_scores = True
    return model


def predict(model: nn.Module, images: list[Tensor]) -> list:
    """What a model predicts for a batch, padded to a multiple of 32 that all images fit into."""
    sample_type = DetDataSample if isinstance(model, MaskDetector) else SegDataSample
    sizes = [tuple(image.shape[1:]) for image in images]
    height, width = (-(-max(sides) // 32) * 32 for sides in zip(*sizes, strict=True))
    batch = torch.zeros(len(images), 3, height, width)
    samples = []
    for canvas, image, size in zip(batch, images, sizes, strict=True):
        canvas[:, : size[0], : size[1]] = image
        padding = (0, width - size[1], 0, height - size[0])
        samples.append(sample_type(metainfo=dict(img_shape=size, ori_shape=size, img_padding_size=padding)))
    return list(model.predict(batch, samples))


def build_per_pixel(name: str) -> nn.Module:
    cfg = load_config(name, {"pretrained": False})
    torch.manual_seed(0)
    return MODELS.build(cfg.model).eval()


def run_test_step(model: nn.Module, images: list[Tensor]) -> list:
    samples = [SegDataSample(metainfo=dict(img_shape=x.shape[1:], ori_shape=x.shape[1:])) for x in images]
    return model.test_step(dict(inputs=images, data_samples=samples))


@pytest.mark.parametrize("name", LEAVES)
def test_shells__batch_mates_change_nothing(name):
    model = build(name)
    images = [torch.randn(3, *size) for size in SIZES]
    for together, image in zip(predict(model, images), images, strict=True):
        (alone,) = predict(model, [image])
        if not isinstance(model, MaskDetector):
            torch.testing.assert_close(together.seg_logits.data, alone.seg_logits.data, atol=1e-4, rtol=0)
            continue
        found, expected = together.pred_instances, alone.pred_instances
        order, expected_order = found.scores.sort(stable=True).indices, expected.scores.sort(stable=True).indices
        torch.testing.assert_close(found.scores[order], expected.scores[expected_order], atol=1e-4, rtol=0)
        if "pred_panoptic_seg" in alone:
            same = together.pred_panoptic_seg.sem_seg == alone.pred_panoptic_seg.sem_seg
            assert same.float().mean() > 0.999


@pytest.mark.parametrize("name", PER_PIXEL_LEAVES)
def test_encoder_decoder__takes_images_of_one_size_and_batch_mates_change_nothing(name):
    model = build_per_pixel(name)
    images = [torch.randint(256, (3, 64, 96), dtype=torch.uint8) for _ in range(2)]
    for together, image in zip(run_test_step(model, images), images, strict=True):
        (alone,) = run_test_step(model, [image])
        torch.testing.assert_close(together.seg_logits.data, alone.seg_logits.data, atol=1e-4, rtol=0)
    with pytest.raises((AssertionError, RuntimeError), match="size"):
        run_test_step(model, [images[0], images[1][:, :40]])


@pytest.mark.parametrize("name", ["mask2former_r18_shapes_debug", "mask2former_r18_shapes-panoptic_demo"])
def test_shells__published_padding_on_request(name):
    model = build(name)
    images = [torch.randn(3, *size) for size in SIZES]
    model.test_cfg.keep_batch_padding = True
    together, (alone,) = predict(model, images)[1], predict(model, images[1:2])
    if isinstance(model, MaskDetector):
        difference = (together.pred_instances.scores.sort()[0] - alone.pred_instances.scores.sort()[0]).abs().max()
    else:
        difference = (together.seg_logits.data - alone.seg_logits.data).abs().max()
    assert difference > 1e-4


@pytest.mark.parametrize("canvas", [(60, 90), (64, 96), (128, 100)])
def test_mask_detector__further_padding_changes_nothing(canvas):
    model = build("mask2former_r18_shapes-panoptic_demo")
    torch.manual_seed(1)
    image = torch.randn(1, 3, 60, 90)
    padded = torch.zeros(1, 3, *canvas)
    padded[..., :60, :90] = image
    (found,) = model.predict(padded, [DetDataSample(metainfo=dict(img_shape=(60, 90), ori_shape=(60, 90)))])
    (expected,) = model.predict(image, [DetDataSample(metainfo=dict(img_shape=(60, 90), ori_shape=(60, 90)))])
    torch.testing.assert_close(found.pred_instances.scores, expected.pred_instances.scores, atol=1e-4, rtol=0)
    assert torch.equal(found.pred_panoptic_seg.sem_seg, expected.pred_panoptic_seg.sem_seg)


@pytest.mark.parametrize(
    ("settings", "canvas"),
    [
        (dict(), (60, 90)),
        (dict(pad_size_divisor=32), (64, 96)),
        (dict(test_cfg=dict(size_divisor=20)), (60, 100)),
        (dict(test_cfg=dict(size=(80, 80))), (80, 90)),
    ],
)
def test_own_canvas__as_the_preprocessor_pads(settings, canvas):
    preprocessor = nn.Identity()
    for name, value in settings.items():
        setattr(preprocessor, name, value)
    assert own_canvas((60, 90), preprocessor) == canvas


@pytest.mark.parametrize(
    "settings",
    [
        dict(type="mmseg.SegDataPreProcessor", test_cfg=dict(size_divisor=32)),
        dict(type="mmseg.SegDataPreProcessor", test_cfg=dict(size=(80, 120))),
        dict(type="mmseg.SegDataPreProcessor"),
        dict(type="mmdet.DetDataPreprocessor", pad_size_divisor=32),
    ],
)
def test_own_canvas__is_what_the_preprocessor_itself_pads_to(settings):
    preprocessor = MODELS.build(settings)
    image, sample = torch.zeros(3, 60, 90), BaseDataElement(metainfo=dict(img_shape=(60, 90), ori_shape=(60, 90)))
    padded = preprocessor(dict(inputs=[image], data_samples=[sample]), training=False)["inputs"]
    assert own_canvas((60, 90), preprocessor) == tuple(padded.shape[2:])


def test_split_by_canvas__nothing_is_copied_without_padding():
    images = torch.randn(2, 3, 60, 90)
    ((same, numbers),) = split_by_canvas(images, [(60, 90), (60, 90)], nn.Identity())
    assert same is images
    assert numbers == [0, 1]


def test_split_by_canvas__images_of_one_size_stay_together():
    images = torch.randn(3, 3, 64, 96)
    (first, one), (second, two) = split_by_canvas(images, [(64, 96), (40, 70), (64, 96)], nn.Identity())
    assert (one, two) == ([0, 2], [1])
    assert torch.equal(first, images[[0, 2]])
    assert torch.equal(second, images[1:2, :, :40, :70])

"""Equality with mmdet's DETR on the same random weights, with padding: outputs, losses, gradients, boxes."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData

from tests.parity.conftest import CONFIGS
from tests.random_weights import shake

pytestmark = pytest.mark.parity

CANVAS = (128, 160)
BACKBONE = dict(
    type="mmseg.ResNet",
    depth=18,
    out_indices=(3,),
    frozen_stages=1,
    norm_cfg=dict(type="BN", requires_grad=False),
    norm_eval=True,
)
#: mmdet's name of each part of our head.
PARTS = {
    "decode_head.pixel_decoder.input_proj.": "neck.convs.0.conv.",
    "decode_head.pixel_decoder.encoder.": "encoder.",
    "decode_head.query_decoder.transformer_decoder.": "decoder.",
    "decode_head.query_decoder.query_embed.": "query_embedding.",
    "decode_head.query_decoder.cls_embed.": "bbox_head.fc_cls.",
    "decode_head.query_decoder.box_embed.0.": "bbox_head.reg_ffn.layers.0.0.",
    "decode_head.query_decoder.box_embed.2.": "bbox_head.reg_ffn.layers.1.",
    "decode_head.query_decoder.box_embed.4.": "bbox_head.fc_reg.",
}


def their_name(name: str) -> str:
    start = next((start for start in PARTS if name.startswith(start)), "")
    return PARTS.get(start, start) + name.removeprefix(start)


@pytest.fixture(scope="module")
def twins():
    torch.manual_seed(0)
    path = Path(mmdet.__file__).parent / ".mim/configs/detr/detr_r50_8xb2-150e_coco.py"
    cfg = Config.fromfile(path).model
    cfg.update(type="mmdet.DETR", data_preprocessor=None, backbone=BACKBONE)
    cfg.neck.update(type="mmdet.ChannelMapper", in_channels=[512])
    cfg.bbox_head.type = "mmdet.DETRHead"
    with DefaultScope.overwrite_default_scope("mmdet"):
        theirs = MODELS.build(cfg)
    shake(theirs)
    cfg = Config.fromfile(CONFIGS / "_base_/models/detr.py").model
    cfg.update(backbone=BACKBONE, thing_classes=list(range(80)))
    cfg.test_cfg = dict(cfg.get("test_cfg", {}), keep_batch_padding=True)
    cfg.decode_head.num_classes = 80
    cfg.decode_head.criterion.reference = "mmdet"
    ours = MODELS.build(cfg)
    weights = theirs.state_dict()
    ours.load_state_dict({name: weights[their_name(name)] for name in ours.state_dict()})
    return theirs.eval(), ours.eval()  # dropout draws in another order


def make_batch() -> tuple[torch.Tensor, list[DetDataSample]]:
    """Two images that fill the canvas differently, the second without objects."""
    samples = []
    for size, num_objects in (((128, 120), 7), ((96, 160), 0)):
        sample = DetDataSample(
            metainfo=dict(
                img_shape=size,
                batch_input_shape=CANVAS,
                ori_shape=(size[0] * 2, size[1] * 2),
                scale_factor=(0.5, 0.5),
            )
        )
        corners = torch.rand(num_objects, 2, 2).sort(1).values.flatten(1)
        boxes = corners * torch.tensor([size[1], size[0]]).repeat(2)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(80, (num_objects,)))
        samples.append(sample)
    return torch.randn(2, 3, *CANVAS), samples


def test_mmdet_detr__losses_and_gradients(twins):
    images, samples = make_batch()
    results = []
    for model in twins:
        model.zero_grad(set_to_none=True)
        losses = {name: value for name, value in model.loss(images, samples).items() if "loss" in name}
        sum(losses.values()).backward()
        results.append({name: value.item() for name, value in losses.items()})
    assert len(results[0]) == 18
    assert results[1] == pytest.approx(results[0], rel=1e-4)
    theirs, ours = twins
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    gradients = {their_name(name): p.grad for name, p in ours.named_parameters() if p.requires_grad}
    assert gradients.keys() == expected.keys()
    difference = sum((gradients[name] - expected[name]).square().sum() for name in expected).sqrt()
    assert difference / sum(gradient.square().sum() for gradient in expected.values()).sqrt() < 1e-4


@pytest.mark.parametrize("rescale", [True, False])
def test_mmdet_detr__boxes(twins, rescale):
    theirs, ours = twins
    images, samples = make_batch()
    with torch.no_grad():
        expected = theirs.predict(images, [sample.clone() for sample in samples], rescale=rescale)
        actual = ours.predict(images, [sample.clone() for sample in samples], rescale=rescale)
    for found, reference in zip(actual, expected, strict=True):
        assert len(found.pred_instances) == 100
        torch.testing.assert_close(found.pred_instances.scores, reference.pred_instances.scores, rtol=0, atol=1e-5)
        assert torch.equal(found.pred_instances.labels, reference.pred_instances.labels)
        # In pixels, up to 320; relative to the image that is 1e-5.
        torch.testing.assert_close(found.pred_instances.bboxes, reference.pred_instances.bboxes, rtol=0, atol=3e-3)

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData

from mmseg_m2f.structures import Criterion, ExtraLoss
from tests.models.conftest import CONFIGS, NUM_CLASSES, make_batch


def test_mask_head__without_criterion_predicts_only(model_config):
    model_config.decode_head.criterion = None
    segmentor = MODELS.build(model_config)
    images, samples = make_batch()
    assert segmentor.eval().predict(images, samples)[0].pred_sem_seg.data.shape == (1, 64, 96)
    with pytest.raises(ValueError, match=r"decode_head.criterion is None"):
        segmentor.loss(images, samples)


def test_mask_head__class_loss_of_another_number_of_outputs(model_config):
    model_config.decode_head.criterion.loss_cls = dict(type="mmseg_m2f.ClassFocalLoss")
    message = r"loss_cls: expected a loss for the softmax of MaskedAttentionDecoder, .*ClassLoss, got ClassFocalLoss"
    with pytest.raises(ValueError, match=message):
        MODELS.build(model_config)
    model_config.decode_head.query_decoder = dict(type="mmseg_m2f.AnchorMaskDecoder", num_queries=5)
    model_config.decode_head.criterion.loss_cls = dict(type="mmseg_m2f.ClassLoss")
    with pytest.raises(ValueError, match=r"sigmoid of AnchorMaskDecoder, such as .*ClassFocalLoss, got ClassLoss"):
        MODELS.build(model_config)


def test_mask_head__checkpoint_of_another_class_count(segmentor, model_config):
    model_config.decode_head.num_classes = 9
    stored = MODELS.build(model_config).state_dict()
    message = r"class layer .* has 9 classes, but decode_head.num_classes is 5. Set num_classes=9 .*replace_classifier"
    with pytest.raises(ValueError, match=message):
        segmentor.load_state_dict(stored)


def test_mask_head__classifier_replaced_on_demand(model_config):
    model_config.decode_head.num_classes = 9
    stored = MODELS.build(model_config).state_dict()
    model_config.decode_head.update(num_classes=NUM_CLASSES, replace_classifier=True)
    segmentor = MODELS.build(model_config)
    fresh = segmentor.decode_head.query_decoder.cls_embed.weight.clone()
    segmentor.load_state_dict(stored)
    assert torch.equal(segmentor.decode_head.query_decoder.cls_embed.weight, fresh)
    query_feat = "decode_head.query_decoder.query_feat.weight"
    assert torch.equal(segmentor.state_dict()[query_feat], stored[query_feat])


class FirstMapLoss(torch.nn.Module):
    """The mean of the finest map times a factor."""

    def __init__(self, name: str, factor: float = 1.0) -> None:
        super().__init__()
        self.name, self.factor = name, factor

    def forward(self, features: list[torch.Tensor], targets: list) -> dict[str, torch.Tensor]:
        return {self.name: self.factor * features[0].mean()}


def test_mask_head__extra_losses(model_config):
    plain = MODELS.build(model_config)
    losses = [dict(type=FirstMapLoss, name="loss_a"), dict(type=FirstMapLoss, name="loss_b", factor=2.0)]
    model_config.decode_head.extra_losses = losses
    segmentor = MODELS.build(model_config)
    segmentor.load_state_dict(plain.state_dict())
    images, samples = make_batch()
    found, expected = [], []
    for model, results in ((segmentor, found), (plain, expected)):
        torch.manual_seed(0)
        results.append(model.loss(images, samples))
    mean = plain.extract_feat(images)[0].mean()
    assert found[0].pop("loss_a") == mean
    assert found[0].pop("loss_b") == 2 * mean
    assert found == expected
    assert isinstance(segmentor.decode_head.extra_losses[0], ExtraLoss)
    assert isinstance(segmentor.decode_head.criterion, Criterion)


def test_mask_head__feature_loss_is_the_former_name(model_config):
    model_config.decode_head.feature_loss = dict(type=FirstMapLoss, name="loss_a")
    with pytest.warns(FutureWarning, match=r"feature_loss=LOSS is now decode_head.extra_losses=\[LOSS\]"):
        segmentor = MODELS.build(model_config)
    assert "loss_a" in segmentor.loss(*make_batch())


def test_mask_head__query_decoder_that_reads_the_backbone(model_config):
    model_config.decode_head.query_decoder = dict(type="mmseg_m2f.AttentionToMaskDecoder")
    with pytest.raises(ValueError, match=r"\(AttentionToMaskDecoder\): expected a decoder of pixel features.*=None"):
        MODELS.build(model_config)


def test_mask_head__query_decoder_that_reads_pixel_features(model_config):
    model_config.decode_head.pixel_decoder = None
    with pytest.raises(ValueError, match=r"\(MaskedAttentionDecoder\): expected a decoder that reads the backbone"):
        MODELS.build(model_config)


@pytest.mark.parametrize("num_queries", [0, True, 2.0, None])
def test_mask_head__number_of_queries(model_config, num_queries):
    model_config.decode_head.query_decoder.num_queries = num_queries
    with pytest.raises(ValueError, match=rf"query_decoder.num_queries: expected .* at least 1, got {num_queries}"):
        MODELS.build(model_config)


@pytest.mark.parametrize(
    ("leaf", "losses"),
    [("maskformer/maskformer", ("loss_mask", "loss_dice")), ("detr/detr-tiny", ("loss_bbox", "loss_iou", "loss_dice"))],
)
def test_mask_head__without_objects_only_the_class_loss_is_left(leaf, losses):
    """As mmdet tests its heads: the losses of masks and boxes are 0 without an object, and above 0 with one."""
    cfg = Config.fromfile(CONFIGS / f"{leaf}_r18_shapes_debug.py").model
    cfg.backbone.base_channels = 8
    cfg.type, cfg.thing_classes = "mmseg_m2f.MaskDetector", [0, 1]
    model = MODELS.build(cfg)
    for num_objects in (0, 1):
        masks = np.zeros((num_objects, 64, 64), np.uint8)
        masks[:, 10:40, 20:50] = 1
        sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)))
        sample.gt_instances = InstanceData(
            labels=torch.zeros(num_objects, dtype=torch.long), masks=BitmapMasks(masks, 64, 64)
        )
        sample.gt_sem_seg = PixelData(sem_seg=torch.full((1, 64, 64), 255))
        found = model.loss(torch.randn(1, 3, 64, 64), [sample])
        assert all(value > 0 for name, value in found.items() if name.endswith("loss_cls"))
        for loss in losses:
            values = [value for name, value in found.items() if name.endswith(loss)]
            assert values
            assert all((value > 0) == bool(num_objects) for value in values)
        sum(found.values()).backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def results_of(model: torch.nn.Module, images: torch.Tensor, **test_cfg: object) -> torch.Tensor:
    model.test_cfg = test_cfg
    return model.encode_decode(images)


def test_shorten__all_layers_and_queries_change_nothing(segmentor):
    images, _ = make_batch()
    segmentor.eval()
    expected = results_of(segmentor, images)
    assert torch.equal(results_of(segmentor, images, layers=3, queries=20), expected)
    assert not torch.equal(results_of(segmentor, images, layers=2), expected)
    assert not torch.equal(results_of(segmentor, images, queries=10), expected)
    assert torch.equal(results_of(segmentor, images), expected)  # back to all


def test_shorten__one_layer_is_the_prediction_after_it(segmentor):
    images, _ = make_batch()
    segmentor.eval()
    segmentor.test_cfg = dict(layers=1)
    features = segmentor.extract_feat(images)
    (result,) = segmentor.decode_head(features, last_only=True)
    predictions = segmentor.decode_head(features)
    assert len(predictions) == 4  # training sees all layers
    assert torch.equal(result.class_logits, predictions[1].class_logits)
    assert segmentor.decode_head.graph_state() == (("num_layers", 1),)


@pytest.mark.parametrize(
    ("test_cfg", "message"),
    [
        (dict(layers=4), r"test_cfg\.layers: expected a whole number from 1 to 3, .* got 4"),
        (dict(layers=0), r"from 1 to 3"),
        (dict(queries=21), r"test_cfg\.queries: expected a whole number from 1 to 20"),
        (dict(queries=2.5), r"got 2\.5"),
        (dict(layers=True), r"got True"),
    ],
)
def test_shorten__refuses(segmentor, model_config, test_cfg, message):
    with pytest.raises(ValueError, match=message):
        segmentor.test_cfg = test_cfg
    assert segmentor.test_cfg.layers is None
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(model_config, test_cfg=test_cfg))


def test_shorten__decoders_without_layers_to_leave_out(model_config):
    model_config.decode_head.pixel_decoder = None
    model_config.decode_head.query_decoder = dict(type="mmseg_m2f.AttentionToMaskDecoder")
    model_config.decode_head.criterion = None
    model = MODELS.build(model_config)
    with pytest.raises(ValueError, match=r"layers of AttentionToMaskDecoder cannot be chosen"):
        model.test_cfg = dict(layers=1)

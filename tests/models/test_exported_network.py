from dataclasses import replace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS

from mmseg_m2f.models.exported_network import ExportedNetwork, StoredPrediction, use_exported
from mmseg_m2f.runtime import ExportedModel
from mmseg_m2f.structures import BoxPrediction
from tests.runtime.small_files import RECORD


class FakeFile(ExportedModel):
    """Stands for an `ExportedModel` that gives stored logits."""

    path = "model.onnx"

    outputs = ("class_logits", "mask_logits")

    def __init__(self, model, *, batch=None, output="logits"):
        self.model, self.record, self.calls = model, replace(RECORD, batch=batch, output=output), []

    @torch.no_grad()
    def __call__(self, images, valid=None):
        self.calls.append(images.shape)
        prediction = self.model.decode_head.predict(self.model.extract_feat(torch.from_numpy(images)))
        return dict(class_logits=prediction.class_logits.numpy(), mask_logits=prediction.mask_logits().numpy())


@pytest.mark.parametrize("batch", [None, 1])
def test_use_exported__predictions_stay_and_weights_go(model_config, batch):
    model_config.update(type="mmseg_m2f.MaskDetector", thing_classes=[0, 3], test_cfg=dict(object_threshold=0.0))
    original, model = (MODELS.build(model_config).eval() for _ in range(2))
    file = FakeFile(original, batch=batch)
    images = torch.randn(2, 3, 64, 96)
    metainfo = dict(img_shape=(64, 96), ori_shape=(32, 48))
    expected = original.predict(images, [DetDataSample(metainfo=metainfo) for _ in images])
    use_exported(model, file)
    found = model.predict(images, [DetDataSample(metainfo=metainfo) for _ in images])
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.pred_panoptic_seg.sem_seg, other.pred_panoptic_seg.sem_seg)
        torch.testing.assert_close(one.pred_instances.scores.sort()[0], other.pred_instances.scores.sort()[0])
    assert len(file.calls) == (1 if batch is None else 2)
    assert list(model.backbone.parameters()) == []


def test_use_exported__refuses_training_and_full_files(model_config):
    model = MODELS.build(model_config)
    with pytest.raises(ValueError, match="expected a file of logits, got one of full results"):
        use_exported(model, FakeFile(model, output="full"))
    use_exported(model, FakeFile(model))
    with pytest.raises(ValueError, match="got a training run"):
        model.loss(torch.zeros(1, 3, 32, 32), [])


def test_use_exported__refuses_images_that_are_normalised_otherwise(model_config):
    model_config.data_preprocessor = dict(type="mmseg.SegDataPreProcessor", mean=[1.0] * 3, std=[2.0] * 3)
    model = MODELS.build(model_config)
    file = FakeFile(model)
    file.record = replace(RECORD, mean=(1.0,) * 3, std=(3.0,) * 3, to_rgb=False)
    with pytest.raises(ValueError, match=r"normalisation of model.onnx, std=\(3.0, .*, got std=\(2.0, "):
        use_exported(model, file)
    file.record = replace(file.record, std=(2.0,) * 3)
    use_exported(model, file)


@pytest.mark.parametrize("outputs", [("scores",), ("class_logits",), ("labels", "mask_logits")])
def test_use_exported__refuses_files_of_other_kinds_of_models(model_config, outputs):
    model = MODELS.build(model_config)
    file = FakeFile(model)
    file.outputs = outputs
    with pytest.raises(ValueError, match=rf"expected .*class_logits.* for a MaskSegmentor, got {', '.join(outputs)}\."):
        use_exported(model, file)
    assert model.backbone.state_dict()


def test_use_exported__segmentors_of_mmseg_take_scores_alone():
    class EncoderDecoder(torch.nn.Module):
        data_preprocessor = None

        def encode_decode(self, inputs, batch_img_metas=None):
            raise AssertionError

    class Scores(FakeFile):
        outputs = ("scores",)

        def __call__(self, images, valid=None):
            return dict(scores=images)

    with pytest.raises(ValueError, match="expected .*scores for a EncoderDecoder, got class_logits, mask_logits"):
        use_exported(EncoderDecoder(), FakeFile(None))
    model = EncoderDecoder()
    use_exported(model, Scores(None))
    images = torch.rand(1, 3, 4, 4)
    assert torch.equal(model.encode_decode(images), images)


def test_exported_network__boxes_come_with_their_masks():
    found = dict(class_logits=torch.zeros(1, 2, 3), boxes=torch.rand(1, 2, 4), mask_logits=torch.randn(1, 2, 4, 4))

    class Boxes(FakeFile):
        def __call__(self, images, valid=None):
            return {name: value.numpy() for name, value in found.items()}

    prediction = ExportedNetwork(Boxes(None))(torch.nn.Module(), print, torch.zeros(1, 3, 8, 8), kind="last layer")
    assert isinstance(prediction, BoxPrediction)
    assert torch.equal(prediction.mask_logits(), found["mask_logits"])


def test_stored_prediction__gives_single_masks():
    masks = torch.randn(2, 3, 4, 4)
    prediction = StoredPrediction(torch.zeros(2, 3, 5), masks)
    images, queries = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    assert torch.equal(prediction.mask_logits_of(images, queries), torch.stack([masks[0, 2], masks[1, 0], masks[1, 1]]))

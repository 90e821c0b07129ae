"""Averaging over augmented views."""

from collections.abc import Sequence

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from mmseg_m2f.core.confidence import known_probs
from mmseg_m2f.models.segmentors.semantic_tta import SemanticTTA


class LeftRight(BaseModel):
    """Scores that depend on the column: not symmetric, unlike its average over flips."""

    test_cfg: dict | None = None

    def test_step(self, data: dict) -> list[SegDataSample]:
        return [self.predict(*pair) for pair in zip(data["inputs"], data["data_samples"], strict=True)]

    def predict(self, image: Tensor, sample: SegDataSample) -> SegDataSample:
        columns = torch.linspace(0.1, 1.7, image.shape[-1])
        scores = torch.cat([image * columns, image.square(), columns.expand_as(image) / 3])
        sample.seg_logits = PixelData(data=scores.flip(2) if sample.metainfo["flip"] else scores)
        return sample

    def forward(self, inputs: Tensor, data_samples: Sequence | None = None, mode: str = "tensor") -> None: ...


def views(image: Tensor) -> dict:
    """A batch of one image: as it is and flipped."""
    samples = [SegDataSample(metainfo=dict(flip=flip, img_path="a.png")) for flip in (False, True)]
    return dict(inputs=[[image], [image.flip(2)]], data_samples=[[sample] for sample in samples])


def test_semantic_tta__averages_without_softmax() -> None:
    image = torch.rand(1, 5, 6)
    merged = SemanticTTA(LeftRight()).test_step(views(image))
    columns = torch.linspace(0.1, 1.7, 6)
    expected = image[0] * (columns + columns.flip(0)) / 2
    assert torch.allclose(merged[0].seg_logits.data[0], expected)
    assert torch.equal(merged[0].pred_sem_seg.data, merged[0].seg_logits.data.argmax(0, keepdim=True))


def test_semantic_tta__is_flip_equivariant_to_the_last_bit() -> None:
    image = torch.rand(1, 5, 7)
    plain = SemanticTTA(LeftRight()).test_step(views(image))[0]
    flipped = SemanticTTA(LeftRight()).test_step(views(image.flip(2)))[0]
    assert torch.equal(plain.seg_logits.data.flip(2), flipped.seg_logits.data)
    assert torch.equal(plain.pred_sem_seg.data.flip(2), flipped.pred_sem_seg.data)


def test_semantic_tta__stays_equivariant_over_scales() -> None:
    def scores(order: Sequence[int]) -> Tensor:
        maps = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        samples = [SegDataSample(seg_logits=PixelData(data=maps[i])) for i in order]
        return SemanticTTA(LeftRight()).merge_preds([samples])[0].seg_logits.data

    assert torch.equal(scores([0, 1, 2, 3, 4, 5]), scores([1, 0, 3, 2, 5, 4]))


def test_semantic_tta__keeps_truth_and_switches_scores_on() -> None:
    model = LeftRight()
    model.test_cfg = dict(mode="slide")
    batch = views(torch.rand(1, 4, 4))
    batch["data_samples"][0][0].gt_sem_seg = PixelData(data=torch.ones(1, 4, 4))
    merged = SemanticTTA(model).test_step(batch)[0]
    assert merged.gt_sem_seg.data.sum() == 16
    assert merged.img_path == "a.png"
    assert dict(model.test_cfg) == dict(mode="slide", return_scores=True)


def test_semantic_tta__says_when_there_are_no_scores() -> None:
    with pytest.raises(ValueError, match=r"SemanticTTA, x.png: expected seg_logits.*return_scores=True"):
        SemanticTTA(LeftRight()).merge_preds([[SegDataSample(metainfo=dict(img_path="x.png"))]])


def test_semantic_tta__certainty_is_that_of_the_mean() -> None:
    model = LeftRight()
    model.test_cfg = dict(temperature=2.0)
    merged = SemanticTTA(model).test_step(views(torch.rand(1, 5, 6)))[0]
    probs = known_probs(merged.seg_logits.data[None], 2.0)[0]
    torch.testing.assert_close(merged.pred_certainty.confidence, probs[:-1].amax(0, keepdim=True))
    torch.testing.assert_close(merged.pred_certainty.unknown, probs[-1:])

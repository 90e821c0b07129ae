import pytest
import torch
from mmengine.structures import BaseDataElement

from mmseg_m2f.evaluation import MaskAP
from mmseg_m2f.evaluation.sample_fields import (
    check_sizes,
    class_names,
    describe_sample,
    has_parts,
    read_field,
    read_masks,
)


def test_class_names__of_the_dataset() -> None:
    metric = MaskAP()
    with pytest.raises(ValueError, match=r"MaskAP: expected class names in the dataset's metainfo, got"):
        class_names(metric)
    metric.dataset_meta = dict(classes=("a", "b"))
    assert class_names(metric) == ("a", "b")


def test_describe_sample__file_or_number() -> None:
    metric = MaskAP()
    assert describe_sample(metric, dict(img_path="a.jpg", seg_map_path="a.png")) == "MaskAP, a.jpg"
    assert describe_sample(metric, dict(seg_map_path="a.png")) == "MaskAP, a.png"
    assert describe_sample(metric, {}) == "MaskAP, sample 0"


def test_read_field__from_a_dict_or_an_object() -> None:
    labels = torch.tensor([1])
    for field in (dict(labels=labels), BaseDataElement(labels=labels)):
        assert read_field(dict(gt_instances=field), "gt_instances", ("labels",), where="x").labels is labels
        assert has_parts(dict(gt_instances=field), "gt_instances", ("labels",))
        assert not has_parts(dict(gt_instances=field), "gt_instances", ("labels", "masks"))
    assert not has_parts({}, "gt_instances", ())


def test_read_field__says_what_is_missing_and_what_to_do() -> None:
    with pytest.raises(
        ValueError, match=r"x: expected 'gt_sem_seg' in the sample, got \['img'\]. Load semantic labels"
    ):
        read_field(dict(img=1), "gt_sem_seg", where="x")
    with pytest.raises(
        ValueError, match=r"x: expected 'pred_instances' with labels, masks in the sample, got \['labels'\]"
    ):
        read_field(dict(pred_instances=dict(labels=1)), "pred_instances", ("labels", "masks"), where="x")


def test_read_masks__as_booleans() -> None:
    objects = BaseDataElement(labels=torch.tensor([0]), masks=torch.tensor([[[0, 1]]]))
    assert read_masks(objects).tolist() == [[[False, True]]]


def test_check_sizes__names_both() -> None:
    check_sizes((2, 3), torch.Size((2, 3)), where="x")
    with pytest.raises(ValueError, match=r"x: expected a prediction of the annotation's size \(2, 4\), got \(2, 3\)"):
        check_sizes((2, 3), (2, 4), where="x")

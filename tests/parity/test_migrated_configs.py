"""Every Mask2Former and MaskFormer config that mmseg and mmdet ship: migrated, it predicts and trains as before.

Those that differ from others in the size of the backbone alone are `exhaustive`.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

import mmdet
import mmseg
import pytest
import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData
from mmseg.models.segmentors.base import BaseSegmentor
from mmseg.structures import SegDataSample

from mmseg_m2f.config.checks import check_config
from mmseg_m2f.config.initial_weights import drop_initial_weights
from mmseg_m2f.config.load import load_config
from mmseg_m2f.migration import migrate_config
from mmseg_m2f.models.segmentors import MaskSegmentor
from mmseg_m2f.structures import MaskPrediction
from tests.parity.test_mmdet import assert_same_instances
from tests.random_weights import shake

pytestmark = pytest.mark.parity

SHIPPED = sorted(
    path
    for library in (mmseg, mmdet)
    for method in ("mask2former", "maskformer")
    for path in (Path(library.__file__).parent / ".mim/configs" / method).glob("*.py")
)
VIDEO = sorted((Path(mmdet.__file__).parent / ".mim/configs/mask2former_vis").glob("*.py"))
LARGE = ("swin-l", "swin-b")
REPEATED = ("r101", "swin-s", "swin-l", "swin-b-p4-w12-384_8xb2")  # others have their heads, and their backbones' parts
SIZE, ORIGINAL_SIZE = (64, 96), (75, 100)


def as_parameter(path: Path) -> object:
    marks = [pytest.mark.slow] if any(name in path.stem for name in LARGE) else []
    marks += [pytest.mark.exhaustive] if any(name in path.stem for name in REPEATED) else []
    return pytest.param(path, id=f"{path.parts[-5]}-{path.stem}", marks=marks)


@pytest.fixture(autouse=True)
def free_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """The largest pair of models takes four gigabytes."""
    yield
    if request.node.get_closest_marker("slow"):
        gc.collect()


def test_shipped__all_are_found_and_listed():
    assert len(SHIPPED) == 30
    assert len(VIDEO) == 5
    listed = (Path(__file__).parents[2] / "docs/migrate.md").read_text()
    for path in (*SHIPPED, *VIDEO):
        assert f"| {path.parts[-5]} | `{path.parts[-2]}/{path.stem}` |" in listed


@pytest.mark.parametrize("path", [as_parameter(path) for path in SHIPPED])
def test_shipped__predicts_and_trains_as_before(path, tmp_path):
    migrate_config(path, tmp_path / "migrated.py")
    cfg = load_config(tmp_path / "migrated.py")
    check_config(cfg)
    drop_initial_weights(cfg.model)
    upstream = Config.fromfile(path)
    drop_initial_weights(upstream.model)
    with DefaultScope.overwrite_default_scope(upstream.default_scope):
        theirs = MODELS.build(upstream.model)
        expected = settings(theirs, upstream.optim_wrapper)
    image = torch.randn(1, 3, *SIZE)
    randomize(theirs.eval(), image)
    ours = MODELS.build(cfg.model)
    ours.load_state_dict(theirs.state_dict())
    assert settings(ours, cfg.optim_wrapper) == expected
    theirs, ours, image = theirs.double(), ours.eval().double(), image.double()
    if isinstance(ours, MaskSegmentor):
        compare_label_maps(theirs, ours, image)
    else:
        compare_network(theirs, ours, image)
        compare_results(theirs, ours)


@pytest.mark.parametrize("path", VIDEO, ids=lambda path: path.stem)
def test_shipped__videos_are_refused(path, tmp_path):
    with pytest.raises(ValueError, match=r"'Mask2FormerVideo', which segments videos"):
        migrate_config(path, tmp_path / "migrated.py")
    assert not list(tmp_path.iterdir())


def settings(model: torch.nn.Module, wrapper: dict) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each trained parameter, by a name that upstream models and ours share."""
    groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    return {
        name.replace("query_decoder.", "").replace("panoptic_head.", "decode_head."): found[id(p)]
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def randomize(model: torch.nn.Module, image: torch.Tensor) -> None:
    """Weights as after some training: nothing at its special first value, queries sure of different classes."""
    shake(model)
    for name, parameter in model.named_parameters():
        if "relative_position_bias_table" in name:
            parameter.data.normal_()
    head = model.decode_head if hasattr(model, "decode_head") else model.panoptic_head
    if isinstance(model, BaseSegmentor):  # label maps with more than one class
        spread(head.mask_embed[-1], model, image)
    spread(head.cls_embed, model, image)


def spread(layer: torch.nn.Linear, model: torch.nn.Module, image: torch.Tensor) -> None:
    """Give a layer's outputs mean 0 and standard deviation 3 over the last layer's queries of an image."""
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(0, -3)[-1]))
    predict(model, image)
    hook.remove()
    queries, weight = seen[-1], layer.weight.data
    weight *= 3 / (queries @ weight.T).std(0).unsqueeze(1)
    layer.bias.data = -weight @ queries.mean(0)


@torch.no_grad()
def predict(model: torch.nn.Module, image: torch.Tensor) -> BaseDataElement:
    metainfo = dict(img_shape=SIZE, ori_shape=ORIGINAL_SIZE, batch_input_shape=SIZE)
    sample_type = DetDataSample if isinstance(model, BaseDetector) else SegDataSample
    (sample,) = model.predict(image, [sample_type(metainfo=metainfo)])
    return sample


def compare_label_maps(theirs: torch.nn.Module, ours: torch.nn.Module, image: torch.Tensor) -> None:
    ours.test_cfg.return_scores = True
    expected, actual = (predict(model, image) for model in (theirs, ours))
    assert len(expected.pred_sem_seg.data.unique()) >= 3
    assert torch.equal(actual.pred_sem_seg.data, expected.pred_sem_seg.data)
    torch.testing.assert_close(actual.seg_logits.data, expected.seg_logits.data, rtol=0, atol=1e-5)


@torch.no_grad()
def compare_network(theirs: torch.nn.Module, ours: torch.nn.Module, image: torch.Tensor) -> None:
    """Class and mask logits of the last layer; mmdet's position encoding is computed in float32."""
    metainfo = dict(img_shape=SIZE, batch_input_shape=SIZE)
    classes, masks = theirs(image, [DetDataSample(metainfo=metainfo)])
    class_logits, mask_logits = ours(image, [DetDataSample(metainfo=metainfo)])
    assert len(classes[-1].argmax(-1).unique()) >= 10
    torch.testing.assert_close(class_logits, classes[-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(mask_logits, masks[-1], rtol=0, atol=1e-5)


def compare_results(theirs: torch.nn.Module, ours: torch.nn.Module) -> None:
    """What both make of the same logits, by their own `test_cfg`: sure classes and blobs, as trained models give."""
    num_queries = ours.decode_head.query_decoder.query_embed.num_embeddings
    masks = torch.nn.functional.interpolate(
        torch.randn(1, num_queries, 4, 6).double() * 6 - 9, (16, 24), mode="bicubic"
    )
    classes = torch.randn(1, num_queries, ours.decode_head.num_classes + 1).double() * 5
    classes[..., -1] += 10
    theirs.panoptic_head.forward = lambda *_: ([classes], [masks])
    given = MaskPrediction(classes, torch.eye(num_queries).double().unsqueeze(0), masks)
    ours.decode_head.predict = lambda *_: given
    expected, actual = (predict(model, torch.randn(1, 3, *SIZE).double()) for model in (theirs, ours))
    assert set(actual.keys()) == set(expected.keys())
    if "pred_panoptic_seg" in expected:
        panoptic = expected.pred_panoptic_seg.sem_seg
        assert len(panoptic.unique()) >= 3
        assert torch.equal(actual.pred_panoptic_seg.sem_seg, panoptic.long())
    if "pred_instances" in expected:
        assert len(expected.pred_instances) > 10
        assert_same_instances(actual.pred_instances, InstanceData(**expected.pred_instances))

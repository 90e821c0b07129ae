"""On a card nothing inside the network, and nothing of a prediction up to the result, reads back or uploads."""

import logging
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils._pytree import tree_leaves

from mmseg_m2f.core.chunks import ChunkBudget
from mmseg_m2f.models.cuda_graphs import GraphedNetwork
from mmseg_m2f.models.network import last_prediction, run_network
from tests.models.conftest import make_sample
from tests.models.on_a_device import Watch
from tests.models.test_cuda_graphs import RunsAgain


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in has none."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


CONFIGS = Path(__file__).parents[2] / "configs"
#: One leaf of each method that can be part of a CUDA graph.
RECORDED = [
    "mask2former/mask2former_r18_shapes_debug",
    "mask2former/mask2former_r18_shapes-panoptic_demo",
    "maskformer/maskformer_r18_shapes_debug",
    "detr/detr-tiny_r18_shapes_debug",
    "eomt/eomt_tiny_shapes_debug",
    "segvit/segvit_tiny_shapes_debug",
    "segvit/segvit-shrunk_tiny_shapes_demo",
    "segvit/segvit-continual_tiny_shapes-second_demo",
    "context_cluster/mask2former_coc_tiny_shapes_demo",
]
#: And of those that cannot, with the part that needs the host.
NOT_RECORDED = {
    "mask2former/mask2former-hamburger_mscan_tiny_shapes_demo": "SteadyNMF",
    "detr/detr-masks_r50_coco-panoptic-800_25e": "DetrMaskHead",
}


def build(leaf: str) -> nn.Module:
    """The model of a leaf, with random weights."""
    model = Config.fromfile(CONFIGS / f"{leaf}.py").model
    model.backbone.pop("init_cfg", None)
    if "pretrained" in model.backbone:
        model.backbone.pretrained = False
    return MODELS.build(model)


def samples_of(images: int, size: tuple[int, int]) -> list[BaseDataElement]:
    return [BaseDataElement(metainfo=dict(img_shape=size, ori_shape=size)) for _ in range(images)]


@pytest.mark.parametrize("leaf", RECORDED)
def test_network__neither_reads_back_nor_uploads(leaf):
    model = build(leaf).to("meta").train()
    images = torch.empty(2, 3, 64, 64, device="meta")
    with Watch() as training:
        predictions, _ = run_network(model, images)
        outputs = [x for x in tree_leaves(list(predictions)) if isinstance(x, torch.Tensor) and x.requires_grad]
        torch.autograd.grad(outputs, [p for p in model.parameters() if p.requires_grad], outputs, allow_unused=True)
    assert training.uploads == []
    with Watch() as answering, torch.no_grad():
        last_prediction(model.eval(), images)
    assert answering.uploads == []
    assert training.ops > answering.ops > 50


@pytest.mark.parametrize(("leaf", "part"), NOT_RECORDED.items())
def test_network__parts_that_need_the_host_run_as_usual(leaf, part, caplog):
    graphs = GraphedNetwork(recorder=RunsAgain())
    with caplog.at_level(logging.WARNING, logger="mmseg_m2f"):
        graphs(build(leaf), lambda images, _: images, torch.zeros(1, 3, 4, 4), None, kind="")
    assert f"{part} cannot be part of a CUDA graph" in caplog.text


def count_inference(model: nn.Module, images: int, size: tuple[int, int] = (64, 96)) -> Watch:
    inputs = torch.empty(images, 3, 64, 96, device="meta")
    with Watch() as watch:
        model.predict(inputs, samples_of(images, size))
    return watch


PREDICTING = {
    "semantic": dict(type="mmseg_m2f.MaskSegmentor"),
    "all of a detector": dict(
        type="mmseg_m2f.MaskDetector",
        thing_classes=[0, 3],
        test_cfg=dict(panoptic=True, instance=True, semantic=True, soft_masks=True),
    ),
}


@pytest.mark.parametrize("size", [(64, 96), (50, 61)])
@pytest.mark.parametrize("options", PREDICTING.values(), ids=list(PREDICTING))
def test_predict__no_read_back_no_upload_and_as_many_operators_for_any_batch(model_config, options, size):
    model = MODELS.build(ConfigDict(model_config, **options)).to("meta").eval()
    one, many = count_inference(model, 1, size), count_inference(model, 16, size)
    assert one.uploads == many.uploads == []
    assert many.ops <= 1.2 * one.ops


@pytest.mark.parametrize(("chunks", "most"), [("gpu", 5400), ("cpu", 5980)])
def test_training_step__operators(chunks, most, monkeypatch):
    """Of the published model, with chunks as large as on a card or as on a CPU."""
    monkeypatch.setattr(ChunkBudget, "fitting", lambda self, size, _: max(getattr(self, chunks) // max(size, 1), 1))
    model = build("mask2former/mask2former_r50_ade20k-512_160k").train()
    samples = [make_sample(torch.arange(10).repeat(7)[:64].expand(64, -1).contiguous()) for _ in range(2)]
    with Watch() as step:
        losses = model.loss(torch.randn(2, 3, 64, 64), samples)
        model.parse_losses(losses)[0].backward()
    assert 3000 < step.ops <= most  # and about 20 of the optimizer

"""DINO of mmdet beside Mask DINO: the same numbers, the same objects."""

from pathlib import Path

import pytest
import torch

from mmseg_m2f.benchmark.gate import check_equality
from mmseg_m2f.benchmark.implementations import MmdetDino, Ours, build, build_all
from mmseg_m2f.benchmark.measuring import Plan, measure
from mmseg_m2f.benchmark.setting import make_batch
from mmseg_m2f.benchmark.summary import table
from mmseg_m2f.benchmark.timing import run_inference, train_step
from tests.benchmark.tiny import ROOT, SETTING, write_mask_dino

BATCH = make_batch(SETTING, seed=0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ours, MmdetDino]:
    ours, dino = build_all([write_mask_dino(tmp_path_factory.mktemp("configs") / "masks.py"), "mmdet-dino"], SETTING)
    assert isinstance(ours, Ours)
    assert isinstance(dino, MmdetDino)
    return ours, dino


def test_mmdet_dino__takes_the_numbers_of_the_first(pair: tuple[Ours, MmdetDino]) -> None:
    _, dino = pair
    encoder, decoder, head = dino.model.encoder, dino.model.decoder, dino.model.bbox_head
    assert (len(encoder.layers), encoder.layers[0].ffn.feedforward_channels) == (1, 32)
    assert (len(decoder.layers), decoder.layers[0].ffn.feedforward_channels) == (2, 48)
    assert (dino.model.num_queries, head.num_classes, head.test_cfg.max_per_img) == (10, 5, 50)
    assert dino.model.backbone.frozen_stages == -1
    norms = [module for module in dino.model.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)


def test_mmdet_dino__each_layer_has_its_losses(pair: tuple[Ours, MmdetDino], tmp_path: Path) -> None:
    """Those of the chosen cells, of L = 2 layers (ours: also of the queries before them), and as many of copies."""
    without_masks = build(write_mask_dino(tmp_path / "boxes.py", masks=False), SETTING)
    counts = []
    for implementation in (*pair, without_masks):
        losses = implementation.losses(implementation.forward(BATCH), BATCH)
        assert all(value.dim() == 0 and value.isfinite() for value in losses.values())
        counts.append(len(losses))
    assert counts == [5 * (1 + 3 + 3), 3 * (1 + 2 + 2), 3 * (1 + 3 + 3)]


def test_mmdet_dino__decodes_as_many_copies_of_the_same_objects(pair: tuple[Ours, MmdetDino]) -> None:
    ours, dino = pair
    copies = ours.model.decode_head.query_decoder.denoising
    generator = dino.model.dn_query_generator
    targets = ours.forward(BATCH).targets
    assert targets is not None
    usual = copies.box_noise, generator.box_noise_scale
    copies.box_noise, generator.box_noise_scale = 0.0, 1e-9
    found = copies(targets).boxes
    _, box_logits, _, _ = generator(BATCH.objects)
    copies.box_noise, generator.box_noise_scale = usual
    assert found.shape == (2, 12, 4)
    torch.testing.assert_close(box_logits.sigmoid(), found, atol=1e-3, rtol=0)  # theirs are kept off 0 and 1


def test_mmdet_dino__learns_and_finds_objects(pair: tuple[Ours, MmdetDino]) -> None:
    _, dino = pair
    names = ("backbone.conv1", "encoder.layers.0.norms.0", "decoder.layers.1.cross_attn.value_proj", "memory_trans_fc")
    weights = [dino.model.get_parameter(f"{name}.weight") for name in names]
    before = [weight.detach().clone() for weight in weights]
    train_step(dino, BATCH, SETTING)
    assert not any(torch.equal(x, y) for x, y in zip(before, weights, strict=True))
    dino.model.eval()
    found = run_inference(dino, BATCH, SETTING)
    dino.model.zero_grad(set_to_none=True)
    dino.model.train()
    assert [len(objects) for objects in found] == [SETTING.queries * SETTING.classes] * 2
    assert all(0 <= objects.bboxes.min() <= objects.bboxes.max() <= SETTING.size for objects in found)


def test_mmdet_dino__is_measured_without_comparison(tmp_path: Path) -> None:
    names = [write_mask_dino(tmp_path / name, masks=name == "masks.py") for name in ("masks.py", "boxes.py")]
    names.append("mmdet-dino")
    assert [found.compared for found in check_equality(names, SETTING)] == [False, False]
    plan = Plan(names, [SETTING], what=["train", "inference", "ops"], rounds=2, even_if_loaded=True)
    report = measure(plan, tmp_path / "report.json", lambda _: None)
    ops = [report["results"][0]["ops"][name]["training"]["ops"] for name in names]
    assert ops[0] > ops[1]
    assert min(
        report["results"][0]["summary"]["ratios"]["mmdet-dino"][part]["median"] for part in ("step", "inference")
    )
    assert "mmdet-dino: not compared" in table(report)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (
            "mask_dino/mask-dino_r18_shapes-instance_demo",
            "with a backbone ResNet of depth 50, but .* has a TIMMBackbone",
        ),
        (
            "mask2former/mask2former_r50_coco-instance-1024_50e",
            "with a pixel_decoder .* has a DeformablePixelDecoder of 3 ",
        ),
    ],
)
def test_mmdet_dino__refuses_other_models(leaf: str, message: str) -> None:
    first = build(str(ROOT / f"configs/{leaf}.py"), SETTING)
    assert isinstance(first, Ours)
    with pytest.raises(ValueError, match=message):
        MmdetDino(first, SETTING)

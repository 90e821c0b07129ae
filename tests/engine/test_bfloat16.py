"""Training steps under autocast: what is computed in bfloat16, what is not, and how far results are from float32's."""

from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, build_optim_wrapper
from torch import Tensor, nn

from mmseg_m2f.core import losses, matching
from mmseg_m2f.engine import Bfloat16OptimWrapper
from mmseg_m2f.layers import deformable_attention
from mmseg_m2f.registry import MODELS
from tests.command_line import ROOT
from tests.models.conftest import NUM_CLASSES, make_batch


@pytest.fixture
def segmentor() -> nn.Module:
    cfg = Config.fromfile(ROOT / "configs/_base_/models/mask2former_tiny.py").model
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.criterion.sampling.num_points = 256
    cfg.backbone = dict(type="mmseg.ResNet", depth=18, base_channels=8, norm_cfg=dict(type="BN"), norm_eval=True)
    model = MODELS.build(cfg).train()
    for name, parameter in model.named_parameters():
        if "sampling_offsets" in name or "attention_weights" in name:  # they start at special values
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def autocast() -> AbstractContextManager:
    return torch.autocast("cpu", torch.bfloat16)


def test_bfloat16_optim_wrapper__five_steps(segmentor):
    wrapper = build_optim_wrapper(
        segmentor,
        dict(
            type="mmseg_m2f.Bfloat16OptimWrapper",
            optimizer=dict(type="mmengine.AdamW", lr=1e-3),
            clip_grad=dict(max_norm=1.0, norm_type=2),
        ),
    )
    outputs, totals, batch = [], [], make_batch()
    segmentor.backbone.layer1[0].conv1.register_forward_hook(lambda _, __, output: outputs.append(output.dtype))
    before = {name: parameter.clone() for name, parameter in segmentor.named_parameters()}
    for _ in range(5):
        with wrapper.optim_context(segmentor):
            found = segmentor.loss(*batch)
        total, _ = segmentor.parse_losses(found)
        wrapper.update_params(total)
        totals.append(total.item())
    assert outputs == [torch.bfloat16] * 5
    assert totals[-1] < totals[0] < float("inf")
    for name, parameter in segmentor.named_parameters():
        assert parameter.dtype == torch.float32
        assert not torch.equal(parameter, before[name]), name
        assert parameter.isfinite().all(), name


def test_bfloat16_optim_wrapper__state_is_the_usual_ones(segmentor, monkeypatch):
    """Runs may go on with a wrapper of another precision."""
    monkeypatch.setattr("mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available", lambda: True)
    optimizer = torch.optim.AdamW(segmentor.parameters())
    wrapper = Bfloat16OptimWrapper(optimizer)
    unscaled = AmpOptimWrapper(optimizer=optimizer, dtype="bfloat16", loss_scale=dict(enabled=False))
    unscaled.load_state_dict(wrapper.state_dict())
    wrapper.load_state_dict(unscaled.state_dict())
    assert unscaled.loss_scaler.scale(torch.ones(1)) == 1


def test_autocast__costs_losses_and_places_stay_float32(segmentor, monkeypatch):
    seen: dict[str, list[Tensor]] = {}

    def spy(module: ModuleType, name: str) -> None:
        usual = getattr(module, name)

        def watched(*args: object, **kwargs: object) -> object:
            result = usual(*args, **kwargs)
            seen.setdefault(name, []).extend(x for x in (*args, result) if isinstance(x, Tensor))
            return result

        monkeypatch.setattr(module, name, watched)

    costs = ["class_cost", "mask_bce_cost", "mask_dice_cost"]
    for name in costs:
        spy(matching, name)
    for name in ("class_loss", "mask_bce_loss", "mask_dice_loss"):
        spy(losses, name)
    spy(deformable_attention, "deformable_attention")
    batch = make_batch()
    segmentor.loss(*batch)
    points = seen.pop("deformable_attention")[1]
    seen.clear()
    with autocast():
        found = segmentor.loss(*batch)
    value, points_then, offsets, logits, _ = seen.pop("deformable_attention")[:5]
    assert value.dtype == offsets.dtype == logits.dtype == torch.bfloat16
    assert points_then.dtype == torch.float32
    assert torch.equal(points_then, points)
    assert seen.pop("class_loss")[-1].dtype == torch.float32  # converts the logits itself
    assert set(seen) == {*costs, "mask_bce_loss", "mask_dice_loss"}
    for name, tensors in seen.items():
        assert {x.dtype for x in tensors if x.is_floating_point()} == {torch.float32}, name
    assert {value.dtype for name, value in found.items() if "loss" in name} == {torch.float32}


def test_autocast__predictions_are_near_those_of_float32(segmentor, monkeypatch):
    """bfloat16 rounds to 0.4 %. Attention masks are forced equal: a bit flips where a logit is nearly zero."""
    decoder = segmentor.decode_head.query_decoder
    usual, recorded, flipped = decoder._may_attend, [], []

    def record(embeddings: Tensor, features: Tensor) -> Tensor:
        recorded.append(usual(embeddings, features))
        return recorded[-1]

    def force(embeddings: Tensor, features: Tensor) -> Tensor:
        forced = recorded.pop(0)
        flipped.append((usual(embeddings, features) != forced).float().mean())
        return forced

    images, _ = make_batch()
    predictions = []
    for replacement, context in [(record, nullcontext()), (force, autocast())]:
        monkeypatch.setattr(decoder, "_may_attend", replacement)
        with torch.no_grad(), context:
            predictions.append(segmentor.decode_head(segmentor.extract_feat(images)))
    for exact, rounded in zip(*predictions, strict=True):
        assert relative(rounded.class_logits, exact.class_logits) < 0.02
        assert relative(rounded.float().mask_logits(), exact.mask_logits()) < 0.03
    assert max(flipped) < 0.05


def test_autocast__losses_and_gradients_are_near_those_of_float32(segmentor):
    totals, gradients = [], []
    batch = make_batch()
    for context in (nullcontext(), autocast()):
        torch.manual_seed(1)
        segmentor.zero_grad()
        with context:
            found = segmentor.loss(*batch)
        total, _ = segmentor.parse_losses(found)
        total.backward()
        totals.append(total.item())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in segmentor.parameters()]))
    assert gradients[1].isfinite().all()
    assert totals[1] == pytest.approx(totals[0], rel=0.01)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.97


def relative(actual: Tensor, expected: Tensor) -> float:
    return ((actual.float() - expected).norm() / expected.norm()).item()

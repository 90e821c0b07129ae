import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from tests.models.conftest import make_batch

OPTIONS = dict(MD_S=2, MD_R=3, train_steps=1, eval_steps=2)


def build_head(type: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type=type,
            in_channels=[4, 4, 4],
            in_index=[0, 1, 2],
            channels=8,
            ham_channels=8,
            num_classes=5,
            dropout_ratio=0.0,
            ham_kwargs=OPTIONS,
            norm_cfg=dict(type="GN", num_groups=1),
            loss_decode=dict(type="mmseg.CrossEntropyLoss"),
        )
    )


def make_maps() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, 4, size, size, generator=generator) for size in (8, 4, 2)]


def run_with_seed(module: nn.Module, x: object, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return module(x)


def test_segnext_head__trains_as_mmsegs_does():
    ours, theirs = build_head("mmseg_m2f.SegNeXtHead").train(), build_head("mmseg.LightHamHead").train()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    maps, (_, samples) = make_maps(), make_batch((8, 8))
    for head in (ours, theirs):
        torch.manual_seed(3)
        head.loss(maps, samples, None)["loss_ce"].backward()
    for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, yours.grad)


@pytest.mark.parametrize("type", ["mmseg_m2f.SegNeXtHead", "mmseg.LightHamHead"])
def test_segnext_head__evaluation_depends_on_the_image_alone(type):
    head, maps = build_head(type).eval(), make_maps()
    first, second = (run_with_seed(head, maps, seed) for seed in (1, 2))
    assert torch.equal(first, second) == (type == "mmseg_m2f.SegNeXtHead")

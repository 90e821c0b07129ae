from pathlib import Path

import mmseg
import pytest
import torch
from torch import nn

from mmseg_m2f.analysis.part_costs import measure_network, measure_parts
from mmseg_m2f.config.load import load_config
from tests.analysis.leaves import LEAVES

SEGFORMER = Path(mmseg.__file__).parent / ".mim/configs/segformer"
WIDE = {"model.decode_head.channels": 768}  # the paper's head from B2 on; mmseg's configs have 256
#: Config, side of the image, published parameters (M) and multiply-adds (G; how they were counted), and a half of their
#: last digit. Mask2Former's model zoo; SegNeXt, table 5 (arXiv 2209.08575), whole numbers in its repository's README;
#: SegFormer, table 1a (arXiv 2105.15203), encoder and decoder together.
PUBLISHED = [
    ("mask2former_r50_ade20k-512_160k", 512, 44, 71, "fvcore", 0.5),
    ("segnext_mscan_t_ade20k-512_160k", 512, 4.3, 6.6, "fvcore", 0.05),
    (str(SEGFORMER / "segformer_mit-b0_8xb2-160k_ade20k-512x512.py"), 512, 3.8, 8.4, "products", 0.05),
    *(
        pytest.param(*row, marks=pytest.mark.exhaustive)
        for row in [
            ("mask2former_r101_ade20k-512_160k", 512, 63, 90, "fvcore", 0.5),
            ("mask2former_swin_t_ade20k-512_160k", 512, 47, 74, "fvcore", 0.5),
            ("mask2former_swin_s_ade20k-512_160k", 512, 69, 98, "fvcore", 0.5),
            ("mask2former_swin_b_ade20k-640_160k", 640, 107, 223, "fvcore", 0.5),
            ("mask2former_swin_l_ade20k-640_160k", 640, 216, 403, "fvcore", 0.5),
            ("segnext_mscan_s_ade20k-512_160k", 512, 13.9, 15.9, "fvcore", 0.05),
            ("segnext_mscan_b_ade20k-512_160k", 512, 27.6, 34.9, "fvcore", 0.05),
            ("segnext_mscan_l_ade20k-512_160k", 512, 48.9, 70.0, "fvcore", 0.05),
            (str(SEGFORMER / "segformer_mit-b1_8xb2-160k_ade20k-512x512.py"), 512, 13.7, 15.9, "products", 0.05),
            (str(SEGFORMER / "segformer_mit-b2_8xb2-160k_ade20k-512x512.py"), 512, 27.5, 62.4, "products", 0.05),
            (str(SEGFORMER / "segformer_mit-b3_8xb2-160k_ade20k-512x512.py"), 512, 47.3, 79.0, "products", 0.05),
            (str(SEGFORMER / "segformer_mit-b4_8xb2-160k_ade20k-512x512.py"), 512, 64.1, 95.7, "products", 0.05),
            (str(SEGFORMER / "segformer_mit-b5_8xb2-160k_ade20k-640x640.py"), 640, 84.7, 183.3, "products", 0.05),
        ]
    ),
]


class Small(nn.Module):
    """A backbone and a head with one decoder, called as shells call theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.decode_head = nn.Module()
        self.decode_head.pixel_decoder = nn.Conv2d(4, 2, 1, bias=False)
        self.decode_head.last = nn.Conv2d(2, 5, 1, bias=False)
        self.decode_head.forward = lambda x: self.decode_head.last(self.decode_head.pixel_decoder(x))
        self.auxiliary_head = nn.Linear(7, 1, bias=False)

    def forward(self, images: torch.Tensor, samples: list, mode: str) -> torch.Tensor:
        assert mode == "tensor"
        assert samples[0].img_shape == (6, 8)
        scores = self.decode_head.forward(self.backbone(images))
        return torch.einsum("bkhw,bchw->bkc", scores, images)


def test_measure_parts__equals_what_is_counted_by_hand() -> None:
    found = measure_parts(Small().eval(), torch.rand(1, 3, 6, 8), repeats=1)
    pixels = 48
    assert [(part.name, part.parameters, part.multiply_adds) for part in found.parts] == [
        ("backbone", 108, 108 * pixels),
        ("decode_head", 10, 10 * pixels),
        ("decode_head.pixel_decoder", 8, 8 * pixels),
        ("auxiliary_head", 7, 0),
        ("everything else", 0, 15 * pixels),
    ]
    assert (found.total.parameters, found.total.multiply_adds) == (133, (108 + 10 + 8 + 15) * pixels)
    memory = {part.name: part.peak_bytes for part in found.parts}
    assert memory["backbone"] == 4 * pixels * 4
    assert memory["decode_head.pixel_decoder"] == (4 + 2) * pixels * 4
    assert all(part.seconds >= 0 for part in found.parts)
    assert "decode_head.pixel_decoder" in found.text()


def test_measure_parts__leaves_the_model_as_it_was() -> None:
    model = Small().eval()
    before = {name: module.forward for name, module in model.named_modules() if "forward" in vars(module)}
    measure_parts(model, torch.rand(1, 3, 6, 8), repeats=1)
    assert {name: module.forward for name, module in model.named_modules() if "forward" in vars(module)} == before
    assert model.backbone.weight.requires_grad


@pytest.mark.parametrize("task", LEAVES)
def test_measure_network__parts_add_up_to_the_network(task: str) -> None:
    found = measure_network(load_config(LEAVES[task]), size=(64, 96), device="cpu", repeats=1)
    names = [part.name for part in found.parts]
    assert {"backbone", "decode_head.pixel_decoder", "decode_head.query_decoder", "everything else"} <= set(names)
    assert sum(part.parameters for part in found.parts) == found.total.parameters
    assert sum(part.multiply_adds for part in found.parts) == found.total.multiply_adds
    assert found.total.peak_bytes == max(part.peak_bytes for part in found.parts)
    assert found.published is not None
    assert found.published > found.total.multiply_adds


def test_measure_network__takes_the_crop_size_or_asks_for_one() -> None:
    cfg = load_config(LEAVES["semantic"])
    assert measure_network(cfg.copy(), device="cpu", repeats=1).size == (96, 96)
    cfg.pop("crop_size")
    cfg.model.data_preprocessor.pop("size")
    with pytest.raises(ValueError, match="Give --size HEIGHT WIDTH"):
        measure_network(cfg)


@pytest.mark.parametrize(("config", "side", "parameters", "multiply_adds", "counted", "rounding"), PUBLISHED)
def test_measure_network__published_ones_within_a_hundredth(
    config: str, side: int, parameters: float, multiply_adds: float, counted: str, rounding: float
) -> None:
    options = WIDE if any(f"mit-b{size}" in config for size in range(2, 6)) else {}
    found = measure_network(load_config(config, options), size=(side, side), device="meta", repeats=1)
    counts = dict(fvcore=found.published, products=found.total.multiply_adds)[counted]
    used = found.total.parameters - sum(part.parameters for part in found.parts if part.name == "auxiliary_head")
    assert counts / 1e9 == pytest.approx(multiply_adds, rel=0.01)
    assert used / 1e6 == pytest.approx(parameters, abs=max(rounding, 0.01 * parameters))

"""The forecast by hand, and beside the peak of a step of four images."""

import pytest
import torch
from mmengine.registry import DATASETS, MODELS
from torch import Tensor, nn

from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.doctor.memory_forecast import MemoryForecast, PeakMemory, forecast_memory


class Model(nn.Module):
    def __init__(self, *, with_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1000, 1000), nn.Tanh())
        self.norm = nn.BatchNorm1d(1000) if with_norm else nn.Identity()

    def data_preprocessor(self, batch: dict, training: bool) -> dict:
        return dict(inputs=torch.stack(batch["inputs"]), data_samples=batch["data_samples"])

    def forward(self, inputs: Tensor, data_samples: list, mode: str) -> Tensor:
        return self.norm(self.layers(inputs.flatten(0, 1))).square().sum()

    def parse_losses(self, loss: Tensor) -> tuple[Tensor, dict]:
        return loss, {}


def test_peak_memory__counts_what_lives_at_one_time() -> None:
    with PeakMemory() as memory:
        first = torch.ones(1000)
        second = first + 1
        del first
        third = second * 2
        third.add_(1)
    assert memory.peak == 2 * 4000
    assert third[0] == 5


def test_forecast__is_a_line_through_one_and_two_images() -> None:
    forecast = forecast_memory(Model(), dict(inputs=torch.zeros(5000, 1000), data_samples=None))
    image, weights = 4 * 5000 * 1000, 4 * 1001 * 1000
    assert forecast.per_image in range(3 * image, 7 * image, image)  # inputs, two results, their gradients
    assert 3 * weights <= forecast.fixed <= 4 * weights + 100_000
    assert forecast.total(3) == forecast.fixed + 3 * forecast.per_image
    assert "the tensors of a step of 3 images take about" in forecast.text(3)


def test_forecast__needs_two_images_where_one_is_refused() -> None:
    sample = dict(inputs=torch.zeros(1, 1000), data_samples=None)
    assert isinstance(forecast_memory(Model(with_norm=True), sample), MemoryForecast)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["mask2former_r18_shapes_demo", "segvit_tiny_shapes_debug"])
def test_forecast__is_near_the_peak_of_a_step_of_four_images(name: str) -> None:
    cfg = load_config(name)
    model, sample = MODELS.build(cfg.model), DATASETS.build(cfg.train_dataloader.dataset)[0]
    forecast = forecast_memory(model, sample)
    with PeakMemory() as memory:
        batch = dict(inputs=[sample["inputs"]] * 4, data_samples=[sample["data_samples"]] * 4)
        data = model.data_preprocessor(batch, True)
        model.parse_losses(model(**data, mode="loss"))[0].backward()
    held = sum(4 * p.numel() + 8 * p.numel() * p.requires_grad for p in model.parameters())
    assert forecast.total(4) - held == pytest.approx(memory.peak, rel=0.1)

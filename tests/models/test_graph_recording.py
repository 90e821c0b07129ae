import pytest
import torch
from torch import nn

from mmseg_m2f.models.cuda_graphs import GraphedNetwork
from mmseg_m2f.models.graph_recording import Recording, _growing_segments
from tests.models.test_cuda_graphs import RunsAgain


def record(layer: nn.Module, network, images: torch.Tensor) -> tuple[Recording, dict]:
    gradients: dict = {}
    return Recording(layer, network, images, None, list(layer.parameters()), RunsAgain(), gradients), gradients


def test_recording__replays_on_other_images():
    layer = nn.Conv2d(1, 1, 1)
    recording, gradients = record(layer, lambda x, _: {"out": layer(x), "none": None}, torch.zeros(1, 1, 2, 2))
    images = torch.rand(1, 1, 2, 2)
    recording.replay_forward(images, None)
    result = recording.rebuild(recording.outputs)
    assert result["none"] is None
    torch.testing.assert_close(result["out"], layer(images))
    weight, bias = recording.replay_backward([torch.ones(1, 1, 2, 2)])
    assert weight.item() == pytest.approx(images.sum().item())
    assert bias.item() == 4
    assert weight.data_ptr() == gradients[layer.weight].data_ptr()  # memory that all recordings share


def test_recording__parameters_that_are_kept_elsewhere_are_refused():
    layer = nn.Conv2d(1, 1, 1)
    kept = layer.weight  # the network reads this one, not its module's attribute
    with pytest.raises(ValueError, match=r"one of shape \(1, 1, 1, 1\) that is kept elsewhere"):
        record(layer, lambda x, _: x * kept.sum(), torch.zeros(1, 1, 2, 2))


def test_recording__a_network_that_gives_no_tensors():
    graphs = GraphedNetwork(recorder=RunsAgain())
    layer, images = nn.Linear(1, 1), torch.zeros(1, 3, 4, 4)
    graphs(layer, lambda x, _: (x, "text"), images, None, kind="")
    with pytest.raises(TypeError, match="gives tensors alone, got str"):
        graphs(layer, lambda x, _: (x, "text"), images, None, kind="")


@pytest.mark.parametrize("configured", [False, True])
def test_growing_segments__only_while_recording_and_never_over_the_user_s_settings(monkeypatch, configured):
    given: list[str] = []
    monkeypatch.setattr(torch.cuda.memory, "_set_allocator_settings", given.append)
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    if configured:
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    with _growing_segments():
        assert given == ([] if configured else ["expandable_segments:True"])
    assert given[1:] == ([] if configured else ["expandable_segments:False"])

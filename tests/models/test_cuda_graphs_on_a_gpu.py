"""Recorded networks against the same networks run as usual, where there is a GPU; elsewhere see test_cuda_graphs.py."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import Tensor, nn

from tests.models.conftest import make_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def build(config: ConfigDict, **options: object) -> tuple[nn.Module, nn.Module]:
    """A model with recordings and one without, of the same weights."""
    models = []
    for graphs in (True, False):
        torch.manual_seed(0)
        models.append(MODELS.build(ConfigDict(config, cuda_graphs=graphs, **options)).cuda().train())
    return models[0], models[1]


def batch_on_gpu(seed: int, **options: object) -> tuple[Tensor, list]:
    torch.manual_seed(seed)
    images, samples = make_batch(**options)
    return images.cuda(), [sample.to("cuda") for sample in samples]


def gradients(model: nn.Module, batch: tuple, *, dtype: torch.dtype | None) -> Tensor:
    """All losses and gradients in a row."""
    torch.manual_seed(1)
    with torch.autocast("cuda", dtype, enabled=dtype is not None):
        losses = model.loss(*batch)
    total, _ = model.parse_losses(losses)
    total.backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat([torch.stack(list(losses.values())).detach().float(), *grads])


def assert_close(actual: Tensor, expected: Tensor, limit: float) -> None:
    assert actual.isfinite().all()
    assert (actual - expected).norm() <= limit * expected.norm()


@pytest.mark.parametrize(("dtype", "limit"), [(None, 1e-4), (torch.bfloat16, 2e-2)])
def test_graphs__losses_and_gradients(model_config, dtype, limit):
    graphed, plain = build(model_config)
    for seed in range(4):
        for model in (graphed, plain):
            model.zero_grad(set_to_none=True)
        batch = batch_on_gpu(seed)
        assert_close(gradients(graphed, batch, dtype=dtype), gradients(plain, batch, dtype=dtype), limit)
    assert len(graphed.graphs._caches[True].recordings) == 1


def test_graphs__accumulated_gradients_and_optimizer_steps(model_config):
    graphed, plain = build(model_config)
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-3) for model in (graphed, plain)]
    for seed in range(6):
        batch = batch_on_gpu(seed)
        assert_close(gradients(graphed, batch, dtype=None), gradients(plain, batch, dtype=None), 1e-2)
        if seed % 2:
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            # Sums on a GPU differ in the last digit from run to run, which training amplifies: equalise the weights.
            with torch.no_grad():
                for weight, same in zip(graphed.parameters(), plain.parameters(), strict=True):
                    weight.copy_(same)


def test_graphs__statistics_of_norms(model_config):
    model_config.backbone.norm_eval = False
    graphed, plain = build(model_config)
    for seed in range(4):
        for model in (graphed, plain):
            model.zero_grad()
            gradients(model, batch_on_gpu(seed), dtype=None)
    for (name, actual), expected in zip(graphed.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("options", [{}, dict(type="mmseg_m2f.MaskDetector", thing_classes=[0, 3])])
def test_graphs__inference(model_config, options):
    graphed, plain = build(model_config, **options)
    for seed in range(4):
        images, samples = batch_on_gpu(seed, batch=3)
        found = [model.eval().predict(images, [sample.clone() for sample in samples]) for model in (graphed, plain)]
        for one, other in zip(*found, strict=True):
            for name in ("pred_sem_seg", "pred_panoptic_seg"):
                if name in one:
                    kind = "data" if name == "pred_sem_seg" and "data" in one.pred_sem_seg else "sem_seg"
                    maps = [getattr(sample.get(name), kind) for sample in (one, other)]
                    assert (maps[0] != maps[1]).float().mean() < 1e-3
    assert len(graphed.graphs._caches[False].recordings) == 1


def test_graphs__training_with_inference_between(model_config):
    graphed, plain = build(model_config)
    for seed in range(4):
        batch = batch_on_gpu(seed)
        for model in (graphed, plain):
            model.zero_grad()
        assert_close(gradients(graphed, batch, dtype=None), gradients(plain, batch, dtype=None), 1e-4)
        graphed.eval().predict(*batch)
        graphed.train()


def test_graphs__nothing_waits_for_the_device_in_inference(model_config):
    graphed, _ = build(model_config)
    graphed.eval()
    batches = [batch_on_gpu(seed) for seed in range(4)]
    for batch in batches[:3]:
        graphed.predict(*batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        graphed.predict(*batches[3])
    finally:
        torch.cuda.set_sync_debug_mode("default")

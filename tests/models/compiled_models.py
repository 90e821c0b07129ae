"""Run by `test_compilation.py`: what compiled models do, checked in a process whose annotations nobody checks.

Prints a JSON object: for each check an empty text, or why it failed. The checks of annotations that the tests switch on
wrap functions in code that the compiler cannot trace.
"""

import copy
import io
import json
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import mmseg_m2f

NUM_CLASSES = 5


class SmallBackbone(nn.Module):
    """Maps of strides 4 to 32 by a convolution and a frozen norm each."""

    def __init__(self) -> None:
        super().__init__()
        norm = dict(type="mmseg_m2f.FrozenBN")
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, s + 1, s, 1) for i, o, s in [(3, 8, 4), (8, 16, 2), (16, 16, 2), (16, 32, 2)]
        )
        self.norms = nn.ModuleList(MODELS.build(dict(norm, num_features=conv.out_channels)) for conv in self.convs)
        self.norms.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x)).relu()
            maps.append(x)
        return maps


def build(*, recompute: bool = False, detector: bool = False, **options: object) -> nn.Module:
    """A Mask2Former of one encoder layer and two decoder layers; the same weights each time."""
    cfg = Config.fromfile("configs/_base_/models/mask2former_tiny.py").model
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.pixel_decoder.update(num_layers=1, recompute=recompute)
    cfg.decode_head.query_decoder.num_layers = 2
    cfg.decode_head.criterion.sampling.num_points = 64
    if detector:
        cfg.update(type="mmseg_m2f.MaskDetector", thing_classes=[0, 3])
    torch.manual_seed(0)
    return MODELS.build(dict(cfg, **(dict(backbone=dict(type="SmallBackbone")) | options))).train()


def build_eomt(model_name: str, **options: object) -> nn.Module:
    """Three blocks of 32 channels, the last two with queries; the same weights each time."""
    cfg = Config.fromfile("configs/_base_/models/eomt_tiny.py").model
    cfg.decode_head.num_classes = NUM_CLASSES
    cfg.decode_head.criterion.sampling.num_points = 64
    cfg.backbone = dict(
        type="mmseg_m2f.TimmTokenStream",
        model_name=model_name,
        num_joint_blocks=2,
        img_size=(64, 64),
        model_options=dict(embed_dim=32, depth=3, num_heads=4, init_values=0.5),
    )
    torch.manual_seed(0)
    return MODELS.build(dict(cfg, **options)).train()


def make_batch(height: int, width: int) -> tuple[Tensor, list[SegDataSample]]:
    labels = torch.randint(NUM_CLASSES, (2, height // 8, width // 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label_map[None])) for label_map in labels]
    return torch.randn(2, 3, height, width), samples


def losses_and_gradients(
    model: nn.Module, batch: tuple, context: AbstractContextManager | None = None
) -> dict[str, Tensor]:
    torch.manual_seed(1)
    model.zero_grad()
    with context or nullcontext():
        losses = model.loss(*batch)
    total, _ = model.parse_losses(losses)
    total.backward()
    parameters = dict(model.named_parameters())
    return losses | {name: p.grad.clone() for name, p in parameters.items() if p.requires_grad}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], *, rtol: float = 1e-4) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        difference = (actual[name] - value).norm().item()
        assert difference <= rtol * (value.norm().item() + 1e-3), (name, difference, value.norm().item())


def check_training_step(backend: str) -> None:
    plain, compiled = build(), build(compile=dict(backend=backend, fullgraph=True))
    batch = make_batch(64, 96)
    assert_same(losses_and_gradients(compiled, batch), losses_and_gradients(plain, batch))


def check_sizes_compile_again_once() -> None:
    """Two graphs, backbone and head; the first other size compiles them for all sizes."""
    counter = CompileCounterWithBackend("eager")
    plain, compiled = build(), build(compile=dict(backend=counter, fullgraph=True))
    for size, graphs in [((64, 96), 2), ((64, 96), 2), ((96, 64), 4), ((128, 96), 4), ((64, 64), 4)]:
        batch = make_batch(*size)
        assert_same(losses_and_gradients(compiled, batch), losses_and_gradients(plain, batch))
        assert counter.frame_count == graphs, (size, counter.frame_count)


def check_static_sizes() -> None:
    counter = CompileCounterWithBackend("eager")
    plain, compiled = build(), build(compile=dict(backend=counter, fullgraph=True, dynamic=False))
    for size, graphs in [((64, 64), 2), ((96, 64), 4), ((64, 64), 4)]:
        batch = make_batch(*size)
        assert_same(losses_and_gradients(compiled, batch), losses_and_gradients(plain, batch))
        assert counter.frame_count == graphs, (size, counter.frame_count)


def check_prediction() -> None:
    counter = CompileCounterWithBackend("eager")
    plain, compiled = build().eval(), build(compile=dict(backend=counter, fullgraph=True)).eval()
    images, _ = make_batch(64, 96)
    torch.testing.assert_close(compiled.encode_decode(images), plain.encode_decode(images), rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 2


def check_layers_share_mask_features() -> None:
    """Else the criterion takes its slow way, layer by layer."""
    compiled = build(compile=dict(backend="eager", fullgraph=True))
    images, _ = make_batch(64, 64)
    predictions = compiled.decode_head(compiled.extract_feat(images))
    assert len(predictions) == 3
    assert all(prediction.mask_features is predictions[0].mask_features for prediction in predictions)


def check_recompute() -> None:
    plain = build(recompute=True)
    compiled = build(recompute=True, compile=dict(backend="aot_eager", fullgraph=True))
    batch = make_batch(64, 64)
    assert_same(losses_and_gradients(compiled, batch), losses_and_gradients(plain, batch))


def check_bfloat16() -> None:
    plain, compiled = build(), build(compile=dict(backend="eager", fullgraph=True))
    batch = make_batch(64, 64)
    steps = [losses_and_gradients(m, batch, torch.autocast("cpu", torch.bfloat16)) for m in (compiled, plain)]
    assert_same(*steps)


def check_detector() -> None:
    """Padding, and objects: what a segmentor has not."""
    counter = CompileCounterWithBackend("eager")
    plain = build(detector=True)
    compiled = build(detector=True, compile=dict(backend=counter, fullgraph=True))
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[0, 5:30, 8:40] = masks[1, 20:50, 50:80] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(60, 90), ori_shape=(30, 45)))
    sample.gt_instances = InstanceData(labels=torch.tensor([0, 3]), masks=BitmapMasks(masks.numpy(), 64, 96))
    sample.gt_sem_seg = PixelData(sem_seg=torch.full((1, 64, 96), 1))
    batch = (torch.randn(1, 3, 64, 96), [sample])
    assert_same(losses_and_gradients(compiled, batch), losses_and_gradients(plain, batch))
    assert counter.frame_count == 2
    results = [m.eval().predict(batch[0], [copy.deepcopy(sample)])[0] for m in (compiled, plain)]
    maps = [result.pred_panoptic_seg.sem_seg for result in results]
    assert torch.equal(*maps)


def check_masks_by_chance(model_name: str) -> None:
    """Graphs: the backbone, and the head where masks apply always, by chance and never, whatever the chance."""
    counter = CompileCounterWithBackend("eager")
    plain = build_eomt(model_name)
    compiled = build_eomt(model_name, compile=dict(backend=counter, fullgraph=True))
    batch = make_batch(64, 64)
    between = [((1 - step / 12, 1.0), 3) for step in range(1, 12)] + [((0.0, 1 - step / 12), 3) for step in range(12)]
    for probs, graphs in [((1.0, 1.0), 2), *between, ((0.0, 0.0), 4)]:
        for model in (compiled, plain):
            model.decode_head.query_decoder.set_attn_mask_probs(probs)
        assert_same(losses_and_gradients(compiled, batch), losses_and_gradients(plain, batch))
        assert counter.frame_count == graphs, (probs, counter.frame_count)


def check_checkpoint() -> None:
    """Weights of a compiled model are those of any other, and a model that has run takes new ones."""
    plain, compiled = build(), build(compile=dict(backend="eager", fullgraph=True))
    batch = make_batch(64, 64)
    losses_and_gradients(compiled, batch)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for parameter in compiled.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    file = io.BytesIO()
    torch.save(compiled.state_dict(), file)
    file.seek(0)
    plain.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert_same(losses_and_gradients(compiled, batch), losses_and_gradients(plain, batch))
    fresh = build()
    compiled.load_state_dict(fresh.state_dict(), strict=True)
    assert_same(losses_and_gradients(compiled, batch), losses_and_gradients(fresh, batch))


def check_copy() -> None:
    """A moving average of the weights copies the model."""
    compiled = build(compile=dict(backend="eager", fullgraph=True))
    batch = make_batch(64, 64)
    assert_same(losses_and_gradients(copy.deepcopy(compiled), batch), losses_and_gradients(compiled, batch))


def check_vision_transformer(**backbone: object) -> None:
    """The backbone stays one graph; the neck is another."""
    small = dict(embed_dim=32, depth=4, num_heads=4, init_values=0.5)
    settings = dict(model_name="vit_small_patch14_reg4_dinov2", img_size=(64, 64), model_options=small)
    options: dict[str, object] = dict(backbone=settings | backbone)
    if backbone["type"] == "mmseg_m2f.TimmPlainViT":
        options["neck"] = dict(type="mmseg_m2f.SimplePyramid", in_channels=32, channels=16)
    plain, compiled = build(**options), build(compile=dict(backend="eager", fullgraph=True), **options)
    for model in (plain, compiled):
        for name, parameter in model.named_parameters():
            if name.endswith(("lora_up", "gamma")):
                torch.nn.init.constant_(parameter, 0.1)
    batch = make_batch(64, 96)
    assert_same(losses_and_gradients(compiled, batch), losses_and_gradients(plain, batch))


def check_off() -> None:
    model = build(compile=False)
    assert all(module._compiled_call_impl is None for module in model.modules())


CHECKS: dict[str, Callable[[], None]] = dict(
    training_step_eager=lambda: check_training_step("eager"),
    training_step_aot_eager=lambda: check_training_step("aot_eager"),
    sizes_compile_again_once=check_sizes_compile_again_once,
    static_sizes=check_static_sizes,
    prediction=check_prediction,
    layers_share_mask_features=check_layers_share_mask_features,
    recompute=check_recompute,
    bfloat16=check_bfloat16,
    detector=check_detector,
    masks_by_chance=lambda: check_masks_by_chance("vit_small_patch14_reg4_dinov2"),
    masks_by_chance_with_rotation=lambda: check_masks_by_chance("vit_small_patch16_dinov3"),
    low_rank=lambda: check_vision_transformer(type="mmseg_m2f.TimmPlainViT", lora=dict(rank=2)),
    adapter=lambda: check_vision_transformer(type="mmseg_m2f.ViTAdapter"),
    checkpoint=check_checkpoint,
    copy=check_copy,
    off=check_off,
)


def main() -> None:
    assert mmseg_m2f
    torch.set_num_threads(1)
    MODELS.register_module(module=SmallBackbone)
    failures = {}
    for name in sys.argv[1:] or CHECKS:
        torch._dynamo.reset()
        torch.manual_seed(0)
        try:
            CHECKS[name]()
            failures[name] = ""
        except Exception:  # noqa: BLE001  (the test of that name tells it)
            failures[name] = traceback.format_exc()
    print(json.dumps(failures))


if __name__ == "__main__":
    main()

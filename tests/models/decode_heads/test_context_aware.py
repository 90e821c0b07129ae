"""The context-aware classifier around mmseg's heads."""

import copy
from collections.abc import Iterator

import mmengine.runner.checkpoint as checkpoint
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch.utils.flop_counter import FlopCounterMode

from tests.models.conftest import NUM_CLASSES, make_sample

BACKBONE = dict(type="mmseg.ResNet", depth=18, base_channels=8, norm_cfg=dict(type="BN"), norm_eval=True)
CHANNELS = [8, 16, 32, 64]
WIDTH = 16
COMMON = dict(channels=WIDTH, num_classes=NUM_CLASSES)
BN = dict(norm_cfg=dict(type="BN"))
ALL_LEVELS = dict(in_channels=CHANNELS, in_index=[0, 1, 2, 3])
LAST_LEVEL = dict(in_channels=64, in_index=3)
HOSTS = dict(
    fcn=dict(type="mmseg.FCNHead", **LAST_LEVEL, num_convs=1),
    psp=dict(type="mmseg.PSPHead", **LAST_LEVEL),
    uper=dict(type="mmseg.UPerHead", **ALL_LEVELS),
    sep_aspp=dict(type="mmseg.DepthwiseSeparableASPPHead", **LAST_LEVEL, c1_in_channels=8, c1_channels=8, **BN),
    aspp=dict(type="mmseg.ASPPHead", **LAST_LEVEL, dilations=(1, 2)),
    fpn=dict(type="mmseg.FPNHead", **ALL_LEVELS, feature_strides=[4, 8, 16, 32]),
    segformer=dict(type="mmseg.SegformerHead", **ALL_LEVELS, **BN),
    ham=dict(
        type="mmseg.LightHamHead",
        in_channels=CHANNELS[1:],
        in_index=[1, 2, 3],
        ham_channels=16,
        norm_cfg=dict(type="GN", num_groups=4),
    ),
    nl=dict(type="mmseg.NLHead", **LAST_LEVEL),
    cc=dict(type="mmseg.CCHead", **LAST_LEVEL),
    isa=dict(type="mmseg.ISAHead", **LAST_LEVEL, isa_channels=8, down_factor=(2, 2)),
    setr=dict(type="mmseg.SETRUPHead", **LAST_LEVEL, **BN),
    da=dict(type="mmseg.DAHead", **LAST_LEVEL, pam_channels=8),
    enc=dict(type="mmseg.EncHead", in_channels=[32, 64], in_index=[2, 3], num_codes=4),
)
ADDED = {"loss_vanilla", "loss_oracle", "loss_distill"}


@pytest.fixture(autouse=True)
def scope_of_hosts(default_scope: None) -> Iterator[None]:
    """mmseg's heads name their losses and norms without a scope."""
    with DefaultScope.overwrite_default_scope("mmseg"):
        yield


def host_config(name: str) -> dict:
    return dict(HOSTS[name], **COMMON)


def context_aware(name: str, **arguments: object) -> dict:
    return dict(type="mmseg_m2f.ContextAwareHead", host=host_config(name), **arguments)


def build_segmentor(decode_head: dict, **test_cfg: object) -> torch.nn.Module:
    config = dict(
        type="mmseg.EncoderDecoder", backbone=BACKBONE, decode_head=decode_head, test_cfg=dict(mode="whole", **test_cfg)
    )
    model = MODELS.build(ConfigDict(copy.deepcopy(config)))
    model.init_weights()
    return model


def build_head(name: str = "uper", **arguments: object) -> torch.nn.Module:
    head = MODELS.build(ConfigDict(copy.deepcopy(context_aware(name, **arguments))))
    head.init_weights()
    with torch.no_grad():
        head.conv_seg.weight.mul_(100)  # an estimate that differs from pixel to pixel
    return head


def make_maps(batch: int = 2) -> list[torch.Tensor]:
    return [torch.randn(batch, width, 16 // 2**level, 16 // 2**level) for level, width in enumerate(CHANNELS)]


def make_samples(labels: torch.Tensor) -> list:
    return [make_sample(x, ori_shape=(64, 64), img_shape=(64, 64)) for x in labels]


def blocks(batch: int = 2, classes: int = NUM_CLASSES) -> torch.Tensor:
    return torch.randint(classes, (batch, 8, 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)


def make_images(batch: int = 2) -> tuple[torch.Tensor, list]:
    return torch.randn(batch, 3, 64, 64), make_samples(blocks(batch))


def total(losses: dict) -> torch.Tensor:
    return sum(value for name, value in losses.items() if "loss" in name)


def gradient(loss: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor | None:
    return torch.autograd.grad(loss, parameter, allow_unused=True, retain_graph=True)[0]


@pytest.mark.parametrize("name", HOSTS)
def test_host__trains_and_predicts_through_one_line(name):
    bare, model = build_segmentor(host_config(name)), build_segmentor(context_aware(name))
    images, samples = make_images()
    bare_losses, losses = bare.train().loss(images, samples), model.train().loss(images, samples)
    assert set(losses) == set(bare_losses) | {f"decode.{added}" for added in ADDED}
    total(losses).backward()
    untrained = {
        key for key, p in model.decode_head.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    }
    assert untrained == set()
    bare_size, size = (sum(p.numel() for p in x.decode_head.parameters()) for x in (bare, model))
    assert size - bare_size == 3 * WIDTH**2 + 2 * WIDTH
    expected, (first, second) = bare.eval().predict(images, samples)[0], model.eval().predict(images, samples)
    assert first.seg_logits.data.shape == expected.seg_logits.data.shape == (NUM_CLASSES, 64, 64)
    assert second.pred_sem_seg.data.shape == expected.pred_sem_seg.data.shape


def test_init_cfg__is_the_hosts(tmp_path):
    """Random weights for the classifier, and a checkpoint of the bare host."""
    wide = dict(type="Normal", std=0.5, override=dict(name="conv_seg"))
    bare = MODELS.build(ConfigDict(host_config("fcn"), init_cfg=wide))
    bare.init_weights()
    assert bare.conv_seg.weight.std() > 0.3
    head = MODELS.build(ConfigDict(type="mmseg_m2f.ContextAwareHead", host=dict(host_config("fcn"), init_cfg=wide)))
    head.init_weights()
    assert head.conv_seg.weight.std() > 0.3
    torch.save(bare.state_dict(), tmp_path / "host.pth")
    stored = dict(type="Pretrained", checkpoint=str(tmp_path / "host.pth"))
    head = MODELS.build(ConfigDict(type="mmseg_m2f.ContextAwareHead", host=dict(host_config("fcn"), init_cfg=stored)))
    head.init_weights()
    assert torch.equal(head.conv_seg.weight, bare.conv_seg.weight)
    assert torch.equal(head.host.convs[0].conv.weight, bare.convs[0].conv.weight)


def test_host__that_reads_other_things_is_refused_before_it_is_built():
    with pytest.raises(ValueError, match=r"decode_head.host \(MaskHead\): expected a per-pixel head"):
        MODELS.build(dict(type="mmseg_m2f.ContextAwareHead", host=dict(type="mmseg_m2f.MaskHead", num_classes=5)))


def test_cascade__last_head_is_context_aware():
    first = dict(type="mmseg.FCNHead", **LAST_LEVEL, num_convs=1, **COMMON)
    last = dict(type="mmseg.OCRHead", **LAST_LEVEL, ocr_channels=8, **COMMON)
    config = dict(
        type="mmseg.CascadeEncoderDecoder",
        num_stages=2,
        backbone=BACKBONE,
        decode_head=[first, dict(type="mmseg_m2f.ContextAwareHead", host=last)],
        test_cfg=dict(mode="whole"),
    )
    model = MODELS.build(ConfigDict(config))
    images, samples = make_images()
    losses = model.train().loss(images, samples)
    assert {name for name in losses if name.startswith("decode_1.loss")} == {
        "decode_1.loss_ce",
        *(f"decode_1.{added}" for added in ADDED),
    }
    total(losses).backward()
    assert model.eval().predict(images, samples)[0].seg_logits.data.shape == (NUM_CLASSES, 64, 64)


def test_slide__windows_and_flips_of_mmseg_work():
    model = build_segmentor(context_aware("uper")).eval()
    model.test_cfg.update(mode="slide", crop_size=(32, 32), stride=(24, 24))
    images, samples = make_images(1)
    with torch.no_grad():
        whole = model.slide_inference(images, [sample.metainfo for sample in samples])
        window = model.encode_decode(images[..., :32, :32], [dict(img_shape=torch.Size((32, 32)))])
    assert whole.shape == (1, NUM_CLASSES, 64, 64)
    torch.testing.assert_close(whole[..., :24, :24], window[..., :24, :24])


def test_answer__equals_the_formula():
    head, maps = build_head().eval(), make_maps()
    features = head.host(maps)
    classes = head.conv_seg.weight.flatten(1)
    estimate = (torch.einsum("kc,bchw->bkhw", classes, features) + head.conv_seg.bias[:, None, None]).softmax(1)
    for image in range(2):
        pixels, weights = features[image].flatten(1), estimate[image].flatten(1)  # C N, K N
        prototypes = torch.stack([(weights[k] * pixels).sum(1) / weights[k].sum() for k in range(NUM_CLASSES)])
        hidden = (torch.cat([prototypes, classes], 1) @ head.proj[0].weight.T).clamp(min=0)
        vectors = hidden @ head.proj[2].weight.T + head.proj[2].bias
        cosines = F.cosine_similarity(pixels.T[:, None], vectors[None], dim=-1)  # N K
        torch.testing.assert_close(head(maps)[image].flatten(1), 15 * cosines.T, rtol=1e-4, atol=1e-4)


def test_gradient__flows_through_features_wherever_they_are_used():
    """As prototypes and as what is compared, of the answer and of the oracle: against formulas written out."""
    head, maps, labels = build_head(), make_maps(), blocks(classes=3)
    head.eval()
    found = [x.requires_grad_() for x in maps]
    losses = head.loss(found, make_samples(labels), None)
    features, classes = head.host(found), head.conv_seg.weight.flatten(1)
    probs = head.conv_seg(features).softmax(1)
    means = torch.einsum("bkhw,bchw->bkc", probs, features) / probs.sum((2, 3)).unsqueeze(-1)
    vectors = head.proj(torch.cat([means, classes.expand(2, -1, -1)], -1))
    answer = 15 * F.cosine_similarity(features.unsqueeze(1), vectors[..., None, None], dim=2)
    small = labels[:, ::4, ::4]
    prototypes = [features.movedim(1, -1)[small == k].mean(0) for k in range(3)]
    filled = torch.stack([*prototypes, *classes[3:].detach()])
    oracle = 15 * F.cosine_similarity(
        features.unsqueeze(1), head.apd_proj(torch.cat([filled, classes], 1))[None, :, :, None, None], dim=2
    )
    for name, logits, align_corners in (("loss_ce", answer, False), ("loss_oracle", oracle, True)):
        enlarged = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=align_corners)
        expected = torch.autograd.grad(F.cross_entropy(enlarged, labels), found, retain_graph=True)
        for ours, theirs in zip(torch.autograd.grad(losses[name], found, retain_graph=True), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-7)


def test_losses__label_beyond_the_classes_is_named():
    labels = blocks()
    labels[1, 3, 3] = 77
    with pytest.raises(ValueError, match=r"expected labels 0…4 or 255 \(ignored\), got \[77\]"):
        build_head().loss(make_maps(), make_samples(labels), None)


def test_losses__weights():
    maps, samples = make_maps(), make_samples(blocks())
    weights = dict(vanilla_loss_weight=3.0, oracle_loss_weight=5.0)
    torch.manual_seed(0)
    usual = build_head().eval().loss(maps, samples, None)
    torch.manual_seed(0)
    weighed = build_head(**weights).eval().loss(maps, samples, None)
    torch.testing.assert_close(weighed["loss_vanilla"], 3 * usual["loss_vanilla"])
    torch.testing.assert_close(weighed["loss_oracle"], 5 * usual["loss_oracle"])
    torch.testing.assert_close(weighed["loss_distill"], usual["loss_distill"])


@pytest.mark.parametrize("distill_size", ["features", "labels"])
def test_losses__equal_the_formulas(distill_size):
    paper = dict(type="mmseg_m2f.EntropyAwareDistillLoss", soft_weight=1.0)
    head, maps = build_head(loss_distill=paper, distill_size=distill_size), make_maps()
    labels = blocks(classes=3)  # two classes do not occur
    labels[0, :16] = 255
    head.eval()  # no dropout; batch norm as in the second run below
    losses = head.loss(maps, make_samples(labels), None)
    features, answer = head.host(maps), head(maps)
    classes = head.conv_seg.weight.flatten(1)
    small = labels[:, ::4, ::4]  # nearest
    prototypes = classes.clone()
    for k in range(3):
        prototypes[k] = features.movedim(1, -1)[small == k].mean(0)
    vectors = head.apd_proj(torch.cat([prototypes, classes], 1))
    oracle = 15 * F.cosine_similarity(features.unsqueeze(1), vectors[None, :, :, None, None], dim=2)
    expected = dict(loss_vanilla=head.conv_seg(features), loss_oracle=oracle)
    for name, logits in expected.items():
        enlarged = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=True)
        torch.testing.assert_close(losses[name], F.cross_entropy(enlarged, labels, ignore_index=255))
    enlarged = F.interpolate(answer, (64, 64), mode="bilinear", align_corners=False)
    known = (labels != 255).float().mean()  # mmseg's mean counts void pixels
    torch.testing.assert_close(losses["loss_ce"], F.cross_entropy(enlarged, labels, ignore_index=255) * known)
    student, where = answer, small
    if distill_size == "labels":
        oracle = F.interpolate(oracle, (64, 64), mode="bilinear", align_corners=False)
        student, where = enlarged, labels
    q = oracle.softmax(1)
    entropy = -(q * q.log()).sum(1)
    divergence = F.kl_div(student.log_softmax(1), q, reduction="none").sum(1)
    per_class = [
        (entropy * divergence)[where == k].sum() / entropy[where == k].sum() for k in range(3) if (where == k).any()
    ]
    torch.testing.assert_close(losses["loss_distill"], sum(per_class) / len(per_class), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("distill_size", ["features", "labels"])
def test_gradients__stop_where_they_should(distill_size):
    head, maps = build_head(distill_size=distill_size), make_maps()
    losses = head.loss(maps, make_samples(blocks(classes=2)), None)
    theta, oracle_theta = head.proj[0].weight, head.apd_proj[0].weight
    assert gradient(losses["loss_distill"], oracle_theta) is None
    assert gradient(losses["loss_distill"], theta).any()
    assert gradient(losses["loss_oracle"], theta) is None
    assert gradient(losses["loss_oracle"], oracle_theta).any()
    assert gradient(losses["loss_oracle"], head.conv_seg.weight).any()
    assert gradient(losses["loss_vanilla"], theta) is None
    bias = gradient(losses["loss_ce"], head.conv_seg.bias)  # reaches the answer through the estimate alone
    assert bias.any()


def test_gradients__filler_of_absent_classes_is_constant():
    """Cut the second half of the concatenation: nothing flows to the rows of absent classes."""
    head, maps = build_head(), make_maps()
    with torch.no_grad():
        head.apd_proj[0].weight[:, WIDTH:] = 0
    losses = head.loss(maps, make_samples(blocks(classes=2)), None)
    assert not gradient(losses["loss_oracle"], head.conv_seg.weight).any()


def test_void__crop_gives_finite_losses_with_graph():
    model = build_segmentor(context_aware("uper")).train()
    images, _ = make_images()
    losses = model.loss(images, make_samples(torch.full((2, 64, 64), 255)))
    assert all(losses[f"decode.{name}"].item() == 0 for name in ADDED)
    total(losses).backward()
    parameters = dict(model.decode_head.named_parameters())
    assert [name for name, p in parameters.items() if p.grad is None or not p.grad.isfinite().all()] == []
    assert not any(p.grad.any() for p in parameters.values())


def test_labels__beyond_the_classes_are_void():
    head, maps = build_head(), make_maps()
    labels = blocks()
    labels[:, :8] = 255
    dirty = labels.where(labels != 255, NUM_CLASSES + 3)
    head.eval()
    clean_losses = head._added_losses(head._classify(head.host(maps)), labels)
    dirty_losses = head._added_losses(head._classify(head.host(maps)), dirty)
    assert clean_losses == dirty_losses


def test_batch__order_does_not_matter():
    head, maps = build_head().eval(), make_maps(3)
    order = [2, 0, 1]
    torch.testing.assert_close(head([x[order] for x in maps]), head(maps)[order])


def test_distill_size__misspelt_is_refused():
    with pytest.raises(ValueError, match="distill_size must be 'features' or 'labels', got 'pixels'"):
        build_head(distill_size="pixels")


def test_dropout__not_in_the_features():
    head, maps = build_head(), make_maps()
    head.eval().dropout.train().p = 1.0  # drops all that the vanilla classifier sees
    (sample, *_) = make_samples(blocks())
    losses = head.loss([x[:1] for x in maps], [sample], None)
    head.dropout.eval()
    kept = head.loss([x[:1] for x in maps], [sample], None)
    assert losses["loss_vanilla"] != kept["loss_vanilla"]
    assert losses["loss_oracle"] == kept["loss_oracle"]


def test_autocast__classifies_in_float32():
    head, maps = build_head().eval(), make_maps()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(maps)
        losses = head.loss(maps, make_samples(blocks()), None)
    assert logits.dtype == torch.float32
    assert all(losses[name].dtype == torch.float32 and losses[name].isfinite() for name in ADDED)


def test_deep_copy__is_independent():
    head, maps = build_head().eval(), make_maps()
    before, twin = head(maps), copy.deepcopy(head)
    assert torch.equal(twin(maps), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(head(maps), before)
    assert not torch.equal(twin(maps), before)


def test_forward__two_evaluations_agree():
    head, maps = build_head().eval(), make_maps()
    assert torch.equal(head(maps), head(maps))


def test_checkpoint__of_the_bare_host_loads():
    bare, head = MODELS.build(host_config("uper")), build_head()
    missing, unexpected = head.load_state_dict(bare.state_dict(), strict=False)
    assert unexpected == []
    assert {key.split(".")[0] for key in missing} == {"proj", "apd_proj"}
    maps = make_maps()
    torch.testing.assert_close(head.conv_seg(head.eval().host(maps)), bare.eval()(maps))


def test_checkpoint__released_layout_and_own_layout_load(tmp_path):
    """The release keeps the projectors beside the host's layers."""
    model, other = build_segmentor(context_aware("uper")), build_segmentor(context_aware("uper"))
    released = {key.replace("decode_head.host.", "decode_head."): value for key, value in model.state_dict().items()}
    assert released.keys() != model.state_dict().keys()
    torch.save(dict(state_dict=released), tmp_path / "released.pth")
    checkpoint.load_checkpoint(other, str(tmp_path / "released.pth"), strict=True)
    assert all(torch.equal(x, y) for x, y in zip(other.state_dict().values(), model.state_dict().values(), strict=True))
    other.load_state_dict(model.state_dict())


def test_cost__as_published():
    """UPerNet with 512 channels on 512×512 pixels of ADE20K: 2.52 G + 0.06 G multiply-adds, half a million weights."""
    host = dict(type="mmseg.UPerHead", **ALL_LEVELS, channels=512, num_classes=150)
    head = MODELS.build(dict(type="mmseg_m2f.ContextAwareHead", host=host)).eval()

    def added(size: int) -> float:
        features = torch.randn(1, 512, size, size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            head._classify(features)
        return counter.get_total_flops() / 2 - 150 * 512 * size**2  # the host's own classifier

    per_image = 4 / 3 * added(8) - added(16) / 3
    assert (added(16) - per_image) * 64 == pytest.approx(2.52e9, rel=5e-3)  # 16×16 pixels instead of 128×128
    assert per_image == pytest.approx(0.06e9, rel=0.02)
    assert sum(p.numel() for p in head.proj.parameters()) == 393_728


def test_init__classifier_small_and_projectors_untouched():
    head = MODELS.build(context_aware("uper"))
    before = head.proj[0].weight.clone()
    head.init_weights()
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.3)
    assert not head.conv_seg.bias.any()
    assert torch.equal(head.proj[0].weight, before)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (
            dict(type="mmseg.SegmenterMaskTransformerHead", in_channels=8, num_layers=1, num_heads=1, embed_dims=8),
            r"decode_head.host \(SegmenterMaskTransformerHead\): expected a per-pixel head .*got none.*without Context",
        ),
        (dict(type="mmseg_m2f.ExplicitClassHead", in_channels=[8, 16]), r"\(ExplicitClassHead\).*more after its"),
        (
            dict(type="mmseg.FCNHead", in_channels=8, num_classes=2, out_channels=1, threshold=0.3),
            r"\(FCNHead\).*got one with 1 output for 2 classes.*num_classes=2 without",
        ),
        (context_aware("fcn"), r"\(ContextAwareHead\).*more after its classifier"),
    ],
)
def test_host__without_a_final_classifier(host, message):
    host = host if "host" in host else dict(COMMON, **host)
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type="mmseg_m2f.ContextAwareHead", host=host))

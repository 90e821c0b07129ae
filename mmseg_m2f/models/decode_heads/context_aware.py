"""Context-aware classifier: class vectors that the image itself refines.

Learning Context-Aware Classifier for Semantic Segmentation, arXiv 2303.11633.

Deviations from the released code:
- the logged distillation loss is a divergence: the entropy of its target, which has no gradient, is taken off;
- classifier, norms and sums run in float32 also under autocast, and norms are kept from zero;
- `distill_size="labels"` is ours;
- `DAHead` drops nothing before its two side classifiers, because the dropout before the last one is taken out.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmseg_m2f.core.class_context import (
    cosine_logits,
    enlarge_logits,
    label_prototypes,
    pixel_cross_entropy,
    shrink_labels,
    soft_prototypes,
)
from mmseg_m2f.errors import InvalidValueError
from mmseg_m2f.models.decode_heads.explicit_class import ExplicitClassHead
from mmseg_m2f.registry import MODELS
from mmseg_m2f.samples import present_classes


class _Classified(NamedTuple):
    """Features and logits of a map, before they are resized."""

    features: Float[Tensor, "B C H W"]  # before dropout
    vanilla: Float[Tensor, "B K H W"]  # logits of the host's classifier
    refined: Float[Tensor, "B K H W"]  # logits of the adapted classifier, the result


@MODELS.register_module()
class ContextAwareHead(BaseModule):
    """A per-pixel head of mmseg whose classifier adapts to each image.

    Around `mmseg.UPerHead`, `mmseg.DepthwiseSeparableASPPHead`, `mmseg.OCRHead` (last in a cascade),
    `mmseg.LightHamHead`: every head that ends in a 1×1 convolution `conv_seg` over features with `channels` channels.
    Its dropout, convolution and `init_cfg` move in here; the features between go through both classifiers. The answers
    are trained by the host's own losses, sampler and resizing. Checkpoints of the bare host and of the released code
    load.

    In training the losses `loss_vanilla` (the host's first answer), `loss_oracle` (class vectors made of the labels)
    and `loss_distill` are added to those of the host.

    Args:
        host: config of the head.
        temperature: largest possible logit.
        vanilla_loss_weight, oracle_loss_weight: of the mean cross-entropies of the two.
        loss_distill: `EntropyAwareDistillLoss` unless given.
        aux_align_corners: how `loss_vanilla` and `loss_oracle` enlarge logits.
        distill_size: where `loss_distill` compares the two: "features", on the head's map, each cell with its nearest
            label, as published; or "labels", after enlarging both as the host does, which spares boundaries where maps
            are coarse and costs memory like one more cross-entropy.

    Raises:
        ValueError: the host has no final classifier.
    """

    def __init__(
        self,
        host: ConfigDict | dict,
        *,
        temperature: float = 15.0,
        vanilla_loss_weight: float = 1.0,
        oracle_loss_weight: float = 1.0,
        loss_distill: ConfigDict | dict | None = None,
        aux_align_corners: bool = True,
        distill_size: str = "features",
    ) -> None:
        super().__init__()
        _check_host_type(host)
        self.host = MODELS.build(host)
        _check_host(self.host)
        self.init_cfg, self.host.init_cfg = self.host.init_cfg, None
        if distill_size not in ("features", "labels"):
            raise InvalidValueError(
                f"ContextAwareHead: distill_size must be 'features' or 'labels', got {distill_size!r}."
            )
        # Without classifier and dropout, the host answers with the features it would classify.
        self.conv_seg, self.host.conv_seg = self.host.conv_seg, nn.Identity()
        self.dropout, self.host.dropout = self.host.dropout or nn.Identity(), None
        channels = self.conv_seg.in_channels
        self.proj = _projector(channels)
        self.apd_proj = _projector(channels)  # for class vectors made of labels; not needed to predict
        self.loss_distill = MODELS.build(loss_distill or dict(type="mmseg_m2f.EntropyAwareDistillLoss"))
        self.temperature = temperature
        self.vanilla_loss_weight, self.oracle_loss_weight = vanilla_loss_weight, oracle_loss_weight
        self.aux_align_corners = aux_align_corners
        self.distill_enlarged = distill_size == "labels"
        # What mmseg's segmentors ask their head.
        self.num_classes, self.out_channels = self.host.num_classes, self.host.out_channels
        self.align_corners, self.threshold = self.host.align_corners, self.host.threshold
        self.register_load_state_dict_pre_hook(_adopt_host_keys)

    def forward(self, *inputs: Sequence[Tensor] | Tensor) -> Float[Tensor, "B K H W"]:
        """Logits at the resolution of the features, in [-temperature, temperature].

        Args:
            inputs: what the host takes: the backbone's maps, and in a cascade the previous head's logits.
        """
        features, _ = self._host_features(inputs)
        return self._classify(features).refined

    def loss(self, *args: object) -> dict[str, Tensor]:
        """Losses of the host on the refined logits, and the three added ones.

        Args:
            args: what mmseg gives the host: its inputs, the data samples, `train_cfg`.

        Raises:
            ValueError: a label is neither a class nor the ignore index; names the file and the label.
        """
        *inputs, data_samples, _ = args
        samples = cast(Sequence[BaseDataElement], data_samples)
        for sample in samples:
            present_classes(sample, self.num_classes, ignore_index=self.host.ignore_index)
        features, outputs = self._host_features(inputs)
        classified = self._classify(features)
        answers = [classified.refined if output is features else output for output in outputs]
        losses = dict(self.host.loss_by_feat(tuple(answers) if len(answers) > 1 else answers[0], samples))
        return losses | self._added_losses(classified, _stack_labels(samples, self.host.ignore_index))

    def predict(self, *args: object) -> Float[Tensor, "B K H W"]:
        """Logits at the size of the images.

        Args:
            args: what mmseg gives the host: its inputs, the images' metainfo, `test_cfg`.
        """
        *inputs, metainfo, _ = args
        return self.host.predict_by_feat(self(*inputs), metainfo)

    def _host_features(self, inputs: Sequence[object]) -> tuple[Float[Tensor, "B C H W"], list[Tensor]]:
        """What the host would classify, and all it answers, this included."""
        outputs = self.host(*inputs)
        outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
        channels = self.conv_seg.in_channels
        maps = [x for x in outputs if isinstance(x, Tensor) and x.dim() == 4 and x.shape[1] == channels]
        if not maps:
            raise InvalidValueError(
                f"ContextAwareHead, host {type(self.host).__name__}: expected it to give its conv_seg features of "
                f"{channels} channels and to answer with what comes out, got {[tuple(x.shape) for x in outputs]}. "
                "Use a head that classifies last, by self.cls_seg(features)."
            )
        return maps[0], outputs

    def _classify(self, features: Float[Tensor, "B C H W"]) -> _Classified:
        vanilla = self.conv_seg(self.dropout(features))
        with torch.autocast(features.device.type, enabled=False):
            vectors = self._refine(self.proj, soft_prototypes(features.float(), vanilla.float().softmax(1)))
            refined = cosine_logits(features.float(), vectors, self.temperature)
        return _Classified(features, vanilla, refined)

    def _added_losses(self, classified: _Classified, labels: Int[Tensor, "B H W"]) -> dict[str, Tensor]:
        features = classified.features.float()
        size = (features.shape[-2], features.shape[-1])
        small_labels = shrink_labels(labels, size)
        with torch.autocast(features.device.type, enabled=False):
            means, present = label_prototypes(features, small_labels, self.num_classes)
            prototypes = means.where(present.unsqueeze(-1), self._class_rows().detach())
            oracle = cosine_logits(features, self._refine(self.apd_proj, prototypes), self.temperature)
            vanilla_loss, oracle_loss = (
                pixel_cross_entropy(enlarge_logits(x, labels, align_corners=self.aux_align_corners), labels)
                for x in (classified.vanilla, oracle)
            )
        distill_loss = self.loss_distill(
            classified.refined,
            oracle,
            labels if self.distill_enlarged else small_labels,
            align_corners=self.align_corners,
        )
        return dict(
            loss_vanilla=self.vanilla_loss_weight * vanilla_loss,
            loss_oracle=self.oracle_loss_weight * oracle_loss,
            loss_distill=distill_loss,
        )

    def _refine(self, projector: nn.Module, prototypes: Float[Tensor, "A K C"]) -> Float[Tensor, "A K C"]:
        """Class vectors from what the image shows of a class and what training knows of it."""
        both = torch.cat([prototypes, self._class_rows().expand_as(prototypes)], -1)
        return projector(both.to(self.conv_seg.weight.dtype)).float()

    def _class_rows(self) -> Float[Tensor, "K C"]:
        return self.conv_seg.weight.flatten(1).float()


def _projector(channels: int) -> nn.Sequential:
    hidden = channels // 2
    return nn.Sequential(nn.Linear(2 * channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels))


def _stack_labels(samples: Sequence[BaseDataElement], ignore_index: int | None) -> Int[Tensor, "B H W"]:
    """Label maps of a batch, in which the ignore label is -1."""
    labels = torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in samples]).long()
    return labels if ignore_index is None else labels.masked_fill(labels == ignore_index, -1)


def _check_host_type(host: ConfigDict | dict) -> None:
    """Other kinds of heads may not even build here."""
    found = MODELS.get(host["type"]) if isinstance(host.get("type"), str) else host.get("type")
    if isinstance(found, type) and not (hasattr(found, "cls_seg") or issubclass(found, ContextAwareHead)):
        raise _wrong_host(found.__name__, "none")


def _check_host(host: nn.Module) -> None:
    name = type(host).__name__
    if isinstance(host, (ContextAwareHead, ExplicitClassHead)):
        raise _wrong_host(name, "one that does more after its classifier")
    if not isinstance(getattr(host, "conv_seg", None), nn.Conv2d):
        raise _wrong_host(name, "none")
    if host.out_channels != host.num_classes:
        raise _wrong_host(name, f"one with {host.out_channels} output for {host.num_classes} classes")


def _wrong_host(name: str, found: str) -> InvalidValueError:
    return InvalidValueError(
        f"decode_head.host ({name}): expected a per-pixel head of mmseg that ends in a 1×1 convolution `conv_seg` with "
        f"one output per class, got {found}. Take one such as mmseg.UPerHead (binary: num_classes=2 without "
        "out_channels=1), or use this head without ContextAwareHead."
    )


def _adopt_host_keys(head: ContextAwareHead, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Put what lies beside the classifier, as in mmseg's and the released checkpoints, into the host."""
    own = tuple(f"{prefix}{name}." for name, _ in head.named_children())
    for key in [key for key in state_dict if key.startswith(prefix) and not key.startswith(own)]:
        state_dict[f"{prefix}host.{key.removeprefix(prefix)}"] = state_dict.pop(key)

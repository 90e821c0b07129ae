"""Context-aware classifier (CAC): class vectors that depend on the image.

Learning Context-Aware Classifier for Semantic Segmentation, arXiv 2303.11633.

Deviations from the released code:
- the logged distillation loss is a divergence: the entropy of its target, which has no gradient, is subtracted;
- classifier, norms and sums run in float32 also under autocast, and norms are bounded away from 0;
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
    """A per-pixel head of mmseg with a classifier that adapts to each image.

    Features f (B C H W) of the host give the vanilla logits `w f + b` and probabilities p. With class prototypes
    `c_k = Σ_x p_kx f_x / Σ_x p_kx` of each image, the class vectors are `v_k = MLP([c_k, w_k])` and the result is
    `temperature · cos(f_x, v_k)`.

    The host is any head that ends in a 1×1 convolution `conv_seg` over `channels` channels, for example
    `mmseg.UPerHead`, `mmseg.DepthwiseSeparableASPPHead`, `mmseg.OCRHead` (last in a cascade), `SegNeXtHead`. Its
    dropout, convolution and `init_cfg` move to this module. The result is trained by the host's own losses, sampler and
    resizing. Checkpoints of the host alone and of the released code load.

    Training adds three losses to those of the host: `loss_vanilla` on the vanilla logits, `loss_oracle` on logits whose
    prototypes are means over the labelled pixels of a class in the batch, and `loss_distill` from these to the result.

    Args:
        host: config of the head.
        temperature: factor of the cosine, hence the largest possible logit.
        vanilla_loss_weight, oracle_loss_weight: of the mean cross-entropies of the two.
        loss_distill: `EntropyAwareDistillLoss` unless given.
        aux_align_corners: how `loss_vanilla` and `loss_oracle` enlarge logits.
        distill_size: resolution at which `loss_distill` compares logits: "features", that of the head's map, each cell
            with its nearest label, as published; or "labels", after enlarging both as the host does, which preserves
            boundaries of coarse maps and needs the memory of one more cross-entropy.

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
        # Without classifier and dropout, the host returns the features that it would classify.
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
        # mmseg's segmentors read these attributes of their head.
        self.num_classes, self.out_channels = self.host.num_classes, self.host.out_channels
        self.align_corners, self.threshold = self.host.align_corners, self.host.threshold
        self.register_load_state_dict_pre_hook(_adopt_host_keys)

    def forward(self, *inputs: Sequence[Tensor] | Tensor) -> Float[Tensor, "B K H W"]:
        """Logits at the resolution of the features, in [-temperature, temperature].

        Args:
            inputs: the inputs of the host: the backbone's maps, and in a cascade the previous head's logits.
        """
        features, _ = self._host_features(inputs)
        return self._classify(features).refined

    def loss(self, *args: object) -> dict[str, Tensor]:
        """Losses of the host on the refined logits, and the three added ones.

        Args:
            args: the arguments of the host's `loss`: its inputs, the data samples, `train_cfg`.

        Raises:
            ValueError: a label is neither a class nor the ignore index; names the file and the label.
        """
        *inputs, data_samples, _ = args
        samples = cast(Sequence[BaseDataElement], data_samples)
        for sample in samples:
            present_classes(sample, self.num_classes, ignore_index=self.host.ignore_index)
        features, outputs = self._host_features(inputs)
        classified = self._classify(features)
        results = [classified.refined if output is features else output for output in outputs]
        losses = dict(self.host.loss_by_feat(tuple(results) if len(results) > 1 else results[0], samples))
        return losses | self._added_losses(classified, _stack_labels(samples, self.host.ignore_index))

    def predict(self, *args: object) -> Float[Tensor, "B K H W"]:
        """Logits at the size of the images.

        Args:
            args: the arguments of the host's `predict`: its inputs, the images' metainfo, `test_cfg`.
        """
        *inputs, metainfo, _ = args
        return self.host.predict_by_feat(self(*inputs), metainfo)

    def _host_features(self, inputs: Sequence[object]) -> tuple[Float[Tensor, "B C H W"], list[Tensor]]:
        """The features that the host would classify, and all its outputs, these included."""
        outputs = self.host(*inputs)
        outputs = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
        channels = self.conv_seg.in_channels
        maps = [x for x in outputs if isinstance(x, Tensor) and x.dim() == 4 and x.shape[1] == channels]
        if not maps:
            raise InvalidValueError(
                f"ContextAwareHead, host {type(self.host).__name__}: expected it to give its conv_seg features of "
                f"{channels} channels and to return the result, got {[tuple(x.shape) for x in outputs]}. "
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

    def _refine(self, projector: nn.Module, prototypes: Float[Tensor, "B K C"]) -> Float[Tensor, "B K C"]:
        """Class vectors from prototypes of the image and the rows of the classifier."""
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
    """Refuse a head without `cls_seg` before building it, which may fail with another error."""
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
    """Move the host's weights to `host.`; mmseg's and the released checkpoints have them beside the classifier."""
    own = tuple(f"{prefix}{name}." for name, _ in head.named_children())
    for key in [key for key in state_dict if key.startswith(prefix) and not key.startswith(own)]:
        state_dict[f"{prefix}host.{key.removeprefix(prefix)}"] = state_dict.pop(key)

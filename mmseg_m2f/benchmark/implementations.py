"""Models that can be measured side by side, each trained and asked the way its own library does it.

`Ours` is built from a config of this package, `Upstream` is mmseg's Mask2Former from the config shipped with it,
`HuggingFace` the one of transformers. All give label maps at the size of the images. Gradients are clipped and
AdamW steps as each library's recipe has it: same rates and decay for the weight matrices, groups of its own.
"""

import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn

from mmseg_m2f.benchmark.setting import Batch, Setting
from mmseg_m2f.checkpoints.layouts import convert
from mmseg_m2f.compat import is_installed
from mmseg_m2f.engine.hooks import keep_norm_on_device
from mmseg_m2f.engine.launch import drop_initial_weights, load_config
from mmseg_m2f.samples import read_target

NAMES = ("ours", "mmseg", "huggingface")
#: Added to "ours" or to a config: with `model.compile=True`.
COMPILED = "+compile"
_OURS = Path(__file__).parents[2] / "configs/mask2former/mask2former_r50_ade20k-512_160k.py"
_UPSTREAM = ".mim/configs/mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py"

#: What a model returns in training; only its own implementation knows how to read it.
Outputs = Any
Weights = Mapping[str, Tensor]
Masks = list[Bool[Tensor, "B Q _"]]


class Layer(NamedTuple):
    """What one layer predicts."""

    class_logits: Float[Tensor, "B Q K1"]
    mask_logits: Float[Tensor, "B Q H W"]


@runtime_checkable
class Implementation(Protocol):
    """What the benchmark asks of a model."""

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Outputs:
        """The network in training, up to its predictions."""

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Targets from the label maps, matching, and all losses with their weights; the step minimises the sum."""

    def step(self) -> None:
        """Clip the gradients and update the weights."""

    def label_maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]]:
        """The answer at the size of the images; the model is in evaluation mode."""

    def layers(self, outputs: Outputs) -> list[Layer]:
        """What all supervised layers predict, the answer last."""

    def recorded_masks(self) -> AbstractContextManager[Masks]:
        """Collects where each decoder layer attends."""


class Ours:
    """A `MaskSegmentor` from a config, with the setting's numbers of queries, classes and points.

    Raises:
        ValueError: the config's model is no `MaskSegmentor`.
    """

    def __init__(self, name: str, config: str | Path, setting: Setting) -> None:
        cfg = load_config(config)
        if name.endswith(COMPILED):
            cfg.model.compile = True
        if cfg.model.type != "mmseg_m2f.MaskSegmentor":
            raise ValueError(
                f"{config}: expected model.type 'mmseg_m2f.MaskSegmentor', got {cfg.model.type!r}. The benchmark "
                "trains on label maps; give the config of a semantic segmentor."
            )
        drop_initial_weights(cfg)
        cfg.model.pop("data_preprocessor", None)  # images are normalised already
        head = cfg.model.decode_head
        head.num_classes = setting.classes
        head.query_decoder.num_queries = setting.queries
        if "num_points" in head.criterion.sampling:
            head.criterion.sampling.num_points = setting.points
        self.name = name
        self.model = MODELS.build(cfg.model)
        self.model.init_weights()
        self.model.to(setting.device).train()
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        keep_norm_on_device(self.wrapper, lambda _: None)  # it is logged later, as losses are
        self.optimizer: torch.optim.Optimizer = self.wrapper.optimizer

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Outputs:
        return self.model.decode_head(self.model.extract_feat(images))

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        head = self.model.decode_head
        samples = make_samples(batch.label_maps)
        for sample, classes in zip(samples, batch.classes, strict=True):
            sample.set_metainfo(dict(present_classes=classes))  # as the data worker does
        targets = [read_target(sample, head.num_classes) for sample in samples]
        return _only_losses(head.criterion(outputs, targets))

    def step(self) -> None:
        self.wrapper.step()

    def label_maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]]:
        answers = self.model.predict(images, make_samples(images[:, 0]))
        return [sample.pred_sem_seg.data.squeeze(0) for sample in answers]

    def layers(self, outputs: Outputs) -> list[Layer]:
        return [Layer(prediction.class_logits, prediction.mask_logits()) for prediction in outputs]

    @contextmanager
    def recorded_masks(self) -> Iterator[Masks]:
        recorded: Masks = []

        def record(may_attend: Tensor, _: Tensor) -> Tensor:
            recorded.append(may_attend)
            return may_attend

        with self._masks_through(record):
            yield recorded

    @contextmanager
    def forced_masks(self, masks: Sequence[Bool[Tensor, "B Q _"]]) -> Iterator[list[Tensor]]:
        """Let the decoder attend where another did; collects the logits of the bits it would have set otherwise.

        A logit that is zero up to rounding falls on either side of zero in any two implementations, and one such bit
        moves all later predictions by about 1e-4.
        """
        remaining, ties = iter(masks), []

        def force(may_attend: Tensor, logits: Tensor) -> Tensor:
            forced = next(remaining)
            ties.append(logits[may_attend != forced])
            return forced

        with self._masks_through(force):
            yield ties

    @contextmanager
    def reference_numbers(self) -> Iterator[None]:
        """Draw random points in mmdet's order, and count what mmdet counts."""
        criterion = self.model.decode_head.criterion
        usual, criterion.reference = criterion.reference, "mmdet"
        try:
            yield
        finally:
            criterion.reference = usual

    @contextmanager
    def _masks_through(self, replace: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
        decoder = self.model.decode_head.query_decoder
        usual = getattr(decoder, "_may_attend", None)
        if usual is None:  # a decoder without masked attention
            yield
            return

        def may_attend(embeddings: Tensor, features: Tensor) -> Tensor:
            return replace(usual(embeddings, features), torch.bmm(embeddings, features))

        decoder._may_attend = may_attend
        try:
            yield
        finally:
            del decoder._may_attend


class Upstream:
    """mmseg's Mask2Former with R50, from the config that the installed package ships."""

    name = "mmseg"

    def __init__(self, weights: Weights, setting: Setting) -> None:
        cfg = _upstream_config()
        drop_initial_weights(cfg)
        model, head = cfg.model, cfg.model.decode_head
        model.backbone.update(norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True)
        model.pop("data_preprocessor")
        head.update(num_classes=setting.classes, num_queries=setting.queries)
        head.loss_cls.class_weight = [1.0] * setting.classes + [0.1]
        head.train_cfg.num_points = setting.points
        for part in (model, model.backbone, head):
            part.type = f"mmseg.{part.type}"
        self.model = MODELS.build(model)
        self.model.load_state_dict(convert(weights, to="mmseg").weights)
        self.model.to(setting.device).train()
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.optimizer: torch.optim.Optimizer = self.wrapper.optimizer

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Outputs:
        return self.model.decode_head(self.model.extract_feat(images), make_samples(images[:, 0]))

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        head = self.model.decode_head
        targets = head._seg_data_to_instance_data(make_samples(batch.label_maps))
        return _only_losses(head.loss_by_feat(*outputs, *targets))

    def step(self) -> None:
        self.wrapper.step()

    def label_maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]]:
        answers = self.model.predict(images, make_samples(images[:, 0]))
        return [sample.pred_sem_seg.data.squeeze(0) for sample in answers]

    def layers(self, outputs: Outputs) -> list[Layer]:
        return [Layer(*layer) for layer in zip(*outputs, strict=True)]

    def recorded_masks(self) -> AbstractContextManager[Masks]:
        layers = self.model.decode_head.transformer_decoder.layers
        return _recorded_masks(layers, "cross_attn_mask", self.model.decode_head.num_heads)


class HuggingFace:
    """The Mask2Former of transformers with its ResNet-50.

    Its own post-processing makes scores at 384² and resizes those. Here scores are made at the size of the images, by
    the same formula, so that all implementations answer the same question.
    """

    name = "huggingface"

    def __init__(self, weights: Weights, setting: Setting) -> None:
        from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig
        from transformers.utils.logging import set_verbosity_error

        set_verbosity_error()  # it warns that its ResNet is no Swin
        backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
        self.model = Mask2FormerForUniversalSegmentation(
            Mask2FormerConfig(
                backbone_config=backbone,
                num_labels=setting.classes,
                num_queries=setting.queries,
                train_num_points=setting.points,
                output_auxiliary_logits=True,
            )
        )
        converted = convert(weights, to="transformers").weights
        report = self.model.load_state_dict(converted, strict=False)
        # Counters of batches and the weight of "no object" are not in the files.
        missing = [name for name in report.missing_keys if name in dict(self.model.named_parameters())]
        assert not missing, missing
        assert not report.unexpected_keys, report.unexpected_keys
        norms = [module for module in self.model.modules() if isinstance(module, nn.BatchNorm2d)]
        self.model.to(setting.device).train()
        for norm in norms:
            norm.eval().requires_grad_(False)
            norm.train = lambda mode=True, norm=norm: norm  # type: ignore[method-assign,misc]  # as `norm_eval` does
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        matrices = [p for p in self.trained if p.dim() > 1]
        vectors = [p for p in self.trained if p.dim() <= 1]
        # What its Trainer sets up: two groups, and the fused kernel.
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            [dict(params=matrices, weight_decay=0.05), dict(params=vectors, weight_decay=0.0)], lr=1e-4, fused=True
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Outputs:
        return self.model(pixel_values=images)

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        classes = [label_map.unique() for label_map in batch.label_maps]
        masks = [(labels == c[:, None, None]).float() for labels, c in zip(batch.label_maps, classes, strict=True)]
        return self.model.get_loss_dict(
            masks_queries_logits=outputs.masks_queries_logits,
            class_queries_logits=outputs.class_queries_logits,
            mask_labels=masks,
            class_labels=classes,
            auxiliary_predictions=outputs.auxiliary_logits,
        )

    def step(self) -> None:
        nn.utils.clip_grad_norm_(self.trained, 0.01)
        self.optimizer.step()

    def label_maps(self, images: Float[Tensor, "B 3 H W"]) -> list[Int[Tensor, "H W"]]:
        outputs = self.model(pixel_values=images)
        class_probs = outputs.class_queries_logits.softmax(-1)[..., :-1]
        mask_logits = F.interpolate(outputs.masks_queries_logits, images.shape[-2:], mode="bilinear")
        scores = torch.einsum("bqk,bqhw->bkhw", class_probs, mask_logits.sigmoid())
        return list(scores.argmax(1))

    def layers(self, outputs: Outputs) -> list[Layer]:
        last = dict(
            class_queries_logits=outputs.class_queries_logits, masks_queries_logits=outputs.masks_queries_logits
        )
        layers = [*outputs.auxiliary_logits, last]
        return [Layer(layer["class_queries_logits"], layer["masks_queries_logits"]) for layer in layers]

    def recorded_masks(self) -> AbstractContextManager[Masks]:
        decoder = self.model.model.transformer_module.decoder
        return _recorded_masks(decoder.layers, "encoder_attention_mask", self.model.config.num_attention_heads)


def check_names(names: Sequence[str]) -> None:
    """Whether these can be compared: the first is ours, no two are the same, and all are installed.

    Raises:
        ValueError: they cannot.
        FileNotFoundError: a config, or the one that mmseg ships, is missing.
    """
    if not names or names[0] in NAMES[1:]:
        raise ValueError(
            f"implementations: expected 'ours' or a config of ours first, got {' '.join(names) or 'none'}. The others "
            "are compared with the first."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"implementations: expected each once, got {' '.join(names)}.")
    for name in names:
        if name == "mmseg":
            _upstream_config()
        elif name == "huggingface":
            if not is_installed("transformers"):
                raise ValueError(
                    "implementations: huggingface needs transformers. Install it: pip install transformers."
                )
        else:
            load_config(_config_of(name))


def build(name: str, setting: Setting, weights: Weights | None = None) -> Implementation:
    """An implementation of a name of `NAMES`, or of a config's path, in training mode.

    Args:
        weights: in our layout. They are given to mmseg's and Hugging Face's model, and to ours where the names and
            shapes are the same; otherwise a model of ours keeps its fresh weights. None for a fresh first one.
    """
    MMLogger.get_current_instance().setLevel(logging.ERROR)  # else it says how each parameter was initialised
    torch.manual_seed(0)
    if name in NAMES[1:]:
        weights = weights or build("ours", setting).model.state_dict()
        if name == "mmseg":
            return Upstream(weights, setting)
        return HuggingFace(weights, setting)
    ours = Ours(name, _config_of(name), setting)
    own = ours.model.state_dict()
    if weights is None:
        shake(ours.model)
    elif _shapes(own) == _shapes(weights):
        ours.model.load_state_dict(dict(weights))
    return ours


def build_all(names: Sequence[str], setting: Setting) -> list[Implementation]:
    """All implementations, with the weights of the first wherever they fit."""
    first = build(names[0], setting)
    weights = first.model.state_dict()
    return [first, *(build(name, setting, weights) for name in names[1:])]


def shake(model: nn.Module) -> None:
    """Make what starts at a special value (statistics, sampling offsets) random, so that an error there shows."""
    for name, parameter in model.named_parameters():
        if "sampling_offsets" in name or "attention_weights" in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)


def make_samples(label_maps: Tensor) -> list[BaseDataElement]:
    """Data samples whose labels are the given maps (B H W), of images without padding."""
    height, width = label_maps.shape[-2:]
    metainfo = dict(img_shape=(height, width), ori_shape=(height, width), pad_shape=(height, width))
    return [
        BaseDataElement(gt_sem_seg=PixelData(data=label_map.unsqueeze(0)), metainfo=metainfo)
        for label_map in label_maps
    ]


def _config_of(name: str) -> Path:
    source = name.removesuffix(COMPILED)
    return _OURS if source == "ours" else Path(source)


def _upstream_config() -> Config:
    spec = importlib.util.find_spec("mmseg")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [path for folder in folders if (path := Path(folder) / _UPSTREAM).is_file()]
    if not found:
        raise FileNotFoundError(
            f"mmseg: expected its config {_UPSTREAM} in {folders or 'an installed package'}, got none. Install "
            "mmsegmentation with its configs (pip does), or leave mmseg out."
        )
    return Config.fromfile(found[0], import_custom_modules=False)


def _only_losses(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What mmengine adds up to the total, each a number as it makes them."""
    return {name: value.mean() for name, value in named.items() if "loss" in name}


def _shapes(weights: Weights) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in weights.items()}


@contextmanager
def _recorded_masks(layers: nn.ModuleList, argument: str, num_heads: int) -> Iterator[Masks]:
    """Where decoder layers attend, from their argument that says per head (B·M Q N) where they must not."""
    recorded: Masks = []

    def record(_: nn.Module, __: tuple, kwargs: dict[str, Tensor]) -> None:
        recorded.append(~kwargs[argument].bool().unflatten(0, (-1, num_heads))[:, 0])

    hooks = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in layers]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()

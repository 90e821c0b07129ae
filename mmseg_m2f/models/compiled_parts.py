"""`torch.compile` for what a model computes from images to predictions."""

from collections.abc import Mapping

from torch import nn


def compile_parts(model: nn.Module, options: bool | Mapping[str, object]) -> None:
    """Compile backbone, neck and head of a model in place, if its config says so.

    Their inputs and outputs are tensors. Matching, losses and post-processing synchronise with the host; they are not
    part of the head's `forward` and are not compiled. mmengine's `compile` of the whole training step breaks into
    dozens of graphs there. Names of weights do not change, and copies of the model are not compiled.

    Compilation happens at the first call of each part, once for training and once for prediction, and again at the
    first image of another size, then for all sizes. Compiled matrix products are torch's, not those of
    `layers.matrix_products`.

    Args:
        options: arguments of `torch.compile`; True for its defaults, False to leave the model as it is.
    """
    if options is False:
        return
    for name in ("backbone", "neck", "decode_head"):
        part = getattr(model, name, None)
        if part is not None:
            part.compile(**({} if options is True else options))

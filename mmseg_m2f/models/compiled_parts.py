"""`torch.compile` for what a model computes from images to predictions."""

from collections.abc import Mapping

from torch import nn


def compile_parts(model: nn.Module, options: bool | Mapping[str, object]) -> None:
    """Compile backbone, neck and head of a model in place, if its config asks for it.

    These take tensors and give tensors. Matching, losses and post-processing, which wait for the host, are not part
    of the head's `forward` and stay as they are; mmengine's own `compile` of the whole training step falls into dozens
    of pieces there. Names of weights stay as they are, and copies of the model are not compiled.

    Nothing is compiled now: each part is at its first call, once for training and once for prediction, and again at
    the first image of another size, then for all sizes. Compiled products are torch's own, not those of
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

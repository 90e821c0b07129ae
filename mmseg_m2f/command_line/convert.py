"""Write the weights of a Mask2Former, its relatives or a DETR under the names that another library reads."""

from collections.abc import Sequence
from typing import get_args

from mmseg_m2f.checkpoints.class_order import ClassOrder
from mmseg_m2f.checkpoints.converting import convert_file
from mmseg_m2f.checkpoints.layouts import Layout
from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.errors import concise_errors

EXAMPLES = """examples:
  {run} model_final.pkl mask2former.pth --to ours
  {run} model.safetensors mask2former.pth --to mmdet
  {run} work_dirs/RUN/iter_80000.pth model.safetensors --to transformers
  {run} detr-r50.pth detr.pth --to ours --permute-classes coco-detection

layouts:
  ours               all four
  mmdet              Mask2Former, MaskFormer, DETR without mask head
  mmseg              Mask2Former, MaskFormer
  detectron2         Mask2Former, MaskFormer: the authors' files
  torchhub           DETR: the authors' files
  lightning          EoMT: the authors' files
  transformers       all four; Hugging Face's own ResNet, Swin and DINOv2
  transformers-timm  DETR with timm's ResNet, as Hugging Face published it first
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and convert."""
    parser = call.parser(__doc__, EXAMPLES)
    parser.add_argument("source", metavar="SRC", help="a .pth, .bin, .pkl or .safetensors file of any layout")
    parser.add_argument(
        "target",
        metavar="DST",
        help=".pth; for detectron2 .pkl, for lightning .bin or .pth, for transformers* .safetensors or .bin",
    )
    parser.add_argument("--to", required=True, choices=get_args(Layout), help="the layout to write")
    parser.add_argument(
        "--permute-classes",
        choices=get_args(ClassOrder),
        help="between OpenMMLab and the others, for models of this set: reorder the class layer's rows "
        "(ade20k-panoptic), or take the 80 that exist of the authors' 91 (coco-detection, to OpenMMLab only)",
    )
    args = parser.parse_args(arguments)
    with concise_errors():
        report = convert_file(args.source, args.target, to=args.to, class_order=args.permute_classes)
    layout, model = report.source
    print(f"{args.source}: {report.num_read} weights of a {model} in the layout of {layout}")
    but = ", less the dropped" if report.dropped else ""
    print(f"{args.target}: {report.num_written} weights in the layout of {args.to}, bit-equal on the way back{but}")
    print(f"dropped: {len(report.dropped)}")
    for name in report.dropped:
        print(f"  {name}")

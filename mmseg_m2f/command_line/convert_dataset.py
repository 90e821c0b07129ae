"""Write a data set of another format as label maps or objects that we read."""

from collections.abc import Sequence

from mmseg_m2f.command_line.arguments import Call
from mmseg_m2f.datasets.formats.conversion import FORMATS, TARGETS, convert_dataset
from mmseg_m2f.errors import concise_errors

EXAMPLES = """examples:
  {run} VOCdevkit/VOC2012 data/voc --from pascal-voc --to labels
  {run} cityscapes data/streets --from cityscapes --to objects
  {run} export data/mine --from cvat --to objects
  {run} photos data/mine --from labelme --to objects --classes cat,dog
  {run} yolo data/mine --from yolo --to objects
  {run} mine data/mine --from label-folder --to labels --labelmap mine/labelmap.txt

formats:
  cityscapes    leftImg8bit/ and gtFine/ with labelIds and instanceIds
  cvat          "segmentation mask": JPEGImages/, SegmentationClass/, SegmentationObject/, ImageSets/, labelmap.txt
  label-folder  images/ and masks/, with or without folders of splits; indices, or colours of a labelmap.txt
  labelme       a JSON file beside each image
  pascal-voc    as cvat, with indices of VOC's 21 classes
  yolo          data.yaml, images/ and labels/ with polygons
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and convert."""
    parser = call.parser(__doc__, EXAMPLES)
    parser.add_argument("source", metavar="SRC", help="the folder of the data set")
    parser.add_argument("target", metavar="DST", help="a new folder")
    parser.add_argument("--from", dest="format", required=True, choices=FORMATS, help="the format of SRC")
    parser.add_argument("--to", required=True, choices=TARGETS, help="label maps, or objects in COCO's JSON")
    parser.add_argument("--classes", default="", help="names in order, with commas between; label-folder, labelme")
    parser.add_argument("--labelmap", metavar="FILE", help="names and colours of label-folder: name:red,green,blue")
    args = parser.parse_args(arguments)
    with concise_errors():
        report = convert_dataset(
            args.source,
            args.target,
            format=args.format,
            to=args.to,
            classes=[name for name in args.classes.split(",") if name],
            labelmap=args.labelmap,
        )
    for split, number in report.images.items():
        objects = f", {report.objects[split]} objects" if args.to == "objects" else ""
        print(f"{args.target}, {split}: {number} images{objects}")
    print(f"classes: {', '.join(report.classes)}")
    print(f"for a leaf (docs/own_data.md):\n{report.data}")

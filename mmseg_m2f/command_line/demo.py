"""Serve a small web page to try a model on pictures; needs the extra `demo`."""

from collections.abc import Sequence

from mmseg_m2f.command_line.arguments import Call, add_config
from mmseg_m2f.engine.trained_model import find_trained
from mmseg_m2f.errors import concise_errors
from mmseg_m2f.inference.predictor import Predictor
from mmseg_m2f.inference.web_page import build_page

EXAMPLES = """examples:
  {run} CONFIG work_dirs/RUN/iter_80000.pth
  {run} CONFIG CHECKPOINT --examples photos/a.jpg photos/b.jpg --port 8080
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and serve until the user interrupts."""
    parser = call.parser(__doc__, EXAMPLES)
    add_config(parser, config_help="the config the checkpoint was trained with")
    parser.add_argument("checkpoint", help="a .pth file, or an exported one (.onnx, .xml, .pt2)")
    parser.add_argument("--device", help="as torch names it: cpu, cuda, cuda:1; default: the GPU if there is one")
    parser.add_argument("--examples", nargs="+", default=[], metavar="IMAGE", help="pictures to click on")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 for other machines")
    parser.add_argument("--port", type=int, default=7860, help="default %(default)s")
    args = parser.parse_args(arguments)
    with concise_errors():
        cfg, weights = find_trained(args.config, args.checkpoint, args.cfg_options)
        page = build_page(Predictor(cfg, weights, device=args.device), title=args.config, examples=args.examples)
    page.launch(server_name=args.host, server_port=args.port, share=False)

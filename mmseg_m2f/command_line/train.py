"""Train what a config describes."""

from collections.abc import Sequence

from mmseg_m2f.command_line.arguments import Call, add_config, add_launcher
from mmseg_m2f.config.load import load_config
from mmseg_m2f.engine.launch import train
from mmseg_m2f.engine.non_finite.stored_steps import replay_step
from mmseg_m2f.engine.ranks import warnings_of_first_rank
from mmseg_m2f.errors import InvalidValueError, concise_errors

EXAMPLES = """examples:
  {run} mask2former_r18_shapes_debug
  {run} CONFIG --cfg-options data_root=/data/ade backbone=swin_t train_dataloader.batch_size=4
  {run} CONFIG --resume
  {run} --replay work_dirs/RUN/non_finite_iter_1234.pth
  torchrun --nproc_per_node 8 {script} CONFIG --launcher pytorch
  srun -N 1 --ntasks-per-node 8 --gres gpu:8 {run} CONFIG --launcher slurm
"""


def main(arguments: Sequence[str] | None = None, *, call: Call) -> None:
    """Parse the command line and train."""
    parser = call.parser(__doc__, EXAMPLES)
    add_config(parser, config_help="a leaf of configs/, or a config of your own")
    parser.add_argument("--work-dir", help="folder of checkpoints and logs; default work_dirs/<config name>")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="CHECKPOINT",
        help="continue from the newest complete checkpoint of the work folder, or from the given one",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision: bfloat16; float16 on older GPUs")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the batch size, from the config's auto_scale_lr.base_batch_size",
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="repeat the step that a training stored when a number was not finite, and say where it arises; exit "
        "status 1 if it does; with CONFIG where the model has parts of your own",
    )
    add_launcher(parser)
    for action in parser._actions:
        if action.dest == "config":
            action.nargs = "?"  # --replay needs none
    args = parser.parse_args(arguments)
    with concise_errors(), warnings_of_first_rank(args.launcher):
        if args.replay is not None:
            if args.config is not None:
                load_config(args.config, args.cfg_options)  # imports its own parts
            found, lines = replay_step(args.replay)
            print("\n".join(lines))
            raise SystemExit(1 if found else 0)
        if args.config is None:
            raise InvalidValueError("config: expected a path or a name, got none. Give one, or --replay FILE.")
        train(
            args.config,
            args.cfg_options,
            work_dir=args.work_dir,
            resume=args.resume,
            amp=args.amp,
            auto_scale_lr=args.auto_scale_lr,
            launcher=args.launcher,
        )

"""mmengine's Runner, writing its files in one step."""

import os

from mmengine.dist import master_only
from mmengine.runner import Runner

from mmseg_m2f.files import replace_file


class SafeRunner(Runner):
    """mmengine's Runner, whose copy of the config in the work folder is never half written."""

    @master_only
    def dump_config(self) -> None:
        """Writes the config to the work folder."""
        name = f"{self.timestamp}.py" if self.cfg.filename is None else os.path.basename(self.cfg.filename)
        replace_file(os.path.join(self.work_dir, name), self.cfg.pretty_text.encode())

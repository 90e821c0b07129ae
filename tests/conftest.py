"""Every test: shapes checked at run time, the same random numbers, one thread."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from jaxtyping import install_import_hook

# Before anything imports the package: from here on, each call checks the shapes its signature promises.
install_import_hook("mmseg_m2f", "beartype.beartype")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported

import mmseg_m2f  # noqa: E402, F401  (mends the imports of mmseg's and mmdet's models)

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """The same random numbers for each test, whichever ran before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (OpenMMLab's transforms draw from the global generator)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.load` as torch has it, whatever an earlier test's run has asked of the whole process."""
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)


@pytest.fixture(autouse=True)
def default_scope() -> Iterator[None]:
    """The Runner's default scope, whatever scope a Runner of an earlier test has left in the process."""
    with DefaultScope.overwrite_default_scope("mmengine"):
        yield


@pytest.fixture(scope="session")
def weight_packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of packages as the extra `weights` installs them, but with random weights; python finds them."""
    from tests.weight_packages import write_weight_packages

    folder = str(write_weight_packages(tmp_path_factory.mktemp("weight_packages")))
    sys.path.insert(0, folder)
    yield Path(folder)
    sys.path.remove(folder)

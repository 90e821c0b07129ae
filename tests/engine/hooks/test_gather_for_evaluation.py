from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmengine.runner import Runner
from torch import nn

from mmseg_m2f.engine.hooks import GatherForEvaluation
from mmseg_m2f.engine.sharding import shard


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("loop", ["val", "test"])
def test_hook__gathers_for_an_evaluation_and_frees_after_it(group: None, loop: str) -> None:
    runner, hook = mock.MagicMock(spec=Runner, model=nn.Linear(4, 4)), GatherForEvaluation()
    getattr(hook, f"before_{loop}_epoch")(runner)  # of a model that is not sharded: nothing
    shard(runner.model, None, device="cpu")
    getattr(hook, f"before_{loop}_epoch")(runner)
    assert not hasattr(runner.model.weight, "to_local")
    getattr(hook, f"after_{loop}_epoch")(runner)
    assert hasattr(runner.model.weight, "to_local")

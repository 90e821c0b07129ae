import json
import sys

import pytest

from tests.command_line import run

pytestmark = pytest.mark.slow

CHECKS = [
    "training_step_eager",
    "training_step_aot_eager",
    "sizes_compile_again_once",
    "static_sizes",
    "prediction",
    "layers_share_mask_features",
    "recompute",
    "bfloat16",
    "detector",
    "masks_by_chance",
    "masks_by_chance_with_rotation",
    "low_rank",
    "adapter",
    "checkpoint",
    "copy",
    "off",
]


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    """Why each check failed, empty where it did not."""
    return json.loads(run(sys.executable, "tests/models/compiled_models.py").stdout.splitlines()[-1])


@pytest.mark.parametrize("check", CHECKS)
def test_compile_parts__passes(failures, check):
    assert failures[check] == ""


def test_compile_parts__no_check_is_left_out(failures):
    assert list(failures) == CHECKS

import json
import re
import sys

import pytest

from tests.command_line import ROOT, run

pytestmark = pytest.mark.slow

CHECKS = [
    "training_step_aot_eager",
    "sizes_compile_again_once",
    "prediction",
    "detector",
    "masks_by_chance",
    "checkpoint",
    "copy",
    "off",
]
FURTHER_CHECKS = [
    "training_step_eager",
    "static_sizes",
    "layers_share_mask_features",
    "recompute",
    "bfloat16",
    "masks_by_chance_with_rotation",
    "low_rank",
    "adapter",
]


def failures_of(*checks: str) -> dict[str, str]:
    """Why each check failed, empty where it did not."""
    return json.loads(run(sys.executable, "tests/models/compiled_models.py", *checks).stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    return failures_of(*CHECKS)


@pytest.fixture(scope="module")
def further_failures() -> dict[str, str]:
    return failures_of(*FURTHER_CHECKS)


@pytest.mark.parametrize("check", CHECKS)
def test_compile_parts__passes(failures, check):
    assert failures[check] == ""


@pytest.mark.exhaustive
@pytest.mark.parametrize("check", FURTHER_CHECKS)
def test_compile_parts__passes_further_checks(further_failures, check):
    assert further_failures[check] == ""


def test_compile_parts__no_check_is_left_out():
    text = (ROOT / "tests/models/compiled_models.py").read_text()
    names = re.findall(r"^    (\w+)=(?:lambda|check_)", text, re.MULTILINE)
    assert sorted(names) == sorted([*CHECKS, *FURTHER_CHECKS])

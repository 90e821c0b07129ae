import inspect

from mmengine.runner import Runner

from mmseg_m2f.config.keys import OWN_KEYS, READ_KEYS, RUNNER_KEYS, RUNNER_VALUES, TOOL_KEYS


def test_keys__are_those_that_mmengines_runner_reads() -> None:
    arguments = set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"}
    assert arguments - {*RUNNER_KEYS, *RUNNER_VALUES} == set()
    source = inspect.getsource(Runner)
    others = {*RUNNER_KEYS, *RUNNER_VALUES} - arguments
    # `runner_type` chooses the class, `custom_imports` are read with the file, `strategy` by `SafeRunner`, the rest by
    # `self.cfg.get`.
    assert {key for key in others if f"'{key}'" not in source} <= {"runner_type", "custom_imports", "strategy"}


def test_keys__are_listed_once() -> None:
    listed = [*RUNNER_KEYS, *RUNNER_VALUES, *TOOL_KEYS, *OWN_KEYS]
    assert len(listed) == len(set(listed)) == len(READ_KEYS)

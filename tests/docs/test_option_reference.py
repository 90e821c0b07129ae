"""The reference of config types says what the constructors take."""

import inspect

from docs.site.option_reference import argument_meanings, option_page, registered_parts
from mmseg_m2f import registry


def test_parts__are_all_that_are_registered() -> None:
    for name in ("MODELS", "TASK_UTILS", "DATASETS", "TRANSFORMS", "METRICS", "HOOKS", "OPTIM_WRAPPERS", "VISUALIZERS"):
        found = getattr(registry, name)
        found.import_from_location()
        listed = {part.name for part in registered_parts() if part.registry == name}
        ours = {key for key, value in found.module_dict.items() if value.__module__.startswith("mmseg_m2f.")}
        assert listed == ours, name


def test_parts__have_the_arguments_of_their_constructors() -> None:
    registry.MODELS.import_from_location()
    for part in registered_parts():
        if part.registry == "MODELS":
            taken = inspect.signature(registry.MODELS.module_dict[part.name]).parameters
            assert [argument.name.lstrip("*") for argument in part.arguments] == list(taken), part.name
            assert all(
                (argument.default is None) == (taken[argument.name].default is inspect.Parameter.empty)
                for argument in part.arguments
                if not argument.name.startswith("*")
            )


def test_meanings__of_a_docstring() -> None:
    text = "What it gives.\n\nArgs:\n    a: One\n        word.\n    b, c: Two.\n\nReturns:\n    d: No."
    assert argument_meanings(text) == {"a": "One word.", "b": "Two.", "c": "Two."}


def test_page__has_a_heading_for_each() -> None:
    page = option_page(registered_parts())
    assert "### `mmseg_m2f.MaskHead`" in page
    assert page.count("\n### ") == len(registered_parts())

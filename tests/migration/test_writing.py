from mmseg_m2f.migration.writing import Reference, Section, config_text


def test_config_text__is_laid_out_to_be_read():
    long = [dict(type="a.B", number=index / 2, text='say "no"') for index in range(4)]
    text = config_text(
        ["Title."],
        [Section("First.", dict(x=1, y=Reference("x"))), Section("None.", {}), Section("Last.", {"z": {"a.b": long}})],
    )
    assert (
        text
        == """# Title.

# First.
x = 1
y = x

# Last.
z = {
    "a.b": [
        dict(type="a.B", number=0.0, text='say "no"'),
        dict(type="a.B", number=0.5, text='say "no"'),
        dict(type="a.B", number=1.0, text='say "no"'),
        dict(type="a.B", number=1.5, text='say "no"'),
    ],
}
"""
    )

import pytest

from src.core.report.markdown import fenced, plain


def test_text_from_files_stays_text_on_one_line():
    assert plain("a\n | <b>_x_ # `y`") == r"a \| \<b\>\_x\_ \# \`y\`"


@pytest.mark.parametrize("inside", ["x", "a ``` b", "````"])
def test_a_fence_cannot_be_closed_from_inside(inside):
    lines = fenced(inside, "yaml").splitlines()
    assert lines[0] == lines[-1] + "yaml" and lines[-1] not in inside

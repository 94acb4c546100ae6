"""Names of places in figures: Chinese characters, and dollar signs that are not formulas."""

from matplotlib import font_manager

# the first that is installed draws what matplotlib's own font lacks
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "SimHei", "PingFang SC")


def with_chinese() -> list[str]:
    """matplotlib's font and whichever Chinese one is installed, for `font.family`."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *[name for name in CJK_FONTS if name in installed][:1]]


def verbatim(text: str) -> str:
    """`text` with its dollar signs as they are."""
    return text.replace("$", r"\$")


def drawable(text: str, otherwise: str) -> str:
    """`text`, or `otherwise` where no font of `with_chinese` has a glyph for one of its characters."""
    charts = [font_manager.get_font(font_manager.findfont(name)).get_charmap() for name in with_chinese()]
    return text if all(any(ord(one) in chart for chart in charts) for one in text) else otherwise

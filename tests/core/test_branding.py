"""Colors and the logo of the operator's brand."""

import pytest

from uplift_server.core.operations.branding import contrast, logo_type, parse_colors


def test_colors_are_parsed() -> None:
    assert parse_colors("accent=#0B5CAD  accent-dark=#6cb2ff") == {"accent": "#0b5cad", "accent-dark": "#6cb2ff"}
    assert parse_colors("accent-dark=#ffffff") == {"accent-dark": "#ffffff"}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (" ", "is empty"),
        ("#0b5cad", "entry: '#0b5cad'"),
        ("accent=blue", "entry: 'accent=blue'"),
        ("accent=#0b5cad accent=#0b5cad", "entry: 'accent=#0b5cad'"),
        ("link=#0b5cad", "entry: 'link=#0b5cad'"),
        ("accent=#6cb2ff", "below 4.5: choose a darker color"),
        ("accent-dark=#0b5cad", "below 4.5: choose a lighter color"),
    ],
)
def test_invalid_colors_are_explained(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        parse_colors(text)


def test_the_contrast_follows_wcag() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == contrast("#ffffff", "#777777") == pytest.approx(4.48, abs=0.01)
    assert contrast("#123456", "#123456") == 1


def test_logos_are_png_or_svg() -> None:
    assert logo_type(b"\x89PNG\r\n\x1a\n...") == "image/png"
    assert logo_type(b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>') == "image/svg+xml"
    assert logo_type(b"GIF89a") is None

"""The operator's brand as static files: the logo and the style sheet."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uplift_server.core.operations.branding import Branding, logo_type
from uplift_server.dashboard.assets import Asset, create_asset

DARK_ACCENT: Final = "#6cb2ff"
"""The default accent color of the dark theme, as in dashboard.css.

The brand's style sheet repeats this color, so that the brand's light accent color does not apply to the dark theme.
"""


@dataclass(frozen=True, slots=True)
class Brand:
    """The name of the dashboard, and its logo and colors if the operator set them."""

    name: str
    logo: Asset | None
    style: Asset | None

    @property
    def assets(self) -> Mapping[str, Asset]:
        """The static files of the brand. The keys are file names."""
        return {name: file for name, file in (("brand-logo", self.logo), ("brand.css", self.style)) if file is not None}


def create_brand(branding: Branding) -> Brand:
    """Read the logo, create the style sheet, and return the brand."""
    content = None if branding.logo_file is None else Path(branding.logo_file).read_bytes()
    kind = None if content is None else logo_type(content)
    logo = None if content is None or kind is None else create_asset("brand-logo", content, kind)
    return Brand(branding.name, logo, _style(branding.colors))


def _style(colors: Mapping[str, str]) -> Asset | None:
    lines = []
    if "accent" in colors:
        lines.append(f":root {{ --accent: {colors['accent']}; }}")
    dark = colors.get("accent-dark") or (DARK_ACCENT if colors else None)
    if dark is not None:
        lines.append(f"@media (prefers-color-scheme: dark) {{ :root {{ --accent: {dark}; }} }}")
    return create_asset("brand.css", "\n".join(lines).encode(), "text/css; charset=utf-8") if lines else None

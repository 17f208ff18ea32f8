"""Outside machinery behind narrow doors: each module speaks to one thing that is not ours."""

from signet.core.fallback import FallbackResult

__all__ = ["FallbackResult"]

"""Command lines, presets, logs, checkpoints and figures: all that touches the host."""

import sys
from pathlib import Path


def _find_our_environments() -> None:
    """Puts the folder of this package first, for a folder ``envs`` where one stands hides ours.

    Raises:
      ImportError: another package of that name has been imported already.
    """
    root = Path(__file__).resolve().parents[1]
    other = sys.modules.get("envs")
    places = [Path(place).resolve() for place in getattr(other, "__path__", ())]
    if other is not None and root / "envs" not in places:
        told = ", ".join(map(str, places)) or other
        raise ImportError(
            f"{told} stands in the place of {root / 'envs'}: import it by another name"
        )
    if other is None and (root / "envs").is_dir() and str(root) != (sys.path or [""])[0]:
        sys.path.insert(0, str(root))


_find_our_environments()

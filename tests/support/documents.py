"""README and the documents, as tests read them."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def queries() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", README.read_text("utf-8"), re.S)

"""The terminal heat map: each token on the colour of the contributor that raised it most."""

from typing import Any

from rich.style import Style
from rich.table import Table
from rich.text import Text

PALETTE = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#9a6324", "#808000", "#008080")
PALEST, STRONGEST = 0.25, 1.0
BACKGROUND = (24, 24, 24)


class HeatMap:
    """Colours by contributor, in the order given; the strongest score of the tokens is drawn at full strength."""

    def __init__(self, contributors: list[str], tokens: list[dict[str, Any]]) -> None:
        self._tokens = tokens
        self._strongest = max((score for token in tokens for score in token["scores"].values()), default=0)
        self._colour = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(contributors)}

    def token(self, token: dict[str, Any]) -> Text:
        """One token; plain where nobody raised it."""
        scores = token["scores"]
        top = max(scores, key=scores.__getitem__, default=None)
        if top is None or scores[top] <= 0:
            return Text(token["token"])
        strength = PALEST + (STRONGEST - PALEST) * scores[top] / self._strongest
        return Text(token["token"], Style(color="white", bgcolor=_mix(self._colour[top], strength)))

    def answer(self) -> Text:
        """All tokens."""
        return Text.assemble(*(self.token(token) for token in self._tokens))

    def legend(self, attribution: dict[str, Any]) -> Table:
        """Contributors with colour, score in nats and provisional share."""
        drawn = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("", "contributor", "score (nats)", "share"):
            drawn.add_column(column, justify="right" if column.startswith("s") else "left")
        for row in attribution["contributors"]:
            name = row["contributor"]
            swatch = Text("  ", Style(bgcolor=self._colour.get(name)))
            share = f"{row['share_ppm'] / 10_000:.2f} %"
            drawn.add_row(swatch, name, f"{row['score'] / 1e6:+.3f}", share)
        return drawn


def _mix(colour: str, strength: float) -> str:
    """The colour over a dark background."""
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    mixed = (round(part * strength + dark * (1 - strength)) for part, dark in zip(parts, BACKGROUND, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)

"""What the report says of how its numbers came about: the lines below the headline, skipped files, protocol card."""

from __future__ import annotations

import json
from collections.abc import Mapping

from markupsafe import Markup

from ogenlib.bench.protocols.registry import shown_as
from ogenlib.report.format import DASH, counted, finite
from ogenlib.report.html import details, frame, join, row, section, table, tag
from ogenlib.results.types import ProtocolCard, Skipped


def names_known(card: ProtocolCard, with_ogen: bool) -> str:
    """Whether OGEN was given the new names, and what it does with them, in words; empty without OGEN.

    A card that does not say, or of a run without new names, gives nothing either.
    """
    known = card.get("new_names_known_in_training")
    if not with_ogen or not isinstance(known, bool) or card.get("n_new") == 0:
        return ""
    mixed = zero_shot_share(card)
    if not known:
        return "The new names were held out: no training was given them, nor any image of them." + mixed
    count = card.get("n_new")
    names = f"the {count} new names" if isinstance(count, int) else "the new names"
    return (
        f"Training with OGEN was given {names} but no image of them; training without OGEN was given neither." + mixed
    )


def zero_shot_share(card: ProtocolCard) -> str:
    """A sentence on how far OGEN classifies names without images by zero-shot; empty if it does not."""
    hosts = card.get("hosts")
    listed = hosts.values() if isinstance(hosts, Mapping) else ()
    ogen = [host.get("ogen") for host in listed if isinstance(host, Mapping)]
    settings = [one.get("settings") for one in ogen if isinstance(one, Mapping)]
    shares = [finite(one.get("zero_shot_share")) for one in settings if isinstance(one, Mapping)]
    distinct = sorted({share for share in shares if share})
    if not distinct:
        return ""
    percents = " or ".join(f"{100 * share:.0f} %" for share in distinct)
    return f" For names without training images, OGEN’s class weights are {percents} zero-shot’s, in testing too."


def how(card: ProtocolCard, place: str) -> str:
    """What was run, from the protocol card; `place` is the domain of training, or empty."""
    backbone = card.get("backbone")
    model = backbone.get("name") if isinstance(backbone, Mapping) else backbone
    parts = [
        f"trained on {place}" if place else "",
        images_trained(card),
        names_trained(card),
        counted(len(card.get("seeds") or []), "seed") if card.get("seeds") else "",
        counted(card.get("epochs"), "epoch") if card.get("epochs") else "",
        f"model {model}" if model else "",
        str(card.get("date") or "")[:10],
    ]
    text = ", ".join(part for part in parts if part)
    return text[:1].upper() + text[1:] + "." if text else ""


def names_trained(card: ProtocolCard) -> str:
    base, new = card.get("n_base"), card.get("n_new")
    if base is None or new is None:
        return ""
    shown = shown_as(str(card.get("name")))
    return shown.both.format(base=base, new=new) if new else counted(base, *shown.trained)


def images_trained(card: ProtocolCard) -> str:
    if card.get("shots_list"):
        return f"{', '.join(map(str, card['shots_list']))} images per class"
    if card.get("shots") == 0:
        return "all training images"
    return counted(card.get("shots"), "image") + " per class" if card.get("shots") else ""


def skipped_section(card: ProtocolCard) -> Markup | None:
    skipped = [s if isinstance(s, Mapping) else Skipped(file=s) for s in card.get("skipped") or []]
    if not skipped:
        return None
    lines = [[tag("code", s.get("file")), tag("td", s.get("reason") or DASH, cls="wide")] for s in skipped]
    listing = table(["File", "Reason"], lines, cls="words")
    title = f"{counted(len(lines), 'file')} skipped"
    text = "These could not be read and are in no number above."
    return section(title, text, listing if len(lines) <= 5 else details("List", listing))


def protocol_section(protocol: ProtocolCard) -> Markup:
    card = {key: value for key, value in protocol.items() if key not in ("command", "skipped")}
    lines = tag("tbody", *[row([key, tag("td", value)]) for key, value in flat(card)])
    command = protocol.get("command")
    text = " ".join(map(str, command)) if isinstance(command, (list, tuple)) else command
    again = join([tag("h3", "To reproduce"), tag("pre", tag("code", text))]) if text else None
    return section("Protocol card", "", frame([], [lines], cls="card"), again)


def flat(card: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """The card's lines; nested parts become `outer: inner`, what lies deeper is written as JSON."""
    lines: list[tuple[str, object]] = []
    for key, value in card.items():
        name = prefix + str(key).replace("_", " ")
        if isinstance(value, Mapping) and not prefix:
            lines += flat(value, f"{name}: ")
        elif isinstance(value, bool):
            lines.append((name, "yes" if value else "no"))
        elif value is None or value == []:
            lines.append((name, DASH))
        elif isinstance(value, (list, tuple)) and not any(isinstance(v, (Mapping, list, tuple)) for v in value):
            lines.append((name, ", ".join(str(v) for v in value)))
        elif isinstance(value, (Mapping, list, tuple)):
            lines.append((name, tag("code", json.dumps(value, ensure_ascii=False))))
        else:
            lines.append((name, round(value, 3) if isinstance(value, float) else value))
    return lines

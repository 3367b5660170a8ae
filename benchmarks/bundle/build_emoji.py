"""Rebuild the embedded emoji bundle from its npm sources.

    python -m benchmarks.bundle.build_emoji --tarballs DIR --out ogenlib/data/emoji_bundle

Twelve openly licensed icon sets (``@iconify-json/*``) are joined with the names, tags, groups and
subgroups of ``emojibase-data``, drawn at 64 px on white and written as one plain ZIP of WebP files per
set, beside ``concepts.csv``, ``sets.json`` and ``ATTRIBUTION.md``. Package versions are pinned and their
SHA-256 is checked, so the same inputs always give the same bundle. Missing tarballs are fetched with
``npm pack``. Needs the ``build`` extra (resvg-py).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from benchmarks.common.options import parser_of

SIZE = 64  # pixels; large enough for a 48 px tower and its crops, small enough for a wheel
QUALITY = 75  # WebP; keeps the bundle near 1 KB an image

# package -> (version, sha256 of the npm tarball)
PACKAGES = {
    "emojibase-data": ("17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"),
    "@iconify-json/noto": ("1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "@iconify-json/noto-v1": ("1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"),
    "@iconify-json/twemoji": ("1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "@iconify-json/openmoji": ("1.2.29", "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5"),
    "@iconify-json/fluent-emoji": ("1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b"),
    "@iconify-json/fluent-emoji-flat": ("1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
    "@iconify-json/fluent-emoji-high-contrast": (
        "1.2.6",
        "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
    ),
    "@iconify-json/emojione": ("1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
    "@iconify-json/emojione-v1": ("1.2.3", "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3"),
    "@iconify-json/emojione-monotone": ("1.2.1", "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e"),
    "@iconify-json/fxemoji": ("1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"),
    "@iconify-json/streamline-emojis": ("1.2.4", "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc"),
}
SETS = [name.split("/")[1] for name in PACKAGES if "/" in name]
SKIPPED_GROUPS = {"component", "flags"}  # skin tones and flags are not things one can recognise by shape


def fetch(package: str, folder: Path) -> Path:
    """The verified tarball of ``package`` in ``folder``, packed by npm when it is not there yet."""
    version, digest = PACKAGES[package]
    path = folder / f"{package.replace('@', '').replace('/', '-')}-{version}.tgz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True)
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != digest:
        raise SystemExit(f"{path}: sha256 is {actual}, expected {digest}; delete the file and run again")
    return path


def member(tarball: Path, name: str) -> Any:
    """A JSON file inside an npm tarball."""
    with tarfile.open(tarball) as tar:
        file = tar.extractfile(f"package/{name}")
        if file is None:
            raise SystemExit(f"{tarball} holds no {name}")
        return json.load(file)


def optional_member(tarball: Path, name: str) -> Any:
    try:
        return member(tarball, name)
    except KeyError:
        return {}


def key(name: str) -> str:
    """Letters and digits only, lower case, accents removed: 'Piñata!' and 'pinata' meet."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower())


def hexkey(code: str) -> str:
    """Code points without variation selectors, which icon sets keep or drop at will."""
    return "-".join(part for part in code.lower().split("-") if part != "fe0f")


def read_concepts(tarball: Path) -> list[dict[str, Any]]:
    """Emoji in their standard order, without flags, components and unassigned ones."""
    meta = member(tarball, "meta/groups.json")
    groups, subgroups = meta["groups"], meta["subgroups"]
    concepts = []
    for emoji in member(tarball, "en/data.json"):
        group = groups.get(str(emoji.get("group")))
        if group is None or group in SKIPPED_GROUPS:
            continue
        concepts.append(
            {
                "id": hexkey(emoji["hexcode"]),
                "name": emoji["label"],
                "tags": emoji.get("tags", []),
                "group": group,
                "subgroup": subgroups[str(emoji["subgroup"])],
            }
        )
    return concepts


def name_tables(emojibase: Path, icons: dict[str, Path], known: set[str]) -> list[dict[str, str]]:
    """Name -> concept tables, most trustworthy first: other sets' own code tables, labels, shortcodes."""
    chars: dict[str, str] = {}
    for tarball in icons.values():
        for code, name in optional_member(tarball, "chars.json").items():
            if hexkey(code) in known:
                chars.setdefault(key(name), hexkey(code))
    labels = {key(e["label"]): hexkey(e["hexcode"]) for e in member(emojibase, "en/data.json")}
    unicode = {key(n): hexkey(c) for c, n in member(emojibase, "meta/unicode-names.json").items()}
    tables = [labels, chars, unicode]
    for source in ("cldr", "emojibase", "joypixels", "iamcal", "github", "emojibase-legacy"):
        table: dict[str, str] = {}
        for code, names in member(emojibase, f"en/shortcodes/{source}.json").items():
            for name in [names] if isinstance(names, str) else names:
                table.setdefault(key(name), hexkey(code))
        tables.append(table)
    return [{n: c for n, c in table.items() if c in known} for table in tables]


def match(tarball: Path, tables: list[dict[str, str]], known: set[str]) -> dict[str, dict[str, Any]]:
    """Concept id -> icon record for one set. Code tables beat names; names beat aliases."""
    data = member(tarball, "icons.json")
    icons, aliases = data["icons"], data.get("aliases", {})
    matched: dict[str, dict[str, Any]] = {}

    def resolve(name: str) -> dict[str, Any] | None:
        if name in icons:
            return dict(icons[name])
        if name in aliases:
            alias = aliases[name]
            parent = resolve(alias["parent"])
            return None if parent is None else {**parent, **{k: v for k, v in alias.items() if k != "parent"}}
        return None

    def take(concept: str | None, name: str) -> None:
        if concept in known and concept not in matched:
            icon = resolve(name)
            if icon is not None:
                width, height = data.get("width", 16), data.get("height", 16)
                matched[str(concept)] = {"width": width, "height": height, **icon, "name": name}

    for code, name in optional_member(tarball, "chars.json").items():
        take(hexkey(code), name)
    # Icon sets append a number or "-1" to duplicates ("family-woman-girl-girl-1"); try the bare name too.
    for table in tables:
        for names in (icons, aliases):
            for name in names:
                take(table.get(key(name)), name)
    for table in tables:
        for name in icons:
            take(table.get(key(re.sub(r"-\d$", "", name))), name)
    return matched


def draw(icon: dict[str, Any]) -> Image.Image:
    """The icon at 64 px on white, centred, aspect kept."""
    import resvg_py

    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon["width"], icon["height"]
    body = icon["body"]
    if icon.get("hFlip"):
        body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
    if icon.get("vFlip"):
        body = f'<g transform="translate(0 {2 * top + height}) scale(1 -1)">{body}</g>'
    if icon.get("rotate"):
        body = f'<g transform="rotate({90 * icon["rotate"]} {left + width / 2} {top + height / 2})">{body}</g>'
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'color="#000" viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
        f"{body}</svg>"
    )
    wide = width >= height
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        background="white",
        skip_system_fonts=True,
        width=SIZE if wide else None,
        height=None if wide else SIZE,
    )
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGB")
    canvas = Image.new("RGB", (SIZE, SIZE), "white")
    canvas.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    return canvas


def webp(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=6)
    return buffer.getvalue()


def write_zip(path: Path, files: Iterator[tuple[str, bytes]]) -> int:
    """A ZIP of already compressed files, byte-identical for identical content."""
    count = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
            count += 1
    return count


def attribution(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# Where the pictures come from",
        "",
        "The images in these ZIP files were drawn at 64 px from the SVG sources of the icon sets below.",
        "Each set keeps its own licence. Names, tags and groups come from emojibase-data 17.0.0 (MIT,",
        "Miles Johnson; https://github.com/milesj/emojibase). The images were only rendered and stored",
        "as WebP; sets under CC BY-SA stay under that licence.",
        "",
        "| set | images | title | author | licence | package |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['images']} | {row['title']} | [{row['author']}]({row['source']}) | "
            f"[{row['licence']}]({row['licence_url']}) | {row['package']} {row['version']} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--tarballs", type=Path, required=True, help="folder for the npm tarballs")
    parser.add_argument("--out", type=Path, default=Path("ogenlib/data/emoji_bundle"), help="bundle folder")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    emojibase = fetch("emojibase-data", args.tarballs)
    icons = {name: fetch(f"@iconify-json/{name}", args.tarballs) for name in SETS}
    concepts = read_concepts(emojibase)
    known = {c["id"] for c in concepts}
    tables = name_tables(emojibase, icons, known)

    rows: dict[str, dict[str, Any]] = {}
    seen: dict[str, list[str]] = {c["id"]: [] for c in concepts}
    for name, tarball in icons.items():
        matched = match(tarball, tables, known)
        order = [c["id"] for c in concepts if c["id"] in matched]
        pictures = ((f"{i}.webp", webp(draw(matched[i]))) for i in tqdm(order, desc=name, leave=False))
        count = write_zip(args.out / f"{name}.zip", pictures)
        for i in order:
            seen[i].append(name)
        info = member(tarball, "info.json")
        rows[name] = {
            "title": info["name"],
            "author": info["author"]["name"],
            "source": info["author"]["url"],
            "licence": info["license"]["spdx"],
            "licence_url": info["license"]["url"],
            "package": f"@iconify-json/{name}",
            "version": PACKAGES[f"@iconify-json/{name}"][0],
            "images": count,
            "sha256": hashlib.sha256((args.out / f"{name}.zip").read_bytes()).hexdigest(),
        }

    with (args.out / "concepts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "name", "tags", "group", "subgroup"])
        for c in concepts:
            if seen[c["id"]]:
                writer.writerow([c["id"], c["name"], "|".join(c["tags"]), c["group"], c["subgroup"]])
    (args.out / "sets.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (args.out / "ATTRIBUTION.md").write_text(attribution(rows), encoding="utf-8")
    size = sum(p.stat().st_size for p in args.out.iterdir())
    drawn = sum(1 for sets in seen.values() if sets)
    wide = sum(1 for sets in seen.values() if len(sets) >= 10)
    images = sum(row["images"] for row in rows.values())
    print(f"{images} images of {drawn} concepts ({wide} in ten or more sets), {size / 1e6:.1f} MB")
    print({name: row["images"] for name, row in rows.items()})


if __name__ == "__main__":
    main()

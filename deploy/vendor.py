"""Copies the files that the console takes from npm packages into oneweb_bridge/web/static/vendor.

    python deploy/vendor.py            packs each package of vendor.toml with npm, checks it, writes its files
    python deploy/vendor.py --compare  the same, and compares with the files that are here instead of writing them

vendor.toml says which package, version and files. Where a version was changed by hand its `integrity` is asked of
the registry and written with the hashes of the files; where it was not, the tarball must still have that integrity.
"""

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "oneweb_bridge/web/static/vendor"
LIST = FOLDER / "vendor.toml"
# A degree of the map path has ten units: 0.1 degrees is half a pixel on a map that is 1800 pixels wide.
UNITS_PER_DEGREE = 10
WIDTH, HEIGHT = 360 * UNITS_PER_DEGREE, 180 * UNITS_PER_DEGREE


def main(arguments: list[str]) -> int:
    """Writes or compares; exit code 1 where something is not as vendor.toml says."""
    text = LIST.read_text(encoding="utf-8")
    different = []
    for package in tomllib.loads(text)["package"]:
        tarball, integrity = pack(package["name"], package["version"])
        if package["integrity"] not in {"", integrity}:
            different.append(f"{package['name']} {package['version']} has the integrity {integrity}")
        text = replace_value(text, package["integrity"], integrity, after=f'name = "{package["name"]}"')
        for file in package["file"]:
            content = read_file(tarball, file)
            text = replace_value(text, file["sha256"], hashlib.sha256(content).hexdigest(), f'name = "{file["name"]}"')
            target = FOLDER / file["name"]
            if arguments == ["--compare"]:
                if not target.exists() or target.read_bytes() != content:
                    different.append(f"{file['name']} differs from {file['path']} of {package['name']}")
            else:
                target.write_bytes(content)
    if arguments == ["--compare"] and text != LIST.read_text(encoding="utf-8"):
        different.append("vendor.toml has other hashes")
    elif not different:
        LIST.write_text(text, encoding="utf-8")
    for sentence in different:
        print(f"vendor: {sentence}", file=sys.stderr)
    return 1 if different else 0


def pack(name: str, version: str) -> tuple[bytes, str]:
    """Returns the tarball of the package and its integrity, which is worked out here from its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", f"{name}@{version}", "--json", "--ignore-scripts", "--pack-destination", folder]
        answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
        content = (Path(folder) / json.loads(answer.stdout)[0]["filename"]).read_bytes()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if json.loads(answer.stdout)[0]["integrity"] != integrity:
        raise SystemExit(f"vendor: the tarball of {name} is not what the registry says it is: try again")
    return content, integrity


def read_file(tarball: bytes, file: dict[str, Any]) -> bytes:
    """Returns a file of the tarball, or what is made from it."""
    with tempfile.TemporaryFile() as stream:
        stream.write(tarball)
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archive:
            member = archive.extractfile(f"package/{file['path']}")
            content = member.read() if member else b""
    if file.get("made") == "land":
        return make_land(json.loads(content)).encode()
    return content


def replace_value(text: str, old: str, new: str, after: str) -> str:
    """Returns the text with the first quoted `old` behind `after` replaced."""
    start = text.index(after)
    begin = text.index(f'"{old}"', start)
    return f'{text[:begin]}"{new}"{text[begin + len(old) + 2 :]}'


def make_land(topology: dict[str, Any]) -> str:
    """Returns a module with the outline of all land as one SVG path.

    x = 10 (longitude + 180), y = 10 (90 - latitude), whole numbers.
    """
    arcs = [place_arc(arc, topology["transform"]) for arc in topology["arcs"]]
    polygons = [polygon for shape in topology["objects"]["land"]["geometries"] for polygon in shape["arcs"]]
    rings = [join_arcs(ring, arcs) for polygon in polygons for ring in polygon]
    path = "".join(write_ring(part) for ring in rings for part in cut_at_edge(ring))
    about = "// Land outline of Natural Earth 1:110m, made from world-atlas by deploy/vendor.py."
    return f'{about}\nexport const LAND = "{path}";\n'


def place_arc(arc: list[list[int]], transform: dict[str, list[float]]) -> list[tuple[int, int]]:
    """Returns the points of an arc, which TopoJSON writes as differences, on the grid of the map."""
    points, x, y = [], 0, 0
    for step_x, step_y in arc:
        x, y = x + step_x, y + step_y
        longitude = x * transform["scale"][0] + transform["translate"][0]
        latitude = y * transform["scale"][1] + transform["translate"][1]
        points.append((round((longitude + 180) * UNITS_PER_DEGREE), round((90 - latitude) * UNITS_PER_DEGREE)))
    return points


def join_arcs(ring: list[int], arcs: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Returns the points of a ring without repetitions; an arc with the number ~n is arc n backwards."""
    points: list[tuple[int, int]] = []
    for number in ring:
        arc = arcs[number] if number >= 0 else arcs[~number][::-1]
        points += [point for i, point in enumerate(arc) if not points or i or point != points[-1]]
    return [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]


def cut_at_edge(ring: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Returns the parts of a ring over the date line, each within the map; a ring around a pole gets its edge."""
    parts: list[list[tuple[int, int]]] = [[ring[0]]]
    for (x, y), (next_x, next_y) in itertools.pairwise([*ring, ring[0]]):
        if abs(next_x - x) > WIDTH / 2:
            edge, other_edge = (WIDTH, 0) if next_x < x else (0, WIDTH)
            share = abs(edge - x) / (abs(edge - x) + abs(next_x - other_edge) or 1)
            crossing = round(y + share * (next_y - y))
            parts[-1].append((edge, crossing))
            parts.append([(other_edge, crossing)])
        parts[-1].append((next_x, next_y))
    if len(parts) == 1:
        return [ring]
    parts[0] = parts.pop() + parts[0][1:]
    if len(parts) == 1:
        bottom = HEIGHT if parts[0][0][1] > HEIGHT / 2 else 0
        parts[0] += [(parts[0][-1][0], bottom), (parts[0][0][0], bottom)]
    return parts


def write_ring(points: list[tuple[int, int]]) -> str:
    """Returns the ring as a path of relative steps, closed."""
    (x, y), *others = points
    steps = [f"M{x},{y}l"]
    for next_x, next_y in others:
        steps.append(f"{next_x - x},{next_y - y} ")
        x, y = next_x, next_y
    return re.sub(r"[, ](?=-)", "", "".join(steps).rstrip()) + "z"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

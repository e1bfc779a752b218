"""The files that the console takes from npm packages are the ones that vendor.toml names, and nothing else is there."""

import hashlib
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = runpy.run_path(str(ROOT / "deploy/vendor.py"))
FOLDER: Path = SCRIPT["FOLDER"]
PACKAGES: list[dict[str, Any]] = tomllib.loads(SCRIPT["LIST"].read_text(encoding="utf-8"))["package"]
FILES = [(package, file) for package in PACKAGES for file in package["file"]]
LICENCES = (ROOT / "docs/licences.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("package", "file"), FILES, ids=lambda value: value["name"])
def test_file_has_the_hash_of_the_list(package: dict[str, Any], file: dict[str, str]) -> None:
    """A file that was changed by hand, or comes from another version, is noticed without a network."""
    assert hashlib.sha256((FOLDER / file["name"]).read_bytes()).hexdigest() == file["sha256"]


def test_folder_holds_nothing_else() -> None:
    names = {file["name"] for _, file in FILES}
    assert {path.name for path in FOLDER.iterdir()} == names | {"vendor.toml"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package["name"])
def test_package_has_its_licence(package: dict[str, Any]) -> None:
    """Its text lies beside its files, and docs/licences.md has a line with version, licence and files."""
    assert f"{package['name']}.LICENSE.txt" in {file["name"] for file in package["file"]}
    line = next(line for line in LICENCES.splitlines() if line.startswith(f"| [{package['name']}]"))
    assert f"| {package['version']} | {package['licence']} |" in line
    assert all(f"`{file['name']}`" in line for file in package["file"])
    assert package["integrity"].startswith("sha512-")


def test_land_is_joined_from_arcs_in_both_directions() -> None:
    """A ring of two arcs, the second taken backwards, becomes a closed path without a repeated point."""
    topology = {
        "transform": {"scale": [1.0, 1.0], "translate": [0.0, 0.0]},
        "arcs": [[[0, 0], [1, 0], [0, 1]], [[0, 0], [0, 1], [1, 0]]],
        "objects": {"land": {"geometries": [{"arcs": [[[0, -2]]]}]}},
    }
    assert '"M1800,900l10,0 0-10-10,0 0,10z"' in SCRIPT["make_land"](topology)


def test_land_is_cut_at_the_date_line() -> None:
    """A ring over the date line becomes a part at each edge of the map, and one around the pole reaches its bottom."""
    cut = SCRIPT["cut_at_edge"]
    assert cut([(3590, 100), (10, 100), (10, 120), (3590, 120)]) == [
        [(3600, 120), (3590, 120), (3590, 100), (3600, 100)],
        [(0, 100), (10, 100), (10, 120), (0, 120)],
    ]
    around_pole = cut([(0, 1700), (1200, 1710), (2400, 1720), (3600, 1700)])
    assert (3600, 1800) in around_pole[0]
    assert (0, 1800) in around_pole[0]

r"""Materials of an MTL file (Wavefront "Advanced Visualizer" manual, appendix B1; its common additions Ke, Pr, Pm and maps).

| statement | becomes |
|---|---|
| `Kd`, `map_Kd` | diffuse albedo; a number of 0 beside a map counts as 1 (said once) |
| `Ks`, `map_Ks`, `Ns`, with `illum` 2, 3, 5, 8 | where Kd reflects less than a tenth of Ks: conductor, albedo Ks at every angle, alpha = sqrt(2 / (Ns + 2)) (Walter et al. 2007, section 5.2); otherwise left out, since exporters write a Ks for plain surfaces, too. Which part goes is said once |
| `Pm`, `Pr`, `map_Pm`, `map_Pr` | metalness and roughness as glTF has them, `render.imported_material`, with Kd as colour |
| `Ke`, `map_Ke` | emission [W/(m^2 sr)] |
| `illum` 0, 1 | diffuse (0, a constant colour, is said once) |
| `d`, `Tr`, `map_d`, `illum` 4, 6, 7, 9 | opaque, or Unsupported: transparency; `Tr 1` without `d` counts as opaque (said once) |
| `map_Bump`, `bump`, `norm`, `disp`, `decal` | Unsupported: normal map; `refl`: reflection map |
| `Ka`, `map_Ka`, `Tf`, `Ni`, `sharpness`, `map_Ns` | not needed: light is traced, surfaces are opaque; `map_Ns` of a conductor is said once |

Numbers are linear; textures of 8 and 16 bits are sRGB, but for `map_Pr` and `map_Pm`. Of a map's options only `-clamp on` has an
effect; scales, offsets, gains and channels other than the usual raise Unsupported. All surfaces are two-sided, as MTL has no
sides.
"""  # noqa: E501

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvc.errors import Unsupported, UserError
from render.image_file import read_image
from render.imported import Notes
from render.imported_material import LEAST_ALPHA, Finish, checked, material_of
from render.scene import CONDUCTOR, Material, Texture

NUMBERS = {"Ka": 3, "Kd": 3, "Ks": 3, "Ke": 3, "Tf": 3, "Ns": 1, "Ni": 1, "d": 1, "Tr": 1, "illum": 1, "sharpness": 1, "Pr": 1,
           "Pm": 1, "Ps": 1, "Pc": 1, "Pcr": 1, "aniso": 1, "anisor": 1}  # fmt: skip
NORMAL_MAPS = ("map_bump", "bump", "norm", "disp", "decal", "map_disp")
GLASS, REFLECTING, INVISIBLE = (4, 6, 7, 9), (2, 3, 5, 8), 10  # illumination models
MIRROR = 0.1  # share of Kd in Ks below which a surface is a mirror
OPTIONS = {"-blendu": 1, "-blendv": 1, "-cc": 1, "-clamp": 1, "-texres": 1, "-bm": 1, "-boost": 1, "-imfchan": 1, "-type": 1,
           "-mm": 2, "-o": 3, "-s": 3, "-t": 3}  # fmt: skip
IDLE = {"-boost": (0.0,), "-mm": (0.0, 1.0), "-o": (0.0,), "-s": (1.0,), "-t": (0.0,)}  # values without effect


def read_mtl(path: Path, notes: Notes) -> dict[str, dict[str, list[str]]]:
    """Statements by material: words behind each keyword. Raises: UserError for a file that is missing or malformed."""
    name = f"material file {str(path)!r}"
    if not path.is_file():
        raise UserError(f"{name}: expected a file, found none; remedy: put it there, or change mtllib in {notes.name}")
    found: dict[str, dict[str, list[str]]] = {}
    current: dict[str, list[str]] | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "newmtl":
            current = found.setdefault(" ".join(words[1:]), {})
        elif current is None:
            raise UserError(f"{name}, line {number}: expected newmtl first, got {line.strip()[:60]!r}")
        else:
            current[words[0]] = words[1:]
    return found


def mtl_material(notes: Notes, name: str, statements: dict[str, list[str]], folder: Path) -> Material:
    """One material. Raises: UserError for what is malformed; Unsupported for what is not there (see the module)."""
    return _Statements(notes, f"material {name!r}", statements, folder).material()


class _Statements:
    def __init__(self, notes: Notes, where: str, statements: dict[str, list[str]], folder: Path):
        self.notes, self.where, self.folder = notes, where, folder
        self.words = {key.lower(): words for key, words in statements.items()}
        self.numbers = {key: self._numbers(key, statements[key], count) for key, count in NUMBERS.items() if key in statements}

    def material(self) -> Material:
        self._refuse()
        kd, ke = self._colour("Kd"), self._colour("Ke")
        albedo, glow = self._map("map_Kd"), self._map("map_Ke")
        kd = self._beside(kd, albedo, "Kd", 0.5)
        ke = self._beside(ke, glow, "Ke", 0.0)
        model = int(self._one("illum", 2.0 if "Ks" in self.numbers else 1.0))
        if model == 0:
            self.notes.approximate("constant colours (illum 0) are shown as diffuse surfaces", self.where)
        physical = any(key in self.words for key in ("pm", "pr", "map_pm", "map_pr"))
        finish = Finish(kd, emission=ke, colour_image=albedo, emission_image=glow, two_sided=True, specular=False)
        if physical:
            metal, rough = self._map("map_Pm", True), self._map("map_Pr", True)
            return material_of(self.notes, self.where, finish._replace(
                metalness=self._one("Pm", 0.0 if metal is None else 1.0), metalness_image=metal,
                roughness=self._one("Pr", 1.0), roughness_image=rough, specular=True,
            ))  # fmt: skip
        ks = self._colour("Ks")
        if model not in REFLECTING or ks is None or not bool((ks > 0.0).any()):
            return material_of(self.notes, self.where, finish)
        gloss = self._map("map_Ks")
        ks = checked(f"{self.notes.name}: {self.where}: Ks", ks, 3, 1.0)
        if MIRROR * _strength(ks, gloss) <= _strength(kd, albedo):
            self.notes.approximate("specular colours (Ks) are left out where Kd reflects a tenth of Ks or more", self.where)
            return material_of(self.notes, self.where, finish)
        if _strength(kd, albedo) > 0.0:
            self.notes.approximate("diffuse colours (Kd) below a tenth of Ks are left out", self.where)
        if "map_ns" in self.words:
            self.notes.approximate("map_Ns is left out", self.where)
        self.notes.approximate("highlights by the exponent Ns are shown as rough metal", self.where)
        plain = material_of(self.notes, self.where, finish._replace(colour=ks, colour_image=gloss))
        alpha = max(float(np.sqrt(2.0 / (self._one("Ns", 0.0) + 2.0))), LEAST_ALPHA)
        return plain._replace(kind=CONDUCTOR, alpha=torch.tensor([alpha]))

    def _refuse(self) -> None:
        model = int(self._one("illum", 1.0))
        if self._one("Tr", 0.0) == 1.0 and "d" not in self.numbers:  # nobody means a surface that cannot be seen
            self.notes.approximate("Tr 1 without d counts as opaque, as some exporters mean it", self.where)
            self.numbers["Tr"] = np.zeros(1)
        see_through = self._one("d", 1.0 - self._one("Tr", 0.0)) < 1.0 or "map_d" in self.words or "map_tr" in self.words
        if see_through or model in GLASS:
            self.notes.absent("transparency", self.where)
        if model >= INVISIBLE:
            self.notes.absent("illumination model", f"{self.where}: illum {model}")
        for key in NORMAL_MAPS:
            if key in self.words:
                self.notes.absent("normal map", self.where)
        if "refl" in self.words:
            self.notes.absent("reflection map", self.where)
        for key in ("Ps", "Pc", "aniso"):
            if self._one(key, 0.0) != 0.0:
                self.notes.absent("illumination model", f"{self.where}: {key}")

    def _numbers(self, key: str, words: list[str], count: int) -> np.ndarray:
        if words[:1] in (["spectral"], ["xyz"]):
            raise Unsupported(f"{self.notes.name}: {self.where}: {key} {words[0]} is not supported; remedy: red, green, blue")
        if key == "d" and words[:1] == ["-halo"]:
            words = words[1:]
        if count == 3 and len(words) == 1:
            words = words * 3  # green and blue may be left out
        return checked(f"{self.notes.name}: {self.where}: {key}", words[:count], count)

    def _one(self, key: str, default: float) -> float:
        return float(self.numbers[key][0]) if key in self.numbers else default

    def _colour(self, key: str) -> np.ndarray | None:
        return self.numbers.get(key)

    def _beside(self, number: np.ndarray | None, image: Texture | None, key: str, default: float) -> np.ndarray:
        if image is None:
            return np.full(3, default) if number is None else number
        if number is not None and not bool((number != 0.0).any()):
            self.notes.approximate(f"{key} 0 beside a map counts as 1", self.where)
            return np.ones(3)
        return np.ones(3) if number is None else number

    def _map(self, key: str, one_channel: bool = False) -> Texture | None:
        words = list(self.words.get(key.lower(), []))
        if not words:
            return None
        wrap = "repeat"
        while words and words[0] in OPTIONS:
            option = words.pop(0)
            values: list[str] = []
            while words and len(values) < OPTIONS[option] and (not values or _is_number(words[0])):
                values.append(words.pop(0))
            if option == "-clamp" and values == ["on"]:
                wrap = "clamp"
            idle = IDLE.get(option)
            told = option == "-imfchan" or (idle is not None and not _all_idle(option, values, idle))
            if told:
                self.notes.absent("texture option", f"{self.where}: {key} {option} {' '.join(values)}")
        if not words:
            raise UserError(f"{self.notes.name}: {self.where}: {key}: expected the name of an image, got none")
        try:
            image = read_image(self.folder / " ".join(words).replace("\\", "/"), one_channel)
        except UserError as error:
            raise UserError(f"{self.notes.name}: {self.where}: {key}: {error}") from None
        return Texture((image[..., :1] if one_channel else image)[None], wrap)


def _is_number(word: Any) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _all_idle(option: str, values: list[str], idle: tuple[float, ...]) -> bool:
    wanted = idle if option == "-mm" else idle * len(values)
    return all(map(_is_number, values)) and tuple(map(float, values)) == wanted


def _strength(colour: np.ndarray, image: Texture | None) -> float:
    return float(colour.mean()) * (float(image.image.mean()) if image is not None else 1.0)

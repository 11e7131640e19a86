"""render/gltf_file.py and what import_gltf.py refuses: every wrong glTF file in one line, what is absent left out by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvc.errors import Unsupported, UserError
from render.import_gltf import read_gltf_scene
from tests.render.gltf_files import EIGHT, Gltf, cube, diffuse, png, quiet, said, with_material, with_texture


def with_node(**given: Any) -> Gltf:
    made = with_material(**diffuse([1, 1, 1]))
    made.tree["nodes"][0].update(given)
    return made


def with_primitive(**given: Any) -> Gltf:
    made = with_material(**diffuse([1, 1, 1]))
    made.tree["meshes"][0]["primitives"][0].update(given)
    return made


def two_transforms() -> Gltf:
    made = Gltf()
    moved = {**made.texture(EIGHT), "extensions": {"KHR_texture_transform": {"scale": [2, 2]}}}
    given = diffuse([1, 1, 1], pbr={"baseColorTexture": made.texture(EIGHT)}, emissiveFactor=[1, 1, 1], emissiveTexture=moved)
    made.node(name="box", mesh=made.cube(made.material(name="paint", **given)))
    return made


def spot() -> Gltf:
    made = with_node(extensions={"KHR_lights_punctual": {"light": 0}})
    made.tree["extensions"] = {"KHR_lights_punctual": {"lights": [{"type": "spot", "spot": {}}]}}
    return made


HALF_METAL = np.full((2, 2, 3), 128, np.uint8)
SEEN_THROUGH = np.full((2, 2, 4), 128, np.uint8)


@pytest.mark.parametrize(
    ("made", "feature"),
    [
        (with_material(normalTexture={"index": 0}), "normal map"),
        (with_material(alphaMode="BLEND", pbrMetallicRoughness={"baseColorFactor": [1, 1, 1, 0.5]}), "transparency"),
        (with_texture(SEEN_THROUGH, alphaMode="BLEND"), "transparency"),
        (with_material(pbrMetallicRoughness={"metallicFactor": 0.5}), "mixed metalness"),
        (with_texture(HALF_METAL, "metallicRoughnessTexture", pbrMetallicRoughness={
            "metallicRoughnessTexture": {"index": 0}}), "mixed metalness"),
        (with_material(extensions={"KHR_materials_transmission": {"transmissionFactor": 1}}), "KHR_materials_transmission"),
        (with_material(extensions={"KHR_materials_unlit": {}}), "KHR_materials_unlit"),
        (with_texture(EIGHT, sampler={"wrapS": 33071}), "wraps"),
        (two_transforms(), "texture coordinates"),
        (with_node(skin=0), "skin"),
        (with_primitive(targets=[{}], **{"extras": 1}), None),
        (with_node(weights=[0.5]), None),
        (spot(), "spot light"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_in_one_line_or_left_out_by_name(tmp_path: Path, made: Gltf, feature: str | None) -> None:
    path = made.write(tmp_path / "model.glb")
    if feature is None:  # morph targets at rest, weights without targets
        read_gltf_scene(path)
        return
    with pytest.raises(Unsupported) as error:
        read_gltf_scene(path)
    assert feature in str(error.value) and "leave_out" in str(error.value) and "\n" not in str(error.value)
    with pytest.warns(UserWarning, match=f"{feature} left out"):
        assert len(read_gltf_scene(path, leave_out=[feature]).bodies) == 1


def test_morph_targets_points_and_extensions_are_refused(tmp_path: Path) -> None:
    made = with_primitive(targets=[{}])
    made.tree["nodes"][0]["weights"] = [0.5]
    lines = with_material(**diffuse([1, 1, 1]))
    lines.tree["meshes"][0]["primitives"].append({**lines.tree["meshes"][0]["primitives"][0], "mode": 1})
    required = with_material(**diffuse([1, 1, 1]))
    required.tree["extensionsRequired"] = ["EXT_something"]
    for file, feature in ((made, "morph targets"), (lines, "points and lines"), (required, "EXT_something")):
        path = file.write(tmp_path / "model.gltf")
        with pytest.raises(Unsupported, match=feature):
            read_gltf_scene(path)
        with pytest.warns(UserWarning, match=f"{feature} left out"):
            assert len(read_gltf_scene(path, leave_out=[feature]).bodies) == 1
    required.tree["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    with pytest.raises(Unsupported, match="export without compression"):
        read_gltf_scene(required.write(tmp_path / "draco.glb"))
    sparse = with_material(**diffuse([1, 1, 1]))
    sparse.tree["accessors"][0]["sparse"] = {}
    with pytest.raises(Unsupported, match="sparse"):
        read_gltf_scene(sparse.write(tmp_path / "sparse.glb"))


def test_extensions_that_are_off_and_opaque_blending_pass(tmp_path: Path) -> None:
    off = {"KHR_materials_clearcoat": {"clearcoatFactor": 0.0}, "KHR_materials_transmission": {}}
    quiet(with_material(**diffuse([1, 1, 1], extensions=off)).write(tmp_path / "off.glb"))
    opaque = np.full((2, 2, 4), 255, np.uint8)
    quiet(with_texture(opaque, alphaMode="BLEND").write(tmp_path / "opaque.glb"))


def test_what_is_approximate_is_said(tmp_path: Path) -> None:
    points, faces, _ = cube()
    made = Gltf()
    smooth = made.add((points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32))
    made.node(name="ball", mesh=made.mesh(points, faces, made.material(**diffuse([1, 1, 1])), NORMAL=smooth))
    made.tree["animations"] = [{}]
    texts = said(made.write(tmp_path / "a.glb"))
    assert any("shaded flat (ball)" in text for text in texts) and any("animations" in text for text in texts)
    flat = Gltf()
    normals = flat.add(
        np.repeat([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], 4, axis=0).astype(np.float32)
    )
    mesh = flat.mesh(points, faces, flat.material(**diffuse([1, 1, 1])), NORMAL=normals)
    flat.node(scale=[1.0, -2.0, 3.0], children=[flat.node(False, mesh=mesh, rotation=[0.2, 0.4, 0.4, 0.8])])
    quiet(flat.write(tmp_path / "b.glb"))
    assert any(
        "without the reflection" in t
        for t in said(with_material(pbrMetallicRoughness={"metallicFactor": 0}).write(tmp_path / "c.glb"))
    )
    worn = with_material(pbrMetallicRoughness={"metallicFactor": 0.95})
    assert any("within 0.1 of 0 or 1" in t for t in said(worn.write(tmp_path / "f.glb")))
    mirror = with_material(pbrMetallicRoughness={"roughnessFactor": 0})
    assert any("roughness below" in t for t in said(mirror.write(tmp_path / "d.glb")))
    double = with_material(doubleSided=True, **diffuse([1, 1, 1], emissiveFactor=[1, 1, 1]))
    assert any("front side only" in t for t in said(double.write(tmp_path / "e.glb")))


def spoilt(change: Any) -> Gltf:
    made = with_material(**diffuse([1, 1, 1]))
    change(made.tree)
    return made


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tree: tree["meshes"][0]["primitives"][0].update(indices=99), "accessor"),
        (lambda tree: tree["nodes"][0].update(mesh=-1), "expected a number in 0..0 of meshes, got -1"),
        (lambda tree: tree["nodes"][0].update(children=[0]), "node 0: expected one parent"),
        (lambda tree: tree["nodes"][0].update(children=[7]), "of nodes, got 7"),
        (lambda tree: tree["nodes"][0].update(matrix=[1, 2]), "broken one"),
        (lambda tree: tree["nodes"][0].update(rotation=[0, 0, 0, 0]), "expected a unit quaternion"),
        (lambda tree: tree["nodes"][0].update(translation=[0, 0, float("nan")]), "finite"),
        (lambda tree: tree["accessors"][0].update(count=10**9), "truncated or damaged"),
        (lambda tree: tree["accessors"][1].update(type="VEC2"), "expected 3 numbers each, got VEC2"),
        (lambda tree: tree["accessors"][0].update(componentType=1), "broken one (KeyError: 1)"),
        (lambda tree: tree["accessors"][0].update(count=2), "expected 24 values"),
        (lambda tree: tree["bufferViews"][0].update(byteLength=10**9), "truncated"),
        (lambda tree: tree["bufferViews"][0].update(buffer=3), "of buffers, got 3"),
        (lambda tree: tree.update(scene=4), "of scenes, got 4"),
        (lambda tree: tree.update(scenes=[{"nodes": []}]), "expected at least one mesh"),
        (lambda tree: tree.update(asset={"version": "1.0"}), "expected glTF version 2, got 1.0"),
        (lambda tree: tree["materials"][0]["pbrMetallicRoughness"].update(baseColorFactor=[2, 0, 0, 1]), "from 0 to 1"),
        (lambda tree: tree["materials"][0]["pbrMetallicRoughness"].update(baseColorTexture={"index": 0}), "of textures"),
        (lambda tree: tree["materials"][0].update(emissiveFactor=["a"]), "expected 3 numbers"),
        (lambda tree: tree["meshes"][0].update(primitives=3), "broken one"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_in_one_line(tmp_path: Path, change: Any, expected: str) -> None:
    with pytest.raises(UserError) as error:
        read_gltf_scene(spoilt(change).write(tmp_path / "model.gltf"))
    assert expected in str(error.value) and "\n" not in str(error.value) and "model.gltf" in str(error.value), str(error.value)


def test_damaged_bytes_are_refused_in_one_line(tmp_path: Path) -> None:
    points, faces, _ = cube()
    high, missing, uncoordinated, bad_image = Gltf(), with_material(**diffuse([1, 1, 1])), Gltf(), with_texture(EIGHT)
    high.node(mesh=high.mesh(points, faces + 20))
    missing.write(tmp_path / "missing.gltf", beside=True)
    (tmp_path / "its buffer.bin").unlink()
    paint = uncoordinated.material(name="paint", **diffuse([1, 1, 1], pbr={"baseColorTexture": uncoordinated.texture(EIGHT)}))
    uncoordinated.node(mesh=uncoordinated.mesh(points, faces, paint))
    view = bad_image.tree["bufferViews"][bad_image.tree["images"][0]["bufferView"]]
    start = view["byteOffset"]
    bad_image.content = bad_image.content[:start] + b"x" * view["byteLength"] + bad_image.content[start + view["byteLength"] :]
    whole = with_material(**diffuse([1, 1, 1])).write(tmp_path / "whole.glb").read_bytes()
    (tmp_path / "short.glb").write_bytes(whole[:-40])
    (tmp_path / "empty.glb").write_bytes(b"")
    (tmp_path / "text.gltf").write_text("{")
    (tmp_path / "list.gltf").write_text(json.dumps([1]))
    (tmp_path / "other.png").write_bytes(png(EIGHT))
    for path, expected in (
        (high.write(tmp_path / "high.glb"), "expected vertex numbers in 0..23, got 43"),
        (tmp_path / "missing.gltf", "expected its buffer 'its%20buffer.bin' beside it, found none"),
        (uncoordinated.write(tmp_path / "bare.glb"), "expected TEXCOORD_0, as material 'paint' has a texture"),
        (bad_image.write(tmp_path / "image.glb"), "expected image 0 as PNG or JPEG"),
        (tmp_path / "short.glb", "truncated"),
        (tmp_path / "empty.glb", "truncated"),
        (tmp_path / "text.gltf", "expected the JSON of a glTF"),
        (tmp_path / "list.gltf", "expected the JSON of a glTF"),
        (tmp_path / "none.glb", "expected a file, found none"),
        (tmp_path, "found a folder"),
        (tmp_path / "other.png", "expected .gltf or .glb"),
    ):
        with pytest.raises(UserError) as error:
            read_gltf_scene(path)
        assert expected in str(error.value) and "\n" not in str(error.value), str(error.value)

"""The MuJoCo model of arm, table, objects and lamp, and how the scene of an episode is written over it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.settings import SceneConfig
from vjepa2cli.simulation.arm import HAND_COLLIDES, OBJECT_COLLIDES, add_arm
from vjepa2cli.simulation.patterns import SIDE, draw_pattern
from vjepa2cli.simulation.scene import COLOURS, NUM_PATTERNS, SHAPES, UNSEEN_COLOURS, UNSEEN_SHAPES, Scene, Surface

Array = NDArray[np.float64]

TIMESTEP = 0.005
"""Seconds of one step of the physics."""
_OBJECT_SIZE = 0.028
_OBJECT_MASS = 0.05
_WALL_BEHIND, _WALL_HEIGHT = -0.18, 0.5
_SIZES = {"box": (1, 1, 1), "sphere": (1, 0, 0), "cylinder": (1, 1, 0), "capsule": (1, 0.35, 0), "ellipsoid": (1, 1, 0.8)}
"""MuJoCo's sizes of a shape, in half widths."""
_HEIGHTS = {"box": 1.0, "sphere": 1.0, "cylinder": 1.0, "capsule": 1.35, "ellipsoid": 0.8}
"""How high the middle of a shape is above the table, in half widths."""


def build_model(mujoco: Any, config: SceneConfig, *, image_size: int) -> Any:
    """The compiled model of all scenes of a config, to be drawn in squares of up to `image_size` pixels."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.visual.global_.offwidth = spec.visual.global_.offheight = image_size
    spec.visual.quality.shadowsize = 512
    spec.visual.quality.offsamples = 0
    spec.visual.quality.numslices, spec.visual.quality.numstacks = 16, 8
    spec.stat.extent, spec.stat.center = 0.5, [0.5, 0.0, 0.1]
    spec.visual.headlight.specular = [0, 0, 0]
    spec.visual.headlight.ambient = [0, 0, 0]
    spec.visual.headlight.diffuse = [0.55, 0.55, 0.55]
    world = spec.worldbody
    _add_table(mujoco, spec)
    if config.textures == "varied":
        _add_patterns(mujoco, spec)
    # A spot lamp: the shadow map of a directional one speckles the table at this resolution.
    light = world.add_light(name="lamp", pos=[0.5, 0, 1.5], dir=[0, 0, -1], castshadow=True, specular=[0, 0, 0])
    light.type = mujoco.mjtLightType.mjLIGHT_SPOT
    light.cutoff, light.exponent, light.attenuation = 45, 0, [1, 0, 0]
    world.add_camera(name="exterior", pos=[1, 0, 1], fovy=44)
    add_arm(mujoco, spec, gripper=config.gripper)
    for index in range(config.num_objects):
        _add_object(mujoco, world, index, _shapes(config))
    for index in range(config.movers):
        _add_mover(mujoco, world, index)
    return spec.compile()


def _shapes(config: SceneConfig) -> Sequence[str]:
    return UNSEEN_SHAPES if config.unseen_objects else SHAPES


def _add_table(mujoco: Any, spec: Any) -> None:
    spec.add_texture(
        name="checker",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.62, 0.60, 0.55],
        rgb2=[0.50, 0.48, 0.45],
        width=64,
        height=64,
    )
    material = spec.add_material(name="table", texrepeat=[10, 10], specular=0, reflectance=0)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "checker"
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[1.5, 1.5, 0.1],
        material="table",
        contype=0,
        conaffinity=OBJECT_COLLIDES,
    )


def _add_patterns(mujoco: Any, spec: Any) -> None:
    """A wall behind the arm, and every pattern as a material for it and one for the table: an episode picks two."""
    for number in range(NUM_PATTERNS):
        texture = spec.add_texture(
            name=f"pattern{number}", type=mujoco.mjtTexture.mjTEXTURE_2D, width=SIDE, height=SIDE, nchannel=3
        )
        texture.data = draw_pattern(number).tobytes()
        for place in ("table", "wall"):
            material = spec.add_material(name=f"{place}{number}", specular=0, reflectance=0)
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = f"pattern{number}"
    spec.worldbody.add_geom(
        name="wall",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=[_WALL_BEHIND, 0, _WALL_HEIGHT],
        quat=[np.sqrt(0.5), 0, np.sqrt(0.5), 0],
        size=[_WALL_HEIGHT, 1.5, 0.1],
        material="wall0",
        contype=0,
        conaffinity=0,
    )


def _add_object(mujoco: Any, world: Any, index: int, shapes: Sequence[str]) -> None:
    """A free body with one geom a shape, of which an episode shows one; the compiled sizes bound every size it may get."""
    body = world.add_body(name=f"object{index}", pos=[0.5, 0, 0.1 + 0.1 * index])
    body.add_joint(name=f"object{index}", type=mujoco.mjtJoint.mjJNT_FREE, damping=1e-4)
    body.explicitinertial, body.mass, body.inertia, body.ipos = True, _OBJECT_MASS, [2e-5] * 3, [0, 0, 0]
    for shape in shapes:
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.upper()}")
        geom = body.add_geom(name=f"object{index}_{shape}", type=kind, size=[_OBJECT_SIZE] * 3)
        geom.friction, geom.condim = [1.2, 0.02, 0.002], 4
        geom.contype, geom.conaffinity = OBJECT_COLLIDES, OBJECT_COLLIDES | HAND_COLLIDES


def _add_mover(mujoco: Any, world: Any, index: int) -> None:
    """A body that is put where it should be and that nothing touches, with one geom a shape."""
    body = world.add_body(name=f"mover{index}", pos=[0.1, 0, 0.05], mocap=True)
    for shape in SHAPES:
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.upper()}")
        body.add_geom(name=f"mover{index}_{shape}", type=kind, size=[2 * _OBJECT_SIZE] * 3, contype=0, conaffinity=0)


def dress(mujoco: Any, model: Any, data: Any, scene: Scene) -> None:
    """Write the scene's objects, surfaces, lamp and camera over whatever the model held."""
    for index, item in enumerate(scene.objects):
        colour = (COLOURS | UNSEEN_COLOURS)[item.colour]
        _show(model, f"object{index}", item.shape, item.size, colour, collides=True)
        start, height = model.joint(f"object{index}").qposadr[0], item.size * _HEIGHTS[item.shape]
        data.qpos[start : start + 7] = [item.x, item.y, height, np.cos(item.yaw / 2), 0, 0, np.sin(item.yaw / 2)]
    for index, mover in enumerate(scene.movers):
        _show(model, f"mover{index}", mover.shape, mover.size, tuple(mover.colour), collides=False)
    for place, surface in (("table", scene.table), ("wall", scene.wall)):
        if surface is not None:
            _cover(model, place, surface)
    model.light("lamp").pos = scene.lamp_position
    model.light("lamp").diffuse = scene.lamp_colour
    model.light("lamp").ambient = scene.ambient
    back = scene.camera_position - scene.camera_target
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right = right / np.linalg.norm(right)
    turned = np.stack([right, np.cross(back, right), back], axis=1)
    camera = model.camera("exterior")
    camera.pos = scene.camera_position
    mujoco.mju_mat2Quat(model.cam_quat[camera.id], turned.ravel())


def _show(model: Any, body: str, shape: str, size: float, colour: tuple[float, ...], *, collides: bool) -> None:
    """Of a body's geoms, show the one of a shape."""
    for name in UNSEEN_SHAPES if shape in UNSEEN_SHAPES else SHAPES:
        shown = name == shape
        geom = model.geom(f"{body}_{name}").id
        if collides:
            model.geom_contype[geom] = OBJECT_COLLIDES if shown else 0
            model.geom_conaffinity[geom] = OBJECT_COLLIDES | HAND_COLLIDES if shown else 0
        model.geom_size[geom] = size * np.array(_SIZES[name])
        model.geom_rgba[geom] = [*colour, 1.0 if shown else 0.0]


def _cover(model: Any, place: str, surface: Surface) -> None:
    material = model.material(f"{place}{surface.pattern}").id
    model.geom_matid[model.geom(place).id] = material
    model.mat_rgba[material] = [*surface.tint, 1.0]
    model.mat_texrepeat[material] = surface.repeat

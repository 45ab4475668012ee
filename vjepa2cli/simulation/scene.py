"""What stands on the table and how it is lit and filmed: plain numbers, a function of the seed alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORKSPACE_LOW = np.array([0.35, -0.15, 0.045])
WORKSPACE_HIGH = np.array([0.65, 0.15, 0.245])
ORIENTATION_LIMIT = np.array([0.3, 0.3, 0.8])
"""Largest roll, pitch and yaw of the hand, in radians, either way from pointing straight down."""

SHAPES = ("box", "sphere", "cylinder")
COLOURS: dict[str, tuple[float, float, float]] = {
    "green": (0.10, 0.65, 0.20),
    "purple": (0.50, 0.15, 0.65),
    "orange": (0.95, 0.50, 0.10),
    "cyan": (0.10, 0.70, 0.75),
    "pink": (0.95, 0.50, 0.70),
    "white": (0.95, 0.95, 0.95),
}
"""Colours of objects; none is a colour of the hand."""

CAMERA_POSITION = np.array([1.01, 0.0, 0.62])
CAMERA_TARGET = np.array([0.47, 0.0, 0.155])
_LAMP_POSITION = np.array([0.60, -0.06, 1.5])
_LAMP_COLOUR = np.array([0.40, 0.40, 0.40])
_AMBIENT = 0.30
_MARGIN = 0.03
_APART = 0.09
_CANDIDATES = 64


@dataclass(frozen=True)
class SceneObject:
    """An object on the table: its `size` is the half width in metres, `x`, `y` the middle, `yaw` in radians."""

    shape: str
    colour: str
    size: float
    x: float
    y: float
    yaw: float


@dataclass(frozen=True)
class Scene:
    """One episode's objects, light and camera; lengths in metres, base frame."""

    objects: tuple[SceneObject, ...]
    lamp_position: NDArray[np.float64]
    lamp_colour: NDArray[np.float64]
    ambient: float
    camera_position: NDArray[np.float64]
    camera_target: NDArray[np.float64]


def sample_scene(seed: int, *, num_objects: int, camera_jitter: float, light_jitter: float) -> Scene:
    """The scene of `seed`: `camera_jitter` in metres, `light_jitter` as a share, of the lamp's brightness and of its height (the
    lamp shifts by so much).

    Each property has its own stream, so a change of one jitter moves nothing else.
    """
    light = np.random.default_rng([seed, 1])
    camera = np.random.default_rng([seed, 2])
    brightness = 1.0 + light_jitter * light.uniform(-1, 1)
    tint = 1.0 + 0.3 * light_jitter * light.uniform(-1, 1, 3)
    return Scene(
        objects=_sample_objects(np.random.default_rng([seed, 0]), num_objects),
        lamp_position=_LAMP_POSITION + 1.5 * light_jitter * light.uniform(-1, 1, 3) * [1, 1, 0],
        lamp_colour=np.clip(_LAMP_COLOUR * brightness * tint, 0, 1),
        ambient=float(np.clip(_AMBIENT * (1.0 + light_jitter * light.uniform(-1, 1)), 0, 1)),
        camera_position=CAMERA_POSITION + camera_jitter * camera.uniform(-1, 1, 3),
        camera_target=CAMERA_TARGET + 0.5 * camera_jitter * camera.uniform(-1, 1, 3) * [1, 1, 0],
    )


def _sample_objects(rng: np.random.Generator, num_objects: int) -> tuple[SceneObject, ...]:
    colours = rng.permutation(sorted(COLOURS))
    low, high = WORKSPACE_LOW[:2] + _MARGIN, WORKSPACE_HIGH[:2] - _MARGIN
    placed: list[NDArray[np.float64]] = []
    objects = []
    for index in range(num_objects):
        candidates = rng.uniform(low, high, size=(_CANDIDATES, 2))
        middle = _first_apart(candidates, placed)
        placed.append(middle)
        objects.append(
            SceneObject(
                shape=str(rng.choice(SHAPES)),
                colour=str(colours[index % len(colours)]),
                size=float(rng.uniform(0.020, 0.025)),
                x=float(middle[0]),
                y=float(middle[1]),
                yaw=float(rng.uniform(-np.pi / 4, np.pi / 4)),
            )
        )
    return tuple(objects)


def _first_apart(candidates: NDArray[np.float64], placed: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The first candidate well away from all that is placed, or else the farthest one."""
    gaps = [np.linalg.norm(candidates - other, axis=1) for other in placed]
    distance = np.min([np.full(len(candidates), np.inf), *gaps], axis=0)
    apart = np.flatnonzero(distance > _APART)
    first: NDArray[np.float64] = candidates[apart[0] if len(apart) else int(distance.argmax())]
    return first


def sample_start(seed: int, scene: Scene) -> NDArray[np.float64]:
    """A hand pose [7] in the workspace that touches no object of `scene`."""
    rng = np.random.default_rng([seed, 3])
    for _ in range(_CANDIDATES):
        position = rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)
        if clearance(position, scene) > 0:
            break
    return np.concatenate([position, [0.0, 0.0, rng.uniform(-0.4, 0.4)], [rng.uniform(0, 1)]])


def clearance(position: NDArray[np.float64], scene: Scene) -> float:
    """Metres between the hand's envelope at `position` [3] and the nearest object; negative where they may touch."""
    gaps = [
        max(position[2] - 0.036 - 2 * item.size, np.hypot(position[0] - item.x, position[1] - item.y) - 0.08 - 1.4 * item.size)
        for item in scene.objects
    ]
    return float(min(gaps, default=np.inf))

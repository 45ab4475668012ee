"""What stands on the table and how it is lit and filmed: plain numbers, a function of config, seed and moment alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vjepa2cli.settings import SceneConfig

Array = NDArray[np.float64]

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
UNSEEN_SHAPES = ("capsule", "ellipsoid")
UNSEEN_COLOURS: dict[str, tuple[float, float, float]] = {
    "brown": (0.40, 0.22, 0.08),
    "lime": (0.70, 0.90, 0.15),
    "teal": (0.00, 0.35, 0.35),
    "salmon": (0.95, 0.45, 0.35),
    "lilac": (0.70, 0.60, 0.95),
    "black": (0.05, 0.05, 0.05),
}
"""What objects are like where the config says that they were never seen."""

CAMERA_POSITION = np.array([1.01, 0.0, 0.62])
CAMERA_TARGET = np.array([0.47, 0.0, 0.155])
_LAMP_POSITION = np.array([0.60, -0.06, 1.5])
_LAMP_COLOUR = np.array([0.40, 0.40, 0.40])
_AMBIENT = 0.30
_MARGIN = 0.03
_APART = 0.09
_CANDIDATES = 64

NUM_PATTERNS = 24
_ROAMED = ((0.02, -0.35, 0.26, 0.35), (0.28, 0.21, 0.58, 0.31), (0.28, -0.31, 0.58, -0.21))
"""Rectangles x, y to x, y in view of the camera and out of the hand's reach: behind the workspace, and on either side."""
_MOVER_SPEED, _MOVER_PERSISTENCE = 0.05, 0.7


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
class Surface:
    """How the table or the wall looks: the number of a pattern, a tint [3] that it is multiplied by, and repeats [2]."""

    pattern: int
    tint: Array
    repeat: Array


@dataclass(frozen=True)
class Mover:
    """Something that wanders about in the rectangle `roamed`; its `size` is the half width in metres."""

    shape: str
    colour: Array
    size: float
    roamed: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """One episode's objects, light and camera; lengths in metres, base frame. `table` and `wall` are None for the checker."""

    objects: tuple[SceneObject, ...]
    lamp_position: Array
    lamp_colour: Array
    ambient: float
    camera_position: Array
    camera_target: Array
    table: Surface | None = None
    wall: Surface | None = None
    movers: tuple[Mover, ...] = ()


def sample_scene(seed: int, config: SceneConfig, *, moment: int = 0) -> Scene:
    """The scene of `seed`. Another `moment` than 0 is that of a goal image, which may have another light.

    Each property has its own stream, so a change of one key moves nothing else.
    """
    camera = np.random.default_rng([seed, 2])
    position = CAMERA_POSITION + config.camera_jitter * camera.uniform(-1, 1, 3)
    target = CAMERA_TARGET + 0.5 * config.camera_jitter * camera.uniform(-1, 1, 3) * [1, 1, 0]
    lamp_position, lamp_colour, ambient = _sample_light(seed, config, goal=moment != 0)
    surfaces = np.random.default_rng([seed, 4])
    varied = config.textures == "varied"
    return Scene(
        objects=_sample_objects(np.random.default_rng([seed, 0]), config),
        lamp_position=lamp_position,
        lamp_colour=lamp_colour,
        ambient=ambient,
        camera_position=position + config.camera_shift * _direction(camera),
        camera_target=target,
        table=_sample_surface(surfaces, (3.0, 9.0)) if varied else None,
        wall=_sample_surface(surfaces, (2.0, 6.0)) if varied else None,
        movers=tuple(_sample_mover(np.random.default_rng([seed, 5, index])) for index in range(config.movers)),
    )


def _sample_light(seed: int, config: SceneConfig, *, goal: bool) -> tuple[Array, Array, float]:
    """Place, colour and share of ambient light of the lamp."""
    light, jitter = np.random.default_rng([seed, 1]), config.light_jitter
    brightness = 1.0 + jitter * light.uniform(-1, 1)
    tint = 1.0 + 0.3 * jitter * light.uniform(-1, 1, 3)
    position = _LAMP_POSITION + 1.5 * jitter * light.uniform(-1, 1, 3) * [1, 1, 0]
    colour = np.clip(_LAMP_COLOUR * brightness * tint, 0, 1)
    ambient = _AMBIENT * (1.0 + jitter * light.uniform(-1, 1))
    for shift, applies in ((config.light_shift, True), (config.goal_light_shift, goal)):
        # Drawn even where it is not used: what comes after must not depend on it.
        sign, angle, hue = light.choice([-1.0, 1.0]), light.uniform(0, 2 * np.pi), light.uniform(-1, 1, 3)
        if applies and shift:
            position = position + 0.5 * shift * np.array([np.cos(angle), np.sin(angle), 0.0])
            colour = colour * (1.0 + sign * shift) * (1.0 + 0.4 * shift * hue)
            ambient *= 1.0 + 0.7 * sign * shift
    return position, np.clip(colour, 0, 1), float(np.clip(ambient, 0, 1))


def _direction(rng: np.random.Generator) -> Array:
    """A unit vector, any with equal chance."""
    vector: Array = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _sample_surface(rng: np.random.Generator, repeats: tuple[float, float]) -> Surface:
    return Surface(int(rng.integers(NUM_PATTERNS)), rng.uniform(0.45, 1.0, 3), np.full(2, rng.uniform(*repeats)))


def _sample_mover(rng: np.random.Generator) -> Mover:
    return Mover(
        shape=str(rng.choice(SHAPES)),
        colour=rng.uniform(0.05, 1.0, 3),
        size=float(rng.uniform(0.025, 0.05)),
        roamed=_ROAMED[int(rng.integers(len(_ROAMED)))],
    )


class Wandering:
    """Where a mover is: it starts anywhere in its rectangle, and drifts with a velocity that nobody can foresee."""

    def __init__(self, mover: Mover, *, seed: int, index: int, moment: int) -> None:
        """A function of all three; what it does does not depend on what the arm does."""
        self._rng = np.random.default_rng([seed, 6, index, moment])
        self._low, self._high = np.array(mover.roamed[:2]), np.array(mover.roamed[2:])
        self.place: Array = self._rng.uniform(self._low, self._high)
        self._velocity: Array = self._rng.normal(0, _MOVER_SPEED, 2)

    def step(self) -> None:
        """Go on by one action's time."""
        kept = _MOVER_PERSISTENCE
        self._velocity = kept * self._velocity + np.sqrt(1 - kept**2) * self._rng.normal(0, _MOVER_SPEED, 2)
        wanted = self.place + self._velocity
        self.place = np.clip(wanted, self._low, self._high)
        self._velocity = np.where(wanted == self.place, self._velocity, -self._velocity)


def _sample_objects(rng: np.random.Generator, config: SceneConfig) -> tuple[SceneObject, ...]:
    colours = rng.permutation(sorted(UNSEEN_COLOURS if config.unseen_objects else COLOURS))
    shapes = UNSEEN_SHAPES if config.unseen_objects else SHAPES
    low, high = WORKSPACE_LOW[:2] + _MARGIN, WORKSPACE_HIGH[:2] - _MARGIN
    placed: list[Array] = []
    objects = []
    for index in range(config.num_objects):
        candidates = rng.uniform(low, high, size=(_CANDIDATES, 2))
        middle = _first_apart(candidates, placed)
        placed.append(middle)
        objects.append(
            SceneObject(
                shape=str(rng.choice(shapes)),
                colour=str(colours[index % len(colours)]),
                size=float(rng.uniform(0.020, 0.025)),
                x=float(middle[0]),
                y=float(middle[1]),
                yaw=float(rng.uniform(-np.pi / 4, np.pi / 4)),
            )
        )
    return tuple(objects)


def _first_apart(candidates: Array, placed: list[Array]) -> Array:
    """The first candidate well away from all that is placed, or else the farthest one."""
    gaps = [np.linalg.norm(candidates - other, axis=1) for other in placed]
    distance = np.min([np.full(len(candidates), np.inf), *gaps], axis=0)
    apart = np.flatnonzero(distance > _APART)
    first: Array = candidates[apart[0] if len(apart) else int(distance.argmax())]
    return first


def sample_start(seed: int, scene: Scene) -> Array:
    """A hand pose [7] in the workspace that touches no object of `scene`."""
    rng = np.random.default_rng([seed, 3])
    for _ in range(_CANDIDATES):
        position = rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)
        if clearance(position, scene) > 0:
            break
    return np.concatenate([position, [0.0, 0.0, rng.uniform(-0.4, 0.4)], [rng.uniform(0, 1)]])


def clearance(position: Array, scene: Scene) -> float:
    """Metres between the hand's envelope at `position` [3] and the nearest object; negative where they may touch."""
    gaps = [
        max(position[2] - 0.036 - 2 * item.size, np.hypot(position[0] - item.x, position[1] - item.y) - 0.08 - 1.4 * item.size)
        for item in scene.objects
    ]
    return float(min(gaps, default=np.inf))

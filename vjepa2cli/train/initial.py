"""What a pretraining begins with in place of fresh weights: a model, or the whole state of another run.

Positions are computed from the clip at hand, so a model goes on at another resolution or length as it is: V-JEPA 2 counts its
rows, columns and tubelets on, V-JEPA 2.1 stretches its rows and columns to those of its first training.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from vjepa2cli import config as configs
from vjepa2cli.errors import ConfigError
from vjepa2cli.files import digest_json, read_json
from vjepa2cli.models.checkpoints import read_checkpoint
from vjepa2cli.models.encoder import EncoderSpec
from vjepa2cli.models.predictor import PredictorSpec
from vjepa2cli.models.predictor_v21 import PredictorV21Spec
from vjepa2cli.models.weights import load_encoder, load_predictor, state_digest
from vjepa2cli.settings import PretrainConfig
from vjepa2cli.train.networks import encoder_spec, predictor_spec
from vjepa2cli.train.objective import PretrainModule

_FREE = {"crop", "num_frames", "inference_mask_index"}
"""What may differ between a model and the config that goes on with it."""


@dataclass(frozen=True)
class Initial:
    """A source of weights: its content's digest, how many updates went into it, and the checkpoint to load where it is a run."""

    digest: str
    trained_steps: int
    checkpoint: Path | None = None


def continue_run(run_dir: Path, config: PretrainConfig) -> Initial | None:
    """The newest whole checkpoint of a run, or None where `run_dir` has none.

    Raises ConfigError where the run trains other networks than the config describes; crop and length may differ.
    """
    checkpoint = max(run_dir.glob("checkpoints/step_*"), default=None)
    if checkpoint is None:
        return None
    theirs = configs.load(run_dir / "config.yaml", PretrainConfig)
    _check_same(str(run_dir), "encoder", encoder_spec(theirs), encoder_spec(config))
    _check_same(str(run_dir), "predictor", predictor_spec(theirs), predictor_spec(config))
    origin, step = read_json(run_dir / "provenance.json"), int(checkpoint.name.removeprefix("step_"))
    before: int = origin.get("initial", {}).get("trained_steps", 0)
    # A checkpoint is a function of the config, of what was read, and of the step.
    return Initial(digest_json([origin["config_digest"], origin["inputs"], origin["seed"], step]), before + step, checkpoint)


def give_weights(source: str, module: PretrainModule, *, config: PretrainConfig) -> Initial:
    """Put the encoder, the target encoder and the predictor of `source` (see `models.weights`) into `module`.

    A source with one encoder gives it to both. Raises WeightsError where it does not load, ConfigError where it is another
    network than the config describes; crop and length may differ.
    """
    checkpoint = read_checkpoint(source)
    heads, predictor_heads = encoder_spec(config).num_heads, predictor_spec(config).num_heads
    online = load_encoder(source, heads, checkpoint_key="encoder" if "encoder" in checkpoint.networks else None)
    target = load_encoder(source, heads)
    predictor = load_predictor(source, predictor_heads)
    _check_same(source, "encoder", online.spec, encoder_spec(config))
    _check_same(source, "predictor", predictor.spec, predictor_spec(config))
    for own, given in ((module.encoder, online), (module.target_encoder, target), (module.predictor, predictor)):
        own.load_state_dict(given.state_dict())
    about = checkpoint.config.get("vjepa2cli", {})
    digest = digest_json([state_digest(network) for network in (online, target, predictor)])
    return Initial(digest, int(about.get("trained_steps", 0)))


def _check_same(source: str, network: str, given: object, wanted: EncoderSpec | PredictorSpec | PredictorV21Spec) -> None:
    if type(given) is not type(wanted):
        raise ConfigError(f"{source}: its {network} is no {type(wanted).__name__.removesuffix('Spec')}; set encoder.architecture")
    before, now = asdict(given), asdict(wanted)
    for name in now:
        if name not in _FREE and before[name] != now[name]:
            raise ConfigError(f"{source}: its {network} has {name} {before[name]}, the config says {now[name]}")

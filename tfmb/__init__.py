"""tfmb: mini-batch gradient descent for Keras models, with hand-written update rules.

The public names stand below. TensorFlow is imported when the first of them that needs it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmb import callbacks, data, distribution, errors, layers, models, optimizers
    from tfmb.advice.advise import advise
    from tfmb.advice.lr_range import lr_range
    from tfmb.distribution.strategy import configure_replicas
    from tfmb.patching.keras_patch import patch_keras
    from tfmb.serving.export import export
    from tfmb.training.fit import fit
    from tfmb.training.inference import evaluate, predict
    from tfmb.tuning.tune import tune
    from tfmb.verification.verify import verify

__version__ = "0.2.0"

__all__ = [
    "advise",
    "callbacks",
    "configure_replicas",
    "data",
    "distribution",
    "errors",
    "evaluate",
    "export",
    "fit",
    "layers",
    "lr_range",
    "models",
    "optimizers",
    "patch_keras",
    "predict",
    "tune",
    "verify",
]

_MODULES = {
    "advise": "tfmb.advice.advise",
    "lr_range": "tfmb.advice.lr_range",
    "configure_replicas": "tfmb.distribution.strategy",
    "export": "tfmb.serving.export",
    "evaluate": "tfmb.training.inference",
    "fit": "tfmb.training.fit",
    "patch_keras": "tfmb.patching.keras_patch",
    "predict": "tfmb.training.inference",
    "tune": "tfmb.tuning.tune",
    "verify": "tfmb.verification.verify",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tfmb' has no attribute {name!r}")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    return importlib.import_module(f"tfmb.{name}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

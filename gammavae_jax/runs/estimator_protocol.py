"""The protocol of scikit-learn's estimators, without importing scikit-learn.

Importing `sklearn.base` takes longer than importing everything else that scores a
recording needs. scikit-learn itself recognises estimators by these methods.
"""

import functools
import inspect
from typing import Any

from gammavae_jax.errors import InputError


class Estimator:
    """A class whose parameters are the keyword arguments of its `__init__`."""

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Return the default of each parameter, sorted by name."""
        parameters = inspect.signature(cls).parameters.items()
        return {name: parameter.default for name, parameter in sorted(parameters)}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; no parameter is an estimator, so `deep` is ignored."""
        del deep
        return {name: getattr(self, name) for name in self._defaults()}

    def set_params(self, **parameters: Any) -> Any:
        """Set parameters, and return the estimator.

        Raises:
            ValueError: a parameter is unknown; then, none is set.
        """
        known = self._defaults()
        for name in parameters:
            if name not in known:
                problem = f"{type(self).__name__} has no parameter {name!r}"
                raise ValueError(f"{problem}: choose from {', '.join(known)}")
        for name, value in parameters.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = self._defaults()
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if repr(value) != repr(defaults[name])
        )
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's description of the estimator."""
        from sklearn.utils import Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=None,
            regressor_tags=None,
            classifier_tags=None,
        )


@functools.cache
def not_fitted_error() -> type[InputError]:
    """Return a class of errors that is also scikit-learn's `NotFittedError`."""
    from sklearn.exceptions import NotFittedError

    content = {"__module__": __name__}
    return type("NotFittedError", (InputError, NotFittedError), content)


def __getattr__(name: str) -> Any:  # pickle looks for the class in this module
    if name == "NotFittedError":
        return not_fitted_error()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A check that all layers of a model support masks."""

from ._combinators import Combinator
from ._layer import Layer
from ._rule import NoRule, Rule, WithMethod


def check_masks(model: Layer) -> None:
    """Refuses a model with a layer whose rule does not support masks.

    Raises:
        NotImplementedError: names the layer.
    """
    _check(model.rule, model.name)


def _check(rule: Rule, name: str) -> None:
    if isinstance(rule, Combinator):
        for inner, layer in zip(rule.rules, rule.layers, strict=True):
            _check(inner, layer.name)
    elif isinstance(rule, WithMethod):
        _check(rule.rule, name)
    elif not rule.masks and not isinstance(rule, NoRule):  # `NoRule` raises its own error
        raise NotImplementedError(
            f"{name}: features have no masks (mask_constant) behind this layer. Leave it out, or"
            " give examples of one size; the exact kernel_fn of Neural Tangents may have them."
        )

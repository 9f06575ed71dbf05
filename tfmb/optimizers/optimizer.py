"""`Optimizer`: owns the slots and the count, and is the only writer of weights."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfmb.backend import tf
from tfmb.choices import check_counts
from tfmb.errors import ConfigError
from tfmb.optimizers import one_pass, sparse, transforms
from tfmb.optimizers.adjustable import Adjustable
from tfmb.optimizers.hyper_parameters import AROUND, BY_KERAS, Common, check_number, check_positive, describe_rate
from tfmb.optimizers.shared_state import raw_variable, state_of, value_of
from tfmb.types import Slots, Tensor, Variable

__all__ = ["Common", "Optimizer", "raw_variable", "value_of"]


class Optimizer:
    """The base of the optimizers: a subclass names its slots and arguments, its `moments` and its `step`.

    Args:
        learning_rate: a float, or a function of the number of updates made so far (an int64 scalar tensor)
            that returns the rate: one of `tfmb.optimizers.schedules`, or a
            `keras.optimizers.schedules.LearningRateSchedule`.
        weight_decay: a factor, or None. Each update also subtracts `learning_rate * weight_decay * weight` (decoupled,
            as in Keras). See `exclude_from_weight_decay`.
        clipnorm: clips each variable's gradient to at most this norm.
        clipvalue: clips each entry of a gradient to [-clipvalue, clipvalue].
        global_clipnorm: clips all gradients together to at most this norm. Give at most one of these three. They act on
            the mean gradient of the whole batch, after the sum over replicas.
        use_ema: whether to keep an exponential moving average of the weights.
        ema_momentum: the momentum of that average, in [0, 1].
        ema_overwrite_frequency: the average replaces the weights each time this many updates are made; None for never.
        loss_scale_factor: a fixed factor on the loss, by which the gradients are divided again; None for none.
        gradient_accumulation_steps: the number of batches whose mean gradient makes one update; None for one. As in
            Keras, whose optimizer then makes the updates by our rule. See also `micro_batch_size` of `tfmb.fit`.
        name: the optimizer's name.

    Attributes:
        stands_for: the Keras optimizer whose place it takes, or None. On one device its variables are that one's own,
            so that both have the same state at every moment; see `counterparts`.
        scaled_by: the Keras `LossScaleOptimizer` around that one, or None.
        inside: what applies this one's rule inside a Keras optimizer, or None: see `interop.around_keras`.
        rounds_as_keras: whether to round to float32 the hyper-parameters that Keras rounds for weights of any dtype.
        iterations: int64 variable, the number of updates made. `build` makes it, the slots and the averages.
        slots: one tuple of variables for each trainable variable.
        averages: one variable for each trainable variable with `use_ema`, else none.
        replaced: the weights' values that the averages took the place of in the end, in the variables' order.
        not_decayed: the variables, and the patterns of names, that `exclude_from_weight_decay` was given.

    Raises:
        ConfigError: a hyper-parameter out of its range.

    Example:
        >>> weight = tf.Variable([1.0])
        >>> optimizer = tfmb.optimizers.SGD(learning_rate=0.1)
        >>> optimizer.apply([tf.constant([0.5])], [weight])
        >>> weight.numpy()
        array([0.95], dtype=float32)
    """

    slot_names: tuple[str, ...] = ()
    own_arguments: tuple[str, ...] = ()
    # Whether `apply` must be called in the cross-replica context; ours may be called in either.
    across_replicas = False

    def __init__(
        self,
        learning_rate: Any,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str = "optimizer",
    ) -> None:
        self.name = name
        check_counts(2, optional=True, gradient_accumulation_steps=gradient_accumulation_steps)
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.weight_decay = None if weight_decay is None else check_number(weight_decay, "weight_decay", low=0.0)
        self.loss_scale_factor, self.clipnorm, self.clipvalue, self.global_clipnorm = (
            None if value is None else check_positive(value, option)
            for value, option in (
                (loss_scale_factor, "loss_scale_factor"),
                (clipnorm, "clipnorm"),
                (clipvalue, "clipvalue"),
                (global_clipnorm, "global_clipnorm"),
            )
        )
        if sum(value is not None for value in (self.clipnorm, self.clipvalue, self.global_clipnorm)) > 1:
            raise ConfigError("Only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be set: choose one")
        self.use_ema = bool(use_ema)
        self.ema_momentum = check_number(ema_momentum, "ema_momentum", low=0.0, high=1.0)
        check_counts(optional=True, ema_overwrite_frequency=ema_overwrite_frequency)
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.stands_for: Any = None
        self.scaled_by: Any = None
        self.inside: Any = None
        self.rounds_as_keras = False
        self.iterations: Any = None
        self.slots: list[tuple[Any, ...]] = []
        self.averages: list[Any] = []
        self.replaced: list[Any] = []
        self._variables: list[Any] = []
        self._constraints: list[Any] = []
        self._decays: list[bool] = []
        self.not_decayed: tuple[list[Any], list[str]] = ([], [])
        self._excluded_ids: frozenset[Any] = frozenset()  # as Keras tells variables apart
        self._rate: Any = None
        self._shares = False
        self._schedule: Callable[[Any], Any] | None = None
        self._initial_rate = 0.0
        if callable(learning_rate):
            self._schedule = learning_rate
        else:
            self._initial_rate = check_number(learning_rate, "learning_rate", low=0.0)

    def moments(self, gradient: Tensor, slots: Slots, rate: Tensor, square: Tensor = None) -> Slots:
        """The new slots of one variable: the first half of the rule, which is pure like the second one.

        Between the halves a compiler can be told to write the slots first: see `one_pass`. Hyper-parameters are Python
        floats: 64 bits until they meet a tensor, whose dtype they then take.

        Args:
            gradient: the mean gradient, of the variable's shape and dtype.
            slots: one tensor for each of `slot_names`.
            rate: the learning rate, a scalar of that dtype.
            square: the square of the gradient, if that is not the gradient's own: see `sparse`; else None.
        """
        del gradient, rate, square
        return slots

    def derived(self, gradient: Tensor, moments: Slots, slots: Slots, rate: Tensor) -> Slots:
        """The new slots that are made of the new `moments`, such as AMSGrad's largest v; none by default.

        Args:
            gradient: as in `moments`.
            moments: the result of `moments`: the first slots.
            slots: all the old ones.
            rate: as in `moments`.
        """
        del gradient, moments, slots, rate
        return ()

    def step(self, gradient: Tensor, slots: Slots, rate: Tensor, count: Tensor) -> Any:
        """Returns the move of the variable: the second half of the rule.

        Args:
            gradient: as in `moments`.
            slots: the new ones.
            rate: as in `moments`.
            count: the number of this update from 1, a float64 scalar.
        """  # Abstract, but no ABC: Keras's optimizers stand behind subclasses that have no rule of ours.
        raise NotImplementedError(f"{type(self).__name__} must define step()")

    def rule(self, gradient: Tensor, slots: Slots, rate: Tensor, count: Tensor) -> tuple[Any, Slots]:
        """The update of one variable: (gradient, slots, rate, count) -> (delta, slots)."""
        new = self.moments(gradient, slots, rate)
        new += self.derived(gradient, new, slots, rate)
        return self.step(gradient, new, rate, count), new

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for records; a schedule by its own configuration."""
        return {
            "name": self.name,
            "learning_rate": describe_rate(self.learning_rate),
            **{name: getattr(self, name) for name in AROUND},
            # Left out if they are None: older records have no such arguments.
            **{name: value for name in BY_KERAS if (value := getattr(self, name)) is not None},
            **{name: getattr(self, name) for name in self.own_arguments},
        }

    @property
    def clips(self) -> bool:
        """Whether the optimizer limits gradients."""
        return any(limit is not None for limit in (self.clipnorm, self.clipvalue, self.global_clipnorm))

    def exclude_from_weight_decay(
        self, var_list: Sequence[Any] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Names the variables that do not decay, as in Keras; call it before the first update.

        Args:
            var_list: the variables themselves.
            var_names: regular expressions that are searched for in the variables' names, such as `"bias"`.

        Raises:
            ConfigError: it is called after `build`.
        """
        if self._variables:
            raise ConfigError("exclude_from_weight_decay must be called before the optimizer is built")
        self.not_decayed = (list(var_list or []), list(var_names or []))

    def exclude_as_keras(self, optimizer: Any) -> None:
        """Takes over the exclusions of a Keras optimizer's `exclude_from_weight_decay`."""
        ids = getattr(optimizer, "_exclude_from_weight_decay", None) or set()
        pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
        self._excluded_ids = frozenset(ids)
        self.not_decayed = ([], [pattern.pattern] if pattern else [])

    @property
    def learning_rate(self) -> Any:
        """The rate as a float, or the schedule. A float that is assigned holds from the next update, untraced."""
        if self._schedule is not None:
            return self._schedule
        return self._initial_rate if self._rate is None else float(str(value_of(self._rate)))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if self._schedule is not None:
            raise ConfigError(f"{self.name} follows a schedule: its learning rate cannot be assigned")
        self._initial_rate = check_number(value, "learning_rate", low=0.0)
        if self._rate is not None:
            self._rate.assign(self._initial_rate)
        elif self.stands_for is not None:  # whose rate it has once it is built
            self.stands_for.learning_rate = self._initial_rate

    @property
    def rate_variables(self) -> dict[str, Any]:
        """Keras's own rates, which its state holds, by their dotted place in `get_config`; ours is kept apart."""
        return {}

    def rate_at(self, updates: Tensor) -> Any:
        """The rate of the update after `updates` updates (an int64 scalar), as a float64 scalar."""
        if self._schedule is not None:
            return tf.cast(self._schedule(updates), tf.float64)
        return tf.cast(self._initial_rate if self._rate is None else self._rate, tf.float64)

    @property
    def variables(self) -> list[Any]:
        """The count, every slot, variable by variable, then the averages: all of our state but the rate."""
        if self.iterations is None:
            return []
        return [self.iterations, *(slot for slots in self.slots for slot in slots), *self.averages]

    def build(self, variables: Sequence[Any], in_place_of: Sequence[Any] | None = None) -> None:
        """Makes the slots of `variables` (`keras.Variable`s or `tf.Variable`s), zeros of their shape and dtype.

        Call it inside the strategy's scope. Building anew for other variables of the same shapes, such as a copy
        of the model, carries the state over; building for the same variables does nothing.

        Args:
            variables: the weights.
            in_place_of: the weights that they are copies of, by which `exclude_from_weight_decay` may have named them.

        Raises:
            ConfigError: it was built for variables of other shapes.
        """
        raw = [raw_variable(variable) for variable in variables]
        shares = self.stands_for is not None and not tf.distribute.has_strategy()
        if self._is_built_for(raw) and self._shares == shares:
            return
        old = [(v.shape, v.dtype) for v in self._variables]
        if self.stands_for is None and old and old != [(v.shape, v.dtype) for v in raw]:
            raise ConfigError(f"{self.name} was built for other variables: make a new optimizer for this model")
        if shares:
            self._share(variables)
        else:
            self._make(raw)
        self._shares = shares
        self._constraints = [getattr(variable, "constraint", None) for variable in variables]
        self._decays = [self._does_decay(v) for v in in_place_of or variables]
        self._variables = raw

    def counterparts(self, variables: Sequence[Any]) -> list[tuple[Any, Any]]:
        """(the Keras optimizer's variable, ours) for every one that is not the same variable anyway.

        Under a strategy that copies variables to its devices ours are others, and must be given values from Keras's
        before a training and for each look that user code takes.

        Args:
            variables: the Keras variables of the user's model, in the order of those that it was built for.
        """
        if self.stands_for is None or self._shares or self.iterations is None:
            return []
        theirs = state_of(self.stands_for, self.slot_names, variables)
        pairs = list(zip(theirs.variables, self.variables, strict=True))
        return pairs if theirs.rate is None or self._rate is None else [(theirs.rate, self._rate), *pairs]

    def _is_built_for(self, raw: list[Any]) -> bool:
        return len(raw) == len(self._variables) and all(a is b for a, b in zip(raw, self._variables, strict=True))

    def _share(self, variables: Sequence[Any]) -> None:
        """Takes the Keras optimizer's own variables."""
        theirs = state_of(self.stands_for, self.slot_names, variables)
        self.iterations, self._rate = theirs.iterations, theirs.rate
        self.slots, self.averages = theirs.slots, theirs.averages

    def _make(self, raw: list[Any]) -> None:
        """Makes variables of its own, with the values of those that it had."""
        with tf.init_scope():
            state = [value_of(variable) for variable in self.variables]
            rate = self._initial_rate if self._rate is None else value_of(self._rate)
            self._rate = None if self._schedule else tf.Variable(rate, dtype=tf.float64, trainable=False)
            self.iterations = tf.Variable(0, dtype=tf.int64, trainable=False, name="iterations")
            self.slots = [
                tuple(tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False, name=name) for name in self.slot_names)
                for v in raw
            ]
            self.averages = [tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False) for v in raw if self.use_ema]
            for variable, value in zip(self.variables, state, strict=False):
                if tuple(variable.shape) == value.shape:
                    variable.assign(value)

    def _does_decay(self, variable: Variable) -> bool:
        excluded, names = self.not_decayed
        raw = raw_variable(variable)
        by_id = {id(variable), getattr(raw, "_unique_id", None)} & self._excluded_ids
        listed = bool(by_id) or any(raw is raw_variable(v) for v in excluded)
        return not listed and not any(re.search(name, variable.name) for name in names)

    def apply(
        self, gradients: Sequence[Any], trainable_variables: Sequence[Any] | None = None, *, made: Any = None
    ) -> Any:
        """Makes one update from the mean gradients.

        Under a strategy the gradients must be reduced already; call it in the replica context with the same
        gradients on each replica, or in the cross-replica context.

        Args:
            gradients: one tensor for each variable, of its shape; None leaves that variable unchanged.
                `tf.IndexedSlices` are made dense, at once or where this stands for a Keras optimizer as late as there.
            trainable_variables: the variables, if `build` was not called before.
            made: a scalar bool tensor, in a function that XLA compiles alone: where it is False nothing changes.
                XLA would copy all that a branch may write; a choice of each value is part of the update's own pass.

        Returns:
            A scalar bool tensor: whether clipping changed the gradients.

        Raises:
            ConfigError: there is not one gradient for each variable, or none at all.
        """
        if trainable_variables is not None:
            self.build(trainable_variables)
        if len(gradients) != len(self._variables):
            raise ConfigError(f"{self.name}: {len(gradients)} gradients for {len(self._variables)} variables")
        if all(gradient is None for gradient in gradients):
            raise ConfigError(f"{self.name}: no gradient for any variable: does the loss depend on the model?")
        kinds = (tf.IndexedSlices, sparse.WithSquare) if self.rounds_as_keras else ()
        given = [g if g is None or isinstance(g, kinds) else tf.convert_to_tensor(g) for g in gradients]
        limited, clipped = transforms.clip(given, self.clipnorm, self.clipvalue, self.global_clipnorm)
        rate = self.rate_at(self.iterations)
        if made is None:
            count = tf.cast(self.iterations.assign_add(1), tf.float64)
        else:
            count = tf.cast(self.iterations + 1, tf.float64)
            self.iterations.assign_add(tf.cast(made, tf.int64))
        for i, gradient in enumerate(limited):
            if gradient is not None:
                self._update(i, gradient, rate, count, made)
        for variable, average in zip(self._variables, self.averages, strict=False):
            one_pass.average_on(average, variable, self.ema_momentum, self.ema_overwrite_frequency, count, made)
        for variable, gradient, constraint in zip(self._variables, limited, self._constraints, strict=True):
            if gradient is not None and constraint is not None:
                weight = tf.convert_to_tensor(variable)
                held = tf.cast(constraint(weight), weight.dtype)
                variable.assign(held if made is None else tf.where(made, held, weight))
        return clipped

    def overwrite_with_averages(self) -> None:
        """Puts the averages in the weights' place, as Keras does when `fit` ends; without `use_ema` nothing."""
        self.replaced = []
        if self.averages and int(value_of(self.iterations)):
            self.replaced = [value_of(variable) for variable in self._variables]
            for variable, average in zip(self._variables, self.averages, strict=True):
                variable.assign(value_of(average))

    def _update(self, index: int, gradient: Tensor, rate: Tensor, count: Tensor, made: Any) -> None:
        """One variable's update: moments, step, decay, one write."""
        variable, slots = self._variables[index], self.slots[index]
        rate = tf.cast(rate, variable.dtype)
        old = tuple(tf.convert_to_tensor(slot) for slot in slots)
        square = sparse.square_besides(gradient, variable)
        gradient = tf.cast(sparse.dense(gradient, variable.shape), variable.dtype)
        moments = self.moments(gradient, old, rate, square)
        new = one_pass.settle(made, moments, old[: len(moments)])
        new += one_pass.settle(made, self.derived(gradient, new, old, rate), old[len(new) :])
        delta = self.step(gradient, new, rate, count)
        if self.weight_decay and self._decays[index]:
            delta = transforms.decay(delta, variable, rate, self._rounded(self.weight_decay))
        for slot, value in zip(slots, new, strict=True):
            slot.assign(value)
        one_pass.move(variable, delta, made)

    def _rounded(self, value: Any) -> Any:
        """Returns a hyper-parameter as the rule uses it, rounded as in Keras if this stands for a Keras optimizer."""
        if not self.rounds_as_keras:
            return value
        return value.rounded() if isinstance(value, Adjustable) else float(np.float32(value))

"""The names of Keras, TensorFlow and Keras Tuner that we use though they promise nothing about them.

Each may go with any release: a test asks the installed versions for every one of them, and another one whether the
source uses a name that does not stand here. `setup.cfg` bounds the versions for their sake.
"""

from typing import Final

__all__ = ["KERAS_MODEL", "KERAS_OBJECTS", "KERAS_OPTIMIZER", "KERAS_TUNER", "MODULES", "TENSORFLOW"]

# Of a compiled model that was trained.
KERAS_MODEL: Final = {
    "_call_has_training_arg": "whether its call knows training from scoring",
    "_compile_config": "what it was compiled with, as it was given",
    "_compile_loss": "the compiled losses, whose own objects compute",
    "_compile_metrics": "the compiled metrics, whose own objects compute",
    "_compute_loss": "its compute_loss with or without the argument training",
    "_flatten_layers": "all layers, inner ones too",
    "_flatten_metrics_in_order": "logs in the order of compile",
    "_initial_epoch": "where BackupAndRestore goes on",
    "_loss_tracker": "the mean of the loss, in the logs",
    "_maybe_symbolic_build": "makes what `fit` makes before its first step, under a strategy",
}
KERAS_OPTIMIZER: Final = {
    "_distribution_strategy": "the strategy that it was made under",
    "_exclude_from_weight_decay": "variables without decay, by themselves",
    "_exclude_from_weight_decay_pattern": "variables without decay, by their names",
    "_get_variable_index": "the place of a variable among the slots",
    "_iterations": "the count of updates, shared with our rules",
    "_learning_rate": "the rate as it was given: a number or a schedule",
    "_model_variables_moving_average": "the averages of weights",
    "_momentums": "slots, shared with our rules",
    "_velocities": "slots, shared with our rules",
}
# Of other objects of Keras, by what they are of.
KERAS_OBJECTS: Final = {
    "_average_gradients": "RMSprop that is centered: a slot",
    "_flat_losses": "the compiled losses: one by one",
    "_flat_metrics": "the compiled metrics: one by one",
    "_flat_weighted_metrics": "the compiled metrics: those that are weighted",
    "_fn": "a metric that is the mean of a function: that",
    "_fn_kwargs": "a metric that is the mean of a function: its arguments",
    "_functional": "a Sequential: the functional model inside",
    "_inputs_struct": "a functional model: its inputs with their names",
    "_outputs_struct": "a functional model: its outputs with their names",
    "_is_default": "a callback's hook: that it is not overridden",
    "_keras_history": "a symbolic tensor: the layer that it comes from",
    "_keras_logits": "the output of a softmax: its input",
    "_keras_mask": "the output of a layer: its mask",
    "_seed_generators": "a layer: its seed states",
    "_velocity_hats": "Adam with amsgrad: a slot",
}
TENSORFLOW: Final = {
    "_cross_device_ops": "a mirrored strategy's extended: how it reduces",
    "_distribute_strategy": "an object made under a strategy: that strategy",
    "_distribution_strategy_stack": "a graph: the scopes of strategies in which its user stands",
    "_handle_data": "a variable's handle: its shape and dtype",
    "_unique_id": "a variable: what Keras excludes from decay by",
    "_variable_creator_stack": "a graph: what makes variables in these scopes",
}
KERAS_TUNER: Final = {
    "_nonfixed_space": "the Bayesian oracle: the space without what is fixed",
    "_populate_next": "Hyperband's and the grid's oracle: trials that others wait for",
    "_record_values": "an oracle: keeps in mind what was tried",
    "_retry_queue": "an oracle: trials that are to be tried again",
    "_set_project_dir": "an oracle: where it may write",
}
# What lies in modules that are no part of the public interface: the module, then the name.
MODULES: Final = {
    "keras.src.backend.common": "global_state",
    "keras.src.backend.tensorflow.trainer": "potentially_ragged_concat",
    "keras.src.random": "seed_generator",
    "keras.src.random.seed_generator": "GLOBAL_SEED_GENERATOR",
    "keras.src.trainers": "data_adapters",
    "keras.src.utils.naming": "to_snake_case",
    "keras.src.utils.rng_utils": "GLOBAL_RANDOM_SEED",
    "keras_tuner.src": "protos",
    "keras_tuner.src.engine": "oracle",
    "tensorflow.python.framework": "op_def_registry",
    "tensorflow.python.framework.none_tensor": "NoneTensorSpec",
}

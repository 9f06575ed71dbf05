"""Names for values whose classes TensorFlow and Keras do not declare: neither has stubs that a checker can follow.

Most are `Any` to a type checker, and say to a reader what a parameter is.
"""

from typing import Any, TypeAlias

__all__ = ["Batch", "DType", "Data", "Dataset", "KerasModel", "Layer", "Slots", "Strategy", "Tensor", "Variable"]

# A `tf.Tensor`, eager or symbolic; what `tf.convert_to_tensor` takes.
Tensor: TypeAlias = Any
# A `tf.Variable`, or a `keras.Variable`.
Variable: TypeAlias = Any
# A `keras.Model`.
KerasModel: TypeAlias = Any
# A `keras.Layer`.
Layer: TypeAlias = Any
# A `tf.distribute.Strategy`.
Strategy: TypeAlias = Any
# `(x, y, sample_weight)`, tensors in any structure; or its element spec.
Batch: TypeAlias = Any
# Examples, targets or weights as `keras.Model.fit` takes them.
Data: TypeAlias = Any
# A `tf.data.Dataset`, or an iterator of one.
Dataset: TypeAlias = Any
# What an update rule remembers of one variable: a tensor for each of its `slot_names`.
Slots: TypeAlias = tuple[Any, ...]
# A `tf.DType`, or its name.
DType: TypeAlias = Any

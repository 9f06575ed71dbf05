"""The layers that may stand anywhere in a program, by the kind of tensor that they take."""

from . import drawn_layers as drawn

__all__ = ["IMAGE", "REDUCE_IMAGE", "REDUCE_SEQUENCE", "SEQUENCE", "VECTOR"]

_ANYWHERE: dict[str, drawn.Draw] = {
    "LayerNormalization": drawn.same("LayerNormalization", center=lambda r: r.choice([None, False])),
    "GroupNormalization": drawn.groups,
    "UnitNormalization": drawn.same("UnitNormalization"),
    "RMSNormalization": drawn.same("RMSNormalization"),
    "BatchNormalization": drawn.same("BatchNormalization", momentum=drawn.momentum, trainable=drawn.frozen),
    "Dropout": drawn.same("Dropout", rate=drawn.rate, seed=drawn.seed),
    "GaussianDropout": drawn.same("GaussianDropout", rate=drawn.rate, seed=drawn.seed),
    "GaussianNoise": drawn.same("GaussianNoise", stddev=drawn.rate, seed=drawn.seed),
    "AlphaDropout": drawn.same("AlphaDropout", rate=drawn.rate, seed=drawn.seed),
    "ActivityRegularization": drawn.same("ActivityRegularization", l1=0.01, l2=lambda r: r.choice([0.0, 0.02])),
    "PReLU": drawn.same("PReLU"),
    "LeakyReLU": drawn.same("LeakyReLU", negative_slope=0.2),
    "ELU": drawn.same("ELU"),
    "ReLU": drawn.same("ReLU", max_value=lambda r: r.choice([None, 1.0])),
    "Softmax": drawn.same("Softmax"),
    "Activation": drawn.same("Activation", activation=lambda r: r.choice(drawn.ACTIVATIONS)),
    "Rescaling": drawn.same("Rescaling", scale=0.5, offset=0.1),
    "Normalization": drawn.normalization,
    **{
        name: drawn.merge(name)
        for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
    },
}
VECTOR: dict[str, drawn.Draw] = {
    **_ANYWHERE,
    "Dense": drawn.dense,
    "EinsumDense": drawn.einsum,
    "SpectralNormalization": drawn.spectral,
    "Sequential": drawn.nested,
    "Discretization": drawn.discretization,
    "Dot": drawn.dot,
}
SEQUENCE: dict[str, drawn.Draw] = {
    "LayerNormalization": _ANYWHERE["LayerNormalization"],
    "BatchNormalization": _ANYWHERE["BatchNormalization"],
    "Dense": drawn.dense,
    "EinsumDense": drawn.einsum,
    "Conv1D": drawn.conv1,
    "Conv1DTranspose": drawn.conv("Conv1DTranspose"),
    "SeparableConv1D": drawn.conv("SeparableConv1D"),
    "DepthwiseConv1D": drawn.depthwise("DepthwiseConv1D"),
    "MaxPooling1D": drawn.pool("MaxPooling1D"),
    "AveragePooling1D": drawn.pool("AveragePooling1D"),
    "recurrent": drawn.rnn,
    "Bidirectional": drawn.bidirectional(True),
    "TimeDistributed": drawn.timed,
    "MultiHeadAttention": drawn.multi_head,
    "Attention": drawn.attention("Attention"),
    "AdditiveAttention": drawn.attention("AdditiveAttention"),
    "SpatialDropout1D": drawn.same("SpatialDropout1D", rate=drawn.rate, seed=drawn.seed),
    "ZeroPadding1D": drawn.sized("ZeroPadding1D", lambda n: n + 2, 1),
    "Cropping1D": drawn.sized("Cropping1D", lambda n: n - 2, 1),
    "UpSampling1D": drawn.sized("UpSampling1D", lambda n: n * 2, 2),
    "Masking": drawn.same("Masking", mask_value=0.0),
    "Permute": drawn.permute,
}
IMAGE: dict[str, drawn.Draw] = {
    "BatchNormalization": _ANYWHERE["BatchNormalization"],
    "GroupNormalization": drawn.groups,
    "Conv2D": drawn.conv("Conv2D"),
    "Conv2DTranspose": drawn.conv("Conv2DTranspose"),
    "SeparableConv2D": drawn.conv("SeparableConv2D"),
    "DepthwiseConv2D": drawn.depthwise("DepthwiseConv2D"),
    "MaxPooling2D": drawn.pool("MaxPooling2D"),
    "AveragePooling2D": drawn.pool("AveragePooling2D"),
    "SpatialDropout2D": drawn.same("SpatialDropout2D", rate=drawn.rate, seed=drawn.seed),
    "ZeroPadding2D": drawn.sized("ZeroPadding2D", lambda n: n + 2, 1),
    "Cropping2D": drawn.sized("Cropping2D", lambda n: n - 2, 1),
    "UpSampling2D": drawn.sized("UpSampling2D", lambda n: n * 2, 2),
    "Resizing": drawn.sized("Resizing", lambda n: 4, 4, 4),
    "CenterCrop": drawn.sized("CenterCrop", lambda n: 4, 4, 4),
}
REDUCE_SEQUENCE: dict[str, drawn.Draw] = {
    "recurrent": lambda random, shape: (drawn.recurrent(random, False), [3], "once"),
    "Bidirectional": drawn.bidirectional(False),
    "GlobalMaxPooling1D": drawn.pooled("GlobalMaxPooling1D"),
    "GlobalAveragePooling1D": drawn.pooled("GlobalAveragePooling1D"),
    "Flatten": drawn.flat,
}
REDUCE_IMAGE: dict[str, drawn.Draw] = {
    "Flatten": drawn.flat,
    "GlobalMaxPooling2D": drawn.pooled("GlobalMaxPooling2D"),
    "GlobalAveragePooling2D": drawn.pooled("GlobalAveragePooling2D"),
    "Reshape": drawn.rows_of_image,
}

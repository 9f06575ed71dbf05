"""Any TFDS image classification set with images of one size, by its name.

python examples/tfds_dataset.py fashion_mnist               # downloads 30 MB once, and keeps the decoded images
python examples/tfds_dataset.py digits                      # scikit-learn's, where nothing can be downloaded
"""

import sys

import keras

import tfmb
from tfmb.models import cnn, with_preprocessing

name = sys.argv[1] if len(sys.argv) > 1 else "fashion_mnist"
splits = tfmb.data.load(name)
train, test = splits.train, splits.test
print(f"{name}: {train.size:,} train images of shape {train.image_shape}, {train.num_classes} classes")

# The model takes the pixels as they are stored; the mean and deviation of the train split are inside.
model = with_preprocessing(cnn(train.image_shape, train.num_classes), train.image_shape, splits.normalization)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])

tfmb.fit(model, train.examples, train.labels, batch_size=64, epochs=2, seed=0, verbose=2)
print(f"test accuracy {tfmb.evaluate(model, test.examples, test.labels, verbose=0)[1]:.3f}")

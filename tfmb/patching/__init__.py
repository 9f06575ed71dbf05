"""The methods of `keras.Model`, replaced by ours."""

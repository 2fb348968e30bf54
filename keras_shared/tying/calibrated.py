import keras

from keras_shared.tying.keras_private import flatten_layers


def refuse_calibrated(model: keras.Layer, error: type[Exception]) -> None:
    """See that no layer is quantised by GPTQ or AWQ, whose files Keras cannot load again.

    Keras 3.15 leaves out the zero points of such a layer where it saves it.

    Args:
        model: a layer or model, to be saved or to be loaded into.
        error: the class of the error.

    Raises:
        Exception: that error, if there is such a layer; the message names it.

    Example:
        >>> import keras
        >>> from keras_shared.tying.calibrated import refuse_calibrated
        >>> from keras_shared.tying import TieError
        >>> refuse_calibrated(keras.layers.Dense(2, dtype="int8_from_float32"), TieError)
    """
    for layer in flatten_layers(model):
        mode = getattr(layer, "quantization_mode", None)
        if mode in ("gptq", "awq"):
            raise error(
                f"'{layer.name}' of '{model.name}' is quantised as {mode!r}, which Keras cannot "
                "save and load again. Write the model by keras_shared.export, as SavedModel, ONNX "
                "or LiteRT, or quantise it as 'int8' or 'int4' in place of that."
            )

import keras

from keras_shared.tying.bind_ties import bind_ties, readers_of


def check_ties(model: keras.Model) -> None:
    """Rebuild `model` as loading and cloning would, and see that every reader finds its source.

    A dry run before a long training: what it lets pass comes back tied from a `.keras` file,
    `from_config`, JSON and `clone_model`. Weights are neither copied nor changed.

    Args:
        model: a functional or Sequential model, or a subclass with `get_config`.

    Raises:
        TieError: if a source lies outside of the model, or several layers of the model answer to
            its description; the message names reader and source.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedDense
        >>> from keras_shared.tying import TieError, check_ties
        >>> inputs = keras.Input((4,))
        >>> code = keras.layers.Dense(2, name="code")
        >>> whole = keras.Model(inputs, TiedDense(code)(code(inputs)))
        >>> check_ties(whole)
        >>> alone = keras.Model(code.output, whole.output)
        >>> try:
        ...     check_ties(alone)
        ... except TieError as error:
        ...     print("not part of the model" in str(error))
        True
    """
    if not readers_of(model):
        return
    bind_ties(type(model).from_config(model.get_config()))
    if isinstance(model, keras.Sequential) or getattr(model, "inputs", None):
        bind_ties(keras.models.clone_model(model))

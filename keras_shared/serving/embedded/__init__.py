"""The embedded engine: TF Serving's two interfaces on TensorFlow's own Session, in Python."""

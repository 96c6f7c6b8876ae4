"""Writing and reading `.tflite` files without TensorFlow, for authors and the controller."""

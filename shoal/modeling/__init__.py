"""Training small models without TensorFlow, and turning them into releases."""

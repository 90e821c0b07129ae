"""Models as files that other runtimes execute: tensors in, tensors out, at any batch and image size."""

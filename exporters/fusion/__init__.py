"""An explanation as one ONNX graph: what camrt computes in NumPy, emitted as nodes."""

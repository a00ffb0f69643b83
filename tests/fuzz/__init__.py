"""Damaged and hostile ONNX files: each must be exported rightly or refused in one sentence.

python -m tests.fuzz --count 10000 --seed 0
"""

"""Finds the parts of a photo's file that its decoder needs, with one module per format.

A file can contain more than the picture: a video after a JPEG, text and profiles in a PNG, private tags in a TIFF.
Viewers ignore these parts, so these parts must not affect whether a picture is recognised. Each module of this package
reads a file in the same order as the decoder, and keeps only the bytes that affect pixels.
"""

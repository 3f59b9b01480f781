"""Finds the parts of a photo's file that its decoder needs, with one module per format.

Files contain more than the picture: a video after a JPEG, text and profiles in a PNG, private tags in a TIFF. Viewers
ignore these parts, so they must not affect whether a picture is recognised. Each module here walks through a file as
the decoder does, and keeps only the bytes that affect pixels.
"""

"""What a decoder needs of a photo's file, format by format.

Files carry more than their picture: video behind a JPEG, text and profiles in a PNG, private tags in a TIFF. No viewer
looks at it, so it must not decide whether a picture is known. Each module here walks a file as its decoder does, and
keeps the bytes that decide pixels.
"""

"""Ring 1: values and ports. Standard library only; no clock, no input or output."""

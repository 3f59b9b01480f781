"""Ring 1: values and ports. It imports only the standard library, reads no clock, and does no input or output."""

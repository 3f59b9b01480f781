"""Ring 3: the five stages as functions of ports. They return reports. They write no logs and no metrics."""

"""Ring 3: the five stages as functions of ports. They return reports, and neither log nor count."""

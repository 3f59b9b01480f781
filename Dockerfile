# The command line in a container. State is kept in the volume: see docs/serve.md.

FROM python:3.13-slim AS build
COPY pyproject.toml README.md LICENSE tests/demo-requirements.txt /source/
COPY layers/countermark /source/layers/countermark
RUN python -m venv /opt/uv && /opt/uv/bin/python -m pip install --quiet uv==0.13.9
RUN /opt/uv/bin/uv venv --quiet --no-project --python python /opt/countermark
# The versions that the tests run with, by their hashes; wheels alone, as there is no compiler.
RUN /opt/uv/bin/uv pip install --quiet --python /opt/countermark/bin/python --only-binary :all: --no-binary countermark --constraint /source/demo-requirements.txt --build-constraint /source/demo-requirements.txt "countermark[serve] @ file:///source"

FROM python:3.13-slim
COPY --from=build /opt/countermark /opt/countermark
ENV PATH=/opt/countermark/bin:$PATH COUNTERMARK_STATEDIR=/var/lib/countermark
RUN useradd --create-home countermark && install --directory --owner countermark --mode 700 /var/lib/countermark
USER countermark
VOLUME /var/lib/countermark
ENTRYPOINT ["countermark"]

# The service: pinned requirements with their hashes, an ordinary user, a health check that asks nobody over the network.
#   docker build -t penstock:0.1.0 .
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
RUN python -m venv /opt/penstock
COPY requirements/ requirements/
RUN /opt/penstock/bin/pip install --require-hashes -r requirements/base.txt
# What builds the wheel is pinned like the rest, and stays behind in this stage.
RUN awk '/^[a-z]/ { keep = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } keep' requirements/dev.txt > build.txt \
    && pip install --require-hashes -r build.txt
COPY pyproject.toml LICENSE README.md ./
COPY penstock/ penstock/
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/penstock/bin/pip install --no-deps /wheels/*.whl

FROM python:${PYTHON}-slim
RUN useradd --system --uid 10001 --home-dir /app penstock \
    && install -d -o penstock -g penstock /app /data
COPY --from=build /opt/penstock /opt/penstock
ENV PATH=/opt/penstock/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER penstock
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["penstock", "check", "--live"]
ENTRYPOINT ["penstock"]
CMD ["--help"]

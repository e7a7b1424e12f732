# One image for every function; which one it serves is the container's argument: run, status, active, cancel, history,
# stream, docs or archive. Builds with docker, podman and buildah alike; any base with python3 (3.11 or newer) and its venv will do.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /build
RUN python3 -m venv pip
# Everything that the lock names, each checked against its hash. What is installed is then chosen out of these and
# nothing else, so that the image has the locked versions without the tools of a developer.
COPY requirements.lock .
RUN pip/bin/pip wheel --quiet --disable-pip-version-check --no-deps --require-hashes --wheel-dir wheels --requirement requirements.lock
COPY pyproject.toml .
RUN python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > dependencies \
 && python3 -m venv --without-pip /app/venv \
 && pip/bin/pip --python /app/venv/bin/python install --quiet --disable-pip-version-check --no-index --no-compile --find-links wheels --requirement dependencies
# The Kubernetes client's models and operations, two thirds of everything: `common.kube` uses its transport alone.
RUN find /app/venv/lib/python*/site-packages/kubernetes \( -path '*/models/*' -o -path '*/api/*' \) -name '*_*.py' ! -name __init__.py -delete
COPY common /app/common
COPY functions /app/functions
COPY examples/simple-pipeline /app/pipelines/examples/simple-pipeline
# The container's file system is read-only: what is not compiled now would be compiled at every start.
RUN /app/venv/bin/python -m compileall -q -j 0 /app

FROM ${BASE}
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/venv/bin:$PATH HOST=0.0.0.0 PORT=8080 RUNNER=kubernetes PIPELINES_DIR=/app/pipelines PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/app/venv/bin/python", "-m", "functions.server"]
# Without an argument: which there are.
CMD ["--help"]

# The operator. Built from the root of the repository, by any builder of OCI images: `make images`.
#
# One base, to build with; the image itself has Python and what is ours, without pip, shell or package manager. Give the base with
# its digest to have the same image again: --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY requirements/operator.lock requirements/
RUN python -m pip --disable-pip-version-check --no-cache-dir install --require-hashes --no-deps --only-binary=:all: \
      --no-compile --target=/out/opt/dependencies --requirement=requirements/operator.lock \
 && rm -rf /out/opt/dependencies/bin
# 70 MB of generated API classes, imported one by one where they are asked for: we ask `kubernetes` for credentials only.
RUN cd /out/opt/dependencies/kubernetes \
 && find client/api client/models aio/client/api aio/client/models -name '*.py' ! -name __init__.py -delete
COPY images/root.sh images/passwd images/group images/
# Compiled ahead: nothing can be written in a container whose root is read-only.
RUN images/root.sh /out && python -m compileall -q -j0 --invalidation-mode=unchecked-hash /out
COPY operator/spillway_operator /code/opt/spillway/spillway_operator
COPY sidecar/spillway_wire /code/opt/spillway/spillway_wire
RUN python -m compileall -q -j0 --invalidation-mode=unchecked-hash /code

FROM scratch
COPY --from=build /out/ /
COPY --from=build /code/ /
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONPATH=/opt/spillway:/opt/dependencies \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    USER=spillway
USER 65532:65532
WORKDIR /
# Fails the build where something is missing that it needs.
RUN ["python", "-c", "import uvloop, ssl, zoneinfo, spillway_operator.__main__, spillway_operator.cluster; ssl.create_default_context(); zoneinfo.ZoneInfo('Europe/Berlin')"]
ENTRYPOINT ["python", "-m", "spillway_operator"]

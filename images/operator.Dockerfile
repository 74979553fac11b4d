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
COPY images/ images/
RUN images/root.sh /out
COPY operator/spillway_operator /out/opt/spillway/spillway_operator
COPY sidecar/spillway_wire /out/opt/spillway/spillway_wire
# Compiled ahead: nothing can be written in a container whose root is read-only. But for 70 MB of API models, of which few are used.
RUN python -m compileall -q -j0 --invalidation-mode=unchecked-hash -x '/kubernetes/(aio/)?client/(api|models)/' /out/opt /out/usr/local/lib

FROM scratch
COPY --from=build /out/ /
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONPATH=/opt/spillway:/opt/dependencies \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    USER=spillway
USER 65532:65532
WORKDIR /
# Fails the build where something is missing that it needs.
RUN ["python", "-c", "import uvloop, ssl, spillway_operator.__main__, spillway_operator.cluster; ssl.create_default_context()"]
ENTRYPOINT ["python", "-m", "spillway_operator"]

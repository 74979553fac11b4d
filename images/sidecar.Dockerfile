# The proxy: gateway and sidecars. Built from the root of the repository, by any builder of OCI images: `make images`.
#
# One base, to build with; the image itself has Python and what is ours, without pip, shell or package manager. Give the base with
# its digest to have the same image again: --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY requirements/sidecar.lock requirements/
RUN python -m pip --disable-pip-version-check --no-cache-dir install --require-hashes --no-deps --only-binary=:all: \
      --no-compile --target=/out/opt/dependencies --requirement=requirements/sidecar.lock \
 && rm -rf /out/opt/dependencies/bin
COPY images/root.sh images/passwd images/group images/
# Compiled ahead: nothing can be written in a container whose root is read-only.
RUN images/root.sh /out && python -m compileall -q -j0 --invalidation-mode=unchecked-hash /out

# What each request passes through, as C: half the CPU time a request. Without a compiler it runs as it stands; --build-arg COMPILE=no
# leaves it so, and COMPILE=always fails the build instead.
FROM build AS code
ARG COMPILE=
COPY requirements/compile.lock requirements/
RUN [ "$COMPILE" = no ] || { \
      { command -v gcc >/dev/null || { apt-get -qq update && apt-get -qq install --no-install-recommends gcc libc6-dev >/dev/null; }; } \
      && python -m pip --disable-pip-version-check --no-cache-dir install --require-hashes --no-deps --only-binary=:all: \
           --target=/compiler --requirement=requirements/compile.lock; \
    } || [ "$COMPILE" != always ]
COPY images/compiled.py images/
COPY sidecar/spillway_sidecar sidecar/spillway_sidecar
COPY sidecar/spillway_wire sidecar/spillway_wire
RUN mkdir -p /code/opt \
 && { { [ "$COMPILE" != no ] && PYTHONPATH=/compiler:/out/opt/dependencies python images/compiled.py /code/opt/spillway; } \
      || { [ "$COMPILE" != always ] && cp -r sidecar /code/opt/spillway && echo "The sources are not compiled."; }; } \
 && python -m compileall -q -j0 --invalidation-mode=unchecked-hash /code

FROM scratch
COPY --from=build /out/ /
COPY --from=code /code/ /
ENV PATH=/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONPATH=/opt/spillway:/opt/dependencies \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
# Fails the build where something is missing that it needs.
RUN ["python", "-c", "import uvloop, ssl, spillway_sidecar.__main__; ssl.create_default_context()"]
ENTRYPOINT ["python", "-m", "spillway_sidecar"]

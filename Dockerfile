# The training image. Every builder takes this file: no syntax line, no heredoc, no --link.
#
#   docker build -t mrigan .
#
# CUDA 12.6 twin, for drivers older than 580 (the second lock is made with
# `uv pip compile --torch-backend cu126 --generate-hashes pyproject.toml -o requirements-cu126.txt`):
#
#   docker build -t mrigan:cu126 --build-arg BASE=nvidia/cuda:12.6.3-base-ubuntu24.04 \
#       --build-arg REQUIREMENTS=requirements-cu126.txt --build-arg UV_TORCH_BACKEND=cu126 .
ARG BASE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${BASE} AS uv
ARG UV_VERSION=0.13.9
# No version of python3 is right for every BASE, and this stage's apt lists stay behind.
# hadolint ignore=DL3008,DL3009
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"
ENV PATH=/opt/uv/bin:$PATH VIRTUAL_ENV=/opt/venv UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
RUN uv venv --python /usr/bin/python3 /opt/venv

FROM uv AS dependencies
ARG REQUIREMENTS=requirements.txt
ARG UV_TORCH_BACKEND
COPY ${REQUIREMENTS} /build/requirements.txt
# Compiled here: the unprivileged user of a read-only container cannot, and importing torch from
# source costs every start several seconds.
RUN uv pip install --require-hashes --compile-bytecode -r /build/requirements.txt

# A venv at the same path that holds nothing but mrigan: copied over the other one, it makes the
# only layer that a change of code replaces.
FROM uv AS package
COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
RUN uv pip install --offline --no-deps --compile-bytecode /build

FROM ${BASE}
# SageMaker needs root; compose runs the job as uid 10001 (the base has its own user 1000).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home mrigan \
    && install -d -o mrigan -g mrigan /cache /workspace
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /opt/venv /opt/venv
# Caches go where a read-only container has its tmpfs and SageMaker its big disk.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    TRITON_CACHE_DIR=/tmp/triton
LABEL org.opencontainers.image.title="mrigan" \
      org.opencontainers.image.description="A batch job that trains a GAN on MRI slices" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /workspace
ENTRYPOINT ["mrigan"]
CMD ["train"]

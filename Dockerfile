# The command genseg in a container, with everything that the tests need.
#
#   docker build -t genseg .
#   docker run --rm -v "$PWD":/work genseg predict photo.jpg gen2seg_unet_objects_long_tiny --automatic
#
# For the CPU alone, and for NVIDIA cards (CUDA: the version of torch; mmcv's operators are compiled for the cards of
# TORCH_CUDA_ARCH_LIST):
#
#   docker build -t genseg --build-arg GENSEG_TORCH='torch==VERSION --index-url CPU-INDEX-OF-PYTORCH' .
#   docker build -t genseg:cuda --build-arg BASE=nvidia/cuda:CUDA-devel-ubuntu24.04 --build-arg FORCE_CUDA=1 .
#   docker run --rm --gpus all -v "$PWD":/work -e GENSEG_DATA=/work/data genseg:cuda train refcoco
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

# What tools/setup_env.sh --help explains
ARG GENSEG_TORCH=""
ARG FORCE_CUDA=""
ARG TORCH_CUDA_ARCH_LIST="8.0 8.6 8.9 9.0"

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# A compiler for mmcv's operators and torch.compile; Python where the base has none. No versions: those of the base.
# hadolint ignore=DL3008
RUN apt-get update \
    && packages=(g++ git) \
    && if ! command -v python3; then packages+=(python3 python3-dev python3-venv); fi \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}" \
    && rm -rf /var/lib/apt/lists/*

COPY . /genseg_mm
RUN PIP_NO_CACHE_DIR=1 bash /genseg_mm/tools/setup_env.sh && rm -rf /root/.cache

ENV PATH=/genseg_mm/.venv/bin:$PATH
WORKDIR /work
ENTRYPOINT ["genseg"]
CMD ["doctor"]

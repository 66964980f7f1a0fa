# `roc4mllm serve` in a container, for CPU (default) or CUDA:
#   docker build -t roc4mllm .
#   docker build -t roc4mllm:cuda --build-arg DEVICE=cuda .
#   docker run --rm -p 127.0.0.1:8000:8000 -e API_KEY=… roc4mllm --api-key-env API_KEY
#   docker run --rm -p 127.0.0.1:8000:8000 --gpus all -v models:/var/lib/roc4mllm roc4mllm:cuda -m user/model --dtype bfloat16
# Linted with hadolint. Built for CPU with buildah, where it served as user 10001; in place of the base image stood Debian
# bookworm's own Python 3.11, and of torch's index a copy of its wheel. Docker and CUDA were not at hand.
ARG PYTHON=3.11.13

FROM python:${PYTHON}-slim-bookworm AS build
ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
# torch first and alone, from where the right build lies; what it needs comes with the rest. PyPI's wheels bring CUDA along.
COPY constraints.txt ./
RUN case "$DEVICE" in \
        cpu) index=https://download.pytorch.org/whl/cpu ;; \
        cuda) index=https://pypi.org/simple ;; \
        *) echo "DEVICE is cpu or cuda, got '$DEVICE'" >&2; exit 1 ;; \
    esac \
    && pip install --no-deps --only-binary :all: --index-url "$index" --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY roc4mllm roc4mllm
COPY roc4mllm_cli roc4mllm_cli
RUN pip install --constraint constraints.txt ".[serve]"

FROM python:${PYTHON}-slim-bookworm
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HF_HOME=/var/lib/roc4mllm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/roc4mllm roc4mllm
COPY --from=build /opt/venv /opt/venv
USER 10001
WORKDIR /var/lib/roc4mllm
VOLUME /var/lib/roc4mllm
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10m \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["roc4mllm", "serve", "--host", "0.0.0.0"]

# syntax=docker/dockerfile:1
#
#   docker build -t livedrag .                                      CPU, with whatever torch pip takes by default
#   docker build -t livedrag --build-arg TORCH_INDEX=... .          CPU, the small torch
#   docker build -t livedrag --build-arg DEVICE=cuda .              CUDA, gigabytes larger; run it with --gpus all
#   docker build -t livedrag --build-arg EXTRAS=ray .               with extras, several separated by commas
#   docker run -p 8000:8000 -v livedrag:/data livedrag
#
# TORCH_INDEX is the address of PyTorch's CPU wheel index: "Get started" on PyTorch's site gives it after `--index-url`
# when you choose Pip and CPU. With DEVICE=cuda it may name the index of a particular CUDA version; without, pip takes
# the torch of its default index.

ARG PYTHON=3.11
ARG NODE=22

FROM node:${NODE}-slim AS node

FROM python:${PYTHON}-slim AS build
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /livedrag
COPY constraints.txt /source/
ARG DEVICE=cpu
ARG TORCH_INDEX=
RUN if [ "$DEVICE" = cpu ] && [ -z "$TORCH_INDEX" ]; then \
        echo "no TORCH_INDEX: on x86-64 this takes the CUDA build of torch, which runs on the CPU but is gigabytes larger" >&2; \
    fi; \
    /livedrag/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
        "$(grep '^torch==' /source/constraints.txt)"
COPY . /source
ARG EXTRAS=
RUN /livedrag/bin/pip install --no-cache-dir -c /source/constraints.txt "/source${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 1000 livedrag && install -d -o livedrag -g livedrag /data
COPY --from=build /livedrag /livedrag
ENV PATH=/livedrag/bin:$PATH PYTHONUNBUFFERED=1
USER livedrag
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["livedrag"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000", "--data-dir", "/data"]

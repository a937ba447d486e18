# One image for every role; the role is the command:
#
#   docker build -t pacsnode .
#   docker run --init -p 104:11112 -v pacsnode:/var/lib/pacsnode -v /etc/pacsnode:/etc/pacsnode pacsnode
#   docker run --init ... pacsnode work
#
# /etc/pacsnode holds routing_rules.yaml (and pacsnode.toml where one is wanted); an empty volume starts with the shipped one.
# For a GPU: --build-arg TORCH_INDEX=<the index of PyTorch's CUDA build that fits the driver>, and run with --gpus all.
FROM python:3.12-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

# torch first: the largest layer, and the one that changes least.
COPY constraints.txt /build/
RUN python -m pip install --no-deps --index-url "$TORCH_INDEX" "$(grep ^torch== /build/constraints.txt)"

COPY pyproject.toml README.md LICENSE /build/
COPY pacsnode /build/pacsnode
RUN python -m pip install -c /build/constraints.txt "/build[ai]"

COPY models /opt/pacsnode/models
COPY routing_rules.yaml /etc/pacsnode/

# A fixed number: the owner of files in a volume must not change with the image.
RUN groupadd --system --gid 10104 pacsnode \
    && useradd --system --uid 10104 --gid pacsnode --home-dir /var/lib/pacsnode --no-create-home pacsnode \
    && install -d -m 0700 -o pacsnode -g pacsnode /var/lib/pacsnode
USER pacsnode
WORKDIR /etc/pacsnode

ENV PACSNODE_HOME=/var/lib/pacsnode \
    PACSNODE_RULES=/etc/pacsnode/routing_rules.yaml \
    PACSNODE_MODELS=/opt/pacsnode/models \
    PACSNODE_DICOM_PORT=11112
VOLUME /var/lib/pacsnode
EXPOSE 11112

# A C-ECHO from inside would be refused: only the peers of the rules file get an association. A TCP connection alone
# proves little: the kernel accepts it for a process that hangs. So: a release request out of turn (PS3.8 9.3.6), which
# every DICOM program answers with an abort (PS3.8 9.2.3, AA-1); the log has a line for it. For a container of the role
# `work`, which listens nowhere: --no-healthcheck.
HEALTHCHECK --interval=60s --timeout=10s --start-period=30s CMD ["python", "-c", "import os, socket; s = socket.create_connection(('127.0.0.1', int(os.environ['PACSNODE_DICOM_PORT'])), 5); s.sendall(bytes.fromhex('05000000000400000000')); raise SystemExit(s.recv(1) != bytes([7]))"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["pacsnode"]
CMD ["serve"]
